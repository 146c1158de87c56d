"""MMBench (English, dev): abilities by multiple choice, under circular evaluation.

A question counts as right only if it is answered rightly under every rotation of its options; its
rotations are rows whose `index` differs by a multiple of a million. Prompt as in LLaVA-1.5's
`model_vqa_mmbench.py --single-pred-prompt`; reading by the official rules without a judge. Data: Liu
et al., 2023, arXiv 2307.06281. Rows of the hub data set and of VLMEvalKit's TSV both fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stic_eval.evals.benchmark import Benchmark, HubData
from stic_eval.evals.scoring.aggregate import all_right
from stic_eval.evals.scoring.choice import mmbench_letter
from stic_eval.evals.sources import images_of
from stic_eval.types import Generation, Record, Sample, Score, Summary

SUFFIX = "Answer with the option's letter from the given choices directly."
ROTATION = 1_000_000

# The second level of the ability taxonomy, as the paper's table 7 abbreviates it.
ABILITIES = {
    "logic_reasoning": "LR",
    "attribute_reasoning": "AR",
    "relation_reasoning": "RR",
    "finegrained_perception_(instance-level)": "FP-S",
    "finegrained_perception_(cross-instance)": "FP-C",
    "coarse_perception": "CP",
}


def _text(cell: Any) -> str:
    """A cell's text; empty for what pandas and the hub make of a missing one (None, NaN, `nan`)."""
    text = "" if cell is None else str(cell)
    return "" if text.lower() == "nan" else text


def unit(row: Mapping[str, Any]) -> str:
    """The question that a row is a rotation of."""
    return str(int(row["index"]) % ROTATION)


def to_sample(row: Mapping[str, Any]) -> Sample:
    """Hint, question and lettered options; the target is a letter, or None in the test split."""
    options: dict[str, str] = {}
    for letter in "ABCD":
        text = _text(row[letter] if letter in "AB" else row.get(letter))
        if not text:
            break
        options[letter] = text
    answer = _text(row.get("answer")) or None
    if answer is not None and answer not in options:
        raise ValueError(f"column answer is {answer!r}, but the options are {', '.join(options) or 'none'}")
    hint = _text(row["hint"])
    name = str(int(row["index"]))
    lines = [hint] if hint and hint.lower() != "none" else []
    lines += [_text(row["question"]), *(f"{letter}. {text}" for letter, text in options.items()), SUFFIX]
    level2 = row["L2-category"] if "L2-category" in row else row["l2-category"]
    ability = _text(level2).replace(" ", "_")
    return Sample(
        id=name,
        images=images_of(row["image"], f"mmbench/{name}"),
        question="\n".join(lines),
        target=answer,
        choices=tuple(options.values()),
        group={"ability": ABILITIES.get(ability, ability), "category": _text(row["category"])},
        meta={"unit": unit(row)},
    )


def score(sample: Sample, response: str) -> Score:
    """Right if the option that was read is the target; an answer that cannot be read is wrong."""
    letter = mmbench_letter(response, dict(zip("ABCD", sample.choices, strict=False)))
    if sample.target is None:
        return Score(None, letter, "the row has no answer (test split)")
    return Score(float(letter == sample.target), letter, None if letter else "no option in the answer")


def aggregate(records: Sequence[Record]) -> Summary:
    """Circular accuracy over questions, by ability; `vanilla` is the accuracy over rows."""
    return all_right(records, lambda record: str(int(record.id) % ROTATION))


benchmark = Benchmark(
    name="mmbench",
    title="MMBench",
    version=1,
    source=HubData("lmms-lab/MMBench", "dev", name="en", rows=4329),
    to_sample=to_sample,
    generation=Generation(max_new_tokens=1024),
    score=score,
    aggregate=aggregate,
    protocol="LLaVA-1.5: hint, question, options, letter asked for; circular accuracy, unread is wrong",
    paper_column="MMBench",
    unit=unit,
)
