"""MMBench (English, dev): abilities by multiple choice, under circular evaluation.

A question counts as right only if it is answered rightly under every rotation of its options; its
rotations are rows whose `index` differs by a multiple of a million. Prompts are those of LLaVA-1.5's
`model_vqa_mmbench.py --single-pred-prompt` and of lmms-eval; answers are read by the official rules. Data:
Liu et al., 2023, arXiv 2307.06281. Rows of the hub data set, of the official TSV that LLaVA uses, and of
VLMEvalKit's TSV all fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stic_eval.contracts.benchmark import Benchmark, Departure, HubData, HubId
from stic_eval.evals.columns import FilledText, Text
from stic_eval.evals.option_matcher import MATCHING
from stic_eval.evals.rule_grading import rules_decide
from stic_eval.evals.scoring.aggregate import all_right, summarize
from stic_eval.evals.scoring.choice import mmbench_letter, option_cells
from stic_eval.evals.sources import images_of
from stic_eval.types import Generation, Record, Sample, Score, Summary

SUFFIX = "Answer with the option's letter from the given choices directly."
LMMS_OPTIONS = "There are several options:"
ROTATION = 1_000_000
# The data set has moved to another organisation, which keeps its commits.
COMMIT = "56ba1af8954932c4804bd3f522e05ed96e63b654"
LETTERS = "ABCD"

# The second level of the ability taxonomy, as the paper's table 7 abbreviates it.
ABILITIES = {
    "logic_reasoning": "LR",
    "attribute_reasoning": "AR",
    "relation_reasoning": "RR",
    "finegrained_perception_(instance-level)": "FP-S",
    "finegrained_perception_(cross-instance)": "FP-C",
    "coarse_perception": "CP",
}

OptionText = Annotated[str, Field(coerce_numbers_to_str=True)]


class Options(BaseModel):
    """What may be chosen.

    Attributes:
        protocol: `llava`: hint, question and options on separate lines; `lmms`: hint and question in one
            line, `There are several options:` before the options, and the answer ends before `ASSISTANT:`.
            Both read answers in the same way.
        evaluation: `circular`: a question is right if it is right under every rotation, as the paper reports;
            `vanilla`: every question is asked once, with the options in their first order, and the score is
            the accuracy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["llava", "lmms"] = "llava"
    evaluation: Literal["circular", "vanilla"] = "circular"


class Row(BaseModel):
    """A row of the hub's data set or of a TSV. `answer` is None in the test split."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    index: int
    image: Any = None
    question: FilledText
    hint: Text
    choices: dict[str, OptionText] = Field(validation_alias="A")
    second: Any = Field(validation_alias="B")  # part of `choices`; C and D may be missing
    answer: Text | None = None
    category: Text
    level2: Text = Field(validation_alias=AliasChoices("L2-category", "l2-category"))

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, "A": option_cells(row, LETTERS)} if "A" in row else row

    @field_validator("choices")
    @classmethod
    def _check_choices(cls, choices: dict[str, str]) -> dict[str, str]:
        if not choices:
            raise ValueError("is empty; a multiple-choice question has options")
        return choices

    @field_validator("answer")
    @classmethod
    def _among_options(cls, answer: str | None, info: ValidationInfo) -> str | None:
        choices = info.data.get("choices", {})
        if answer and choices and answer not in choices:
            raise ValueError(f"is {answer!r}, but the options are {', '.join(choices)}")
        return answer or None


def _index(row: Mapping[str, Any]) -> int:
    cell = row["index"]
    try:
        return int(cell)
    except (TypeError, ValueError):
        raise ValueError(f'column "index" is {cell!r}, which is no whole number') from None


def unit(row: Mapping[str, Any]) -> str:
    """The question that a row is a rotation of."""
    return str(_index(row) % ROTATION)


def comes_first(row: Mapping[str, Any]) -> bool:
    """Whether the row has its question's options as they come first, not rotated."""
    return _index(row) < ROTATION


def llava_prompt(hint: str, question: str, options: Mapping[str, str]) -> str:
    """Everything on a line of its own."""
    lines = [hint] if hint and hint.lower() != "none" else []
    lines += [question, *(f"{letter}. {text}" for letter, text in options.items()), SUFFIX]
    return "\n".join(lines)


def lmms_prompt(hint: str, question: str, options: Mapping[str, str]) -> str:
    """Hint, question and the announcement of the options in one line; an empty line before the suffix."""
    listed = "".join(f"\n{letter}. {text}" for letter, text in options.items())
    asked = f"{hint} {question}" if hint else question
    return f"{asked} {LMMS_OPTIONS}{listed}\n\n{SUFFIX}"


def to_sample(row: Mapping[str, Any], protocol: Literal["llava", "lmms"] = "llava") -> Sample:
    """Hint, question and lettered options; the target is a letter, or None in the test split."""
    read = Row.model_validate(row)
    prompt = lmms_prompt if protocol == "lmms" else llava_prompt
    ability = read.level2.replace(" ", "_")
    return Sample(
        id=str(read.index),
        images=images_of(read.image, f"mmbench/{read.index}"),
        question=prompt(read.hint, read.question, read.choices),
        target=read.answer,
        choices=tuple(read.choices.values()),
        group={"ability": ABILITIES.get(ability, ability), "category": read.category},
        meta={"unit": str(read.index % ROTATION), "question": read.question},
    )


def score(sample: Sample, response: str) -> Score:
    """Right if the option that was read is the target; an answer that cannot be read is wrong."""
    letter = mmbench_letter(response.strip(), dict(zip(LETTERS, sample.choices, strict=False)))
    if sample.target is None:
        return Score(None, letter, "the row has no answer (test split)")
    if letter is None:
        return Score(0.0, None, "no option in the answer", open=not rules_decide(sample))
    return Score(float(letter == sample.target), letter)


def aggregate(records: Sequence[Record]) -> Summary:
    """Circular accuracy over questions; by ability (the paper's table 7) and category.

    `vanilla` and `vanilla/LR`, `vanilla/AR`, ... are what vanilla evaluation gives: the accuracy
    of the rows that are not rotated.
    """
    circular = all_right(records, lambda record: str(int(record.id) % ROTATION))
    first = summarize([record for record in records if int(record.id) < ROTATION])
    breakdown = {label: value for label, value in circular.breakdown.items() if label != "vanilla"}
    if first.score is not None:
        breakdown["vanilla"] = first.score
    for label, value in first.breakdown.items():
        if label.startswith("ability/"):
            breakdown[f"vanilla/{label.removeprefix('ability/')}"] = value
    return Summary(circular.score, circular.n, circular.unscored, circular.units, breakdown)


# ---------------------------------------------------------------- what differs from lmms-eval

DEPARTURES = (
    Departure(
        what="options that a question lacks are left out",
        why="lmms-eval keeps the hub's `nan` cells as option texts, and then finds them inside words",
        example=(
            "'a banana' with the options apple, banana, nan, nan: B here; not read in lmms-eval, because it "
            "contains `nan` as well"
        ),
    ),
    Departure(
        what="if no rule can read an answer, it is wrong or the judge decides; nothing is drawn at random",
        why="lmms-eval draws an option, or none, if its judge fails, so scores change by chance",
        example="'I cannot tell.': wrong here, right in lmms-eval in about one of five draws",
    ),
    Departure(
        what="an answer is read the same whatever it says",
        why="lmms-eval mistakes an answer that contains its own error message for an error of its judge",
        example="'B. Failed to obtain answer via API': B here, not read in lmms-eval",
    ),
)


def vary(options: Options) -> Benchmark:
    """The benchmark under a protocol and a way of evaluation."""
    lmms, vanilla = options.protocol == "lmms", options.evaluation == "vanilla"
    prompt = (
        "lmms-eval: hint and question, `There are several options:`"
        if lmms
        else "LLaVA-1.5: hint, question, options"
    )
    end = ", the answer ending before `ASSISTANT:`" if lmms else ""
    return Benchmark(
        name="mmbench",
        title="MMBench",
        version=2,
        source=HubData(
            "lmms-lab-encoder/MMBench",
            "dev",
            name="en",
            revision=COMMIT,
            rows=1164 if vanilla else 4329,
            former=(HubId("lmms-lab/MMBench", COMMIT),),
        ),
        to_sample=partial(to_sample, protocol=options.protocol),
        generation=Generation(max_new_tokens=1024, stop=("ASSISTANT:",) if lmms else ()),
        score=score,
        aggregate=summarize if vanilla else aggregate,
        protocol=f"{prompt}, letter asked for{end}; {options.evaluation} accuracy, unread is wrong",
        variant=f"{options.protocol}, vanilla" if vanilla else options.protocol,
        options=Options,
        vary=vary,
        judging=MATCHING,
        keep=comes_first if vanilla else None,
        unit=None if vanilla else unit,
        vlmeval="MMBench_DEV_EN.tsv",
        paper_column="MMBench",
        metric="circular accuracy, by ability; vanilla accuracy beside it",
        sources=(
            "Liu et al., 2023, arXiv 2307.06281 (data, circular evaluation, reading)",
            "github haotian-liu/LLaVA: llava/eval/model_vqa_mmbench.py (llava)",
            "lmms-eval 0.7.3: tasks/mmbench (lmms)",
            "github open-compass/VLMEvalKit: vlmeval/dataset/utils/multiple_choice.py (rotations by index)",
        ),
        departures=DEPARTURES,
    )


benchmark = vary(Options())
