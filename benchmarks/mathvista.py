"""MathVista (testmini, 1,000 problems): mathematics over figures, charts and photographs.

The official protocol extracts the answer from the response by quick rules, and by a judge where they
do not apply. Without a judge the rules alone read it: on the embedded pocket rows that is final and
an unread answer is wrong; on other rows an unread answer is unscored, since the protocol hands it to
the judge. Data: Lu et al., 2023, arXiv 2310.02255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stic_eval.evals.benchmark import Benchmark, HubData
from stic_eval.evals.judge import is_pocket
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.choice import letters
from stic_eval.evals.scoring.mathvista import extract, is_correct
from stic_eval.evals.sources import images_of, row_id
from stic_eval.types import Generation, Record, Sample, Score, Summary

_ASKED = {
    ("integer", None): "an integer answer and provide the final value, e.g., 1, 2, 3",
    ("float", 1): (
        "a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4"
    ),
    ("float", 2): (
        "a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45"
    ),
    ("list", None): (
        "a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4]"
    ),
}


def query(row: Mapping[str, Any]) -> str:
    """The hub's `query` column, rebuilt for copies of the data without it (the repository's JSON)."""
    if row["question_type"] == "multi_choice":
        asked = "and provide the correct option letter, e.g., A, B, C, D"
    else:
        precision = row["precision"] if row["answer_type"] == "float" else None
        asked = "requiring " + _ASKED[row["answer_type"], None if precision is None else int(precision)]
    unit = f" (Unit: {row['unit']})" if row["unit"] else ""
    lines = [f"Hint: Please answer the question {asked}, at the end.", f"Question: {row['question']}{unit}"]
    choices = row["choices"] or ()
    if choices:
        lines += ["Choices:", *(f"({a}) {c}" for a, c in zip(letters(len(choices)), choices, strict=True))]
    return "\n".join(lines)


def to_sample(row: Mapping[str, Any]) -> Sample:
    """The row's query (hint, question, choices); the target is the annotated answer's text."""
    name = row_id(row, "pid")
    choices = tuple(str(choice) for choice in row["choices"] or ())
    if row["question_type"] == "multi_choice" and not choices:
        raise ValueError("column choices is empty in a multiple-choice problem")
    about = row["metadata"]
    image = row.get("decoded_image")
    return Sample(
        id=name,
        images=images_of(row["image"] if image is None else image, f"mathvista/{name}"),
        question=str(row.get("query") or query(row)),
        target=str(row["answer"]),
        choices=choices,
        group={
            "task": about["task"],
            "skill": ",".join(about["skills"]),
            "context": about["context"],
            "grade": about["grade"],
        },
        meta={key: row[key] for key in ("question_type", "answer_type", "precision")},
    )


def score(sample: Sample, response: str) -> Score:
    """Reads the answer by rule, normalises and compares it."""
    meta = sample.meta
    found = extract(response, meta["question_type"], meta["answer_type"], sample.choices)
    if found is None:
        if is_pocket(sample):
            return Score(0.0, None, "no answer read by rule")
        return Score(None, None, "no answer read by rule, and this version has no judge client")
    right = is_correct(
        found, sample.target, meta["question_type"], meta["answer_type"], sample.choices, meta["precision"]
    )
    return Score(float(right), found)


def aggregate(records: Sequence[Record]) -> Summary:
    """Accuracy; by task, skill (a problem may need several), context and grade."""
    return summarize(records, several=("skill",))


benchmark = Benchmark(
    name="mathvista",
    title="MathVista",
    version=1,
    source=HubData(
        "AI4Math/MathVista", "testmini", revision="2b6ad69445fbb5695c9b165475e8decdbeb97747", rows=1000
    ),
    to_sample=to_sample,
    generation=Generation(max_new_tokens=1024),
    score=score,
    aggregate=aggregate,
    protocol="the row's query; answer read by rule, normalised and compared; accuracy",
    paper_column="MathVista",
)
