"""ScienceQA, the part with images (test, 2,017 questions): multiple choice with context.

Prompt and reading follow LLaVA-1.5's scripts (`model_vqa_science.py --single-pred-prompt`,
`eval_science_qa.py`). Data: Lu et al., 2022, arXiv 2209.09513.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stic_eval.evals.benchmark import Benchmark, HubData
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.choice import letters, llava_letter
from stic_eval.evals.sources import images_of, row_id
from stic_eval.types import Generation, Record, Sample, Score, Summary

SUFFIX = "Answer with the option's letter from the given choices directly."


def to_sample(row: Mapping[str, Any]) -> Sample:
    """Context, question and lettered options; the target is a letter."""
    choices = tuple(str(choice) for choice in row["choices"])
    answer = int(row["answer"])
    if not 0 <= answer < len(choices):
        raise ValueError(f"column answer is {answer}, but there are {len(choices)} choices")
    context = f"Context: {row['hint']}\n" if row["hint"] else ""
    options = "\n".join(
        f"{letter}. {choice}" for letter, choice in zip(letters(len(choices)), choices, strict=True)
    )
    name = row_id(row, "id", "question_id", "pid")
    return Sample(
        id=name,
        images=images_of(row["image"], f"scienceqa/{name}"),
        question=f"{context}{row['question']}\n{options}\n{SUFFIX}",
        target=letters(len(choices))[answer],
        choices=choices,
        group=_groups(row),
    )


def _groups(row: Mapping[str, Any]) -> dict[str, str]:
    context = ["text"] * bool(row["hint"]) + ["image"] * (row["image"] is not None)
    groups = {"subject": str(row["subject"]), "context": ",".join(context) or "none"}
    grade = re.search(r"\d+", str(row["grade"]))
    if grade:
        groups["grade"] = "1-6" if int(grade[0]) <= 6 else "7-12"
    return groups


def score(sample: Sample, response: str) -> Score:
    """Right if the letter that was read is the target; an answer that cannot be read is wrong."""
    letter = llava_letter(response, len(sample.choices))
    return Score(float(letter == sample.target), letter, None if letter else "no option letter in the answer")


def aggregate(records: Sequence[Record]) -> Summary:
    """Accuracy; by subject, kind of context and grade as in the data set's paper."""
    return summarize(records, several=("context",))


benchmark = Benchmark(
    name="scienceqa",
    title="ScienceQA",
    version=1,
    source=HubData("lmms-lab/ScienceQA", "test", name="ScienceQA-IMG", rows=2017),
    to_sample=to_sample,
    generation=Generation(max_new_tokens=1024),
    score=score,
    aggregate=aggregate,
    protocol="LLaVA-1.5: context, question, options, letter asked for; accuracy, unread is wrong",
    paper_column="ScienceQA",
)
