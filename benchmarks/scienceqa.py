"""ScienceQA (test, 4,241 questions, 2,017 of them with an image): multiple choice with context.

The prompt is LLaVA-1.5's (`model_vqa_science.py --single-pred-prompt`) and lmms-eval's, which are the
same text; they read answers differently. Data: Lu et al., 2022, arXiv 2209.09513.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stic_eval.contracts.benchmark import Benchmark, Departure, FolderLayout, HubData, HubId
from stic_eval.evals.columns import FilledText, Number, Text
from stic_eval.evals.option_matcher import MATCHING
from stic_eval.evals.rule_grading import rules_decide
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.choice import letters, llava_letter, lmms_letter, option_cells
from stic_eval.evals.sources import images_of
from stic_eval.types import Generation, Record, Sample, Score, Summary

SUFFIX = "Answer with the option's letter from the given choices directly."


class Options(BaseModel):
    """What may be chosen.

    Attributes:
        protocol: `llava`: answers are read as in LLaVA's `eval_science_qa.py`, 1,024 new tokens;
            `lmms`: as in lmms-eval, 16 new tokens. The prompt is the same.
        subset: `img`: the questions with an image, which the paper reports; `full`: all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["llava", "lmms"] = "llava"
    subset: Literal["img", "full"] = "img"


class Row(BaseModel):
    """A row of the hub's data set, of `problems.json`, or of VLMEvalKit's TSV (options in A to E)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Number = Field("", validation_alias=AliasChoices("id", "question_id", "pid", "index"))
    image: Any = None
    question: FilledText
    hint: Text
    choices: tuple[Number, ...]
    answer: int  # index of the right choice
    subject: Text
    grade: Number

    @model_validator(mode="before")
    @classmethod
    def _of_tsv(cls, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if "choices" in row or "A" not in row:
            return row
        return {
            "hint": "",
            "subject": "",
            "grade": "",
            **row,
            "choices": tuple(option_cells(row, "ABCDE").values()),
        }

    @field_validator("choices")
    @classmethod
    def _check_choices(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        if not choices:
            raise ValueError("is empty; a multiple-choice question has options")
        return choices

    @field_validator("answer", mode="before")
    @classmethod
    def _index(cls, answer: Any, info: ValidationInfo) -> Any:
        """A letter's index; whatever else is for the field to judge."""
        letter = answer.strip() if isinstance(answer, str) else ""
        if not re.fullmatch("[A-Z]", letter):
            return answer
        offered = letters(len(info.data.get("choices", "ABCDE")))
        if letter not in offered:
            raise ValueError(f"is {letter!r}, but the options are {', '.join(offered)}")
        return offered.index(letter)

    @field_validator("answer")
    @classmethod
    def _among_choices(cls, answer: int, info: ValidationInfo) -> int:
        choices = info.data.get("choices")
        if choices is not None and not 0 <= answer < len(choices):
            raise ValueError(f"is {answer}, but there are {len(choices)} choices, counted from 0")
        return answer


def to_sample(row: Mapping[str, Any], subset: Literal["img", "full"] = "img") -> Sample:
    """Context, question and lettered options; the target is a letter."""
    read = Row.model_validate(row)
    names = letters(len(read.choices))
    context = f"Context: {read.hint}\n" if read.hint else ""
    options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(names, read.choices, strict=True))
    # Rows that only serve to score may have lost their images, and with them what they are asked by.
    pictured = read.image is not None if "image" in row else True if subset == "img" else None
    return Sample(
        id=read.id,
        images=images_of(read.image, f"scienceqa/{read.id}"),
        question=f"{context}{read.question}\n{options}\n{SUFFIX}",
        target=names[read.answer],
        choices=read.choices,
        group=_groups(read, pictured),
        meta={"question": read.question},
    )


def _groups(row: Row, pictured: bool | None) -> dict[str, str]:
    """Subject, kinds of context and grade as the data set's paper breaks results down."""
    groups = {"subject": row.subject} if row.subject else {}
    if pictured is not None:
        groups["context"] = ",".join(["text"] * bool(row.hint) + ["image"] * pictured) or "none"
    grade = re.search(r"\d+", row.grade)
    if grade:
        groups["grade"] = "1-6" if int(grade[0]) <= 6 else "7-12"
    return groups


def score(sample: Sample, response: str, read: Callable[[str, int], str | None] = llava_letter) -> Score:
    """Right if the letter that was read is the target; an answer that cannot be read is wrong.

    Args:
        sample: The question.
        response: The model's answer.
        read: (answer, number of options) -> letter.
    """
    letter = read(response, len(sample.choices))
    if letter is None:
        return Score(0.0, None, "no option in the answer", open=not rules_decide(sample))
    return Score(float(letter == sample.target), letter)


def aggregate(records: Sequence[Record]) -> Summary:
    """Accuracy; by subject, kind of context and grade as in the data set's paper."""
    return summarize(records, several=("context",))


# ---------------------------------------------------------------- other layouts

_Rows = Sequence[Mapping[str, Any]]


def _join(tables: Mapping[str, _Rows]) -> Iterable[Mapping[str, Any]]:
    """The test split's problems: those that LLaVA's questions name, in their order, or all of them."""
    problems = {str(row["id"]): row for row in tables["problems"]}
    if "questions" not in tables:
        test = (row for row in problems.values() if row["split"] == "test")
        return [_with_path(row) for row in test]
    asked = [str(question["id"]) for question in tables["questions"]]
    missing = [name for name in asked if name not in problems]
    if missing:
        raise ValueError(f"{len(missing)} questions are not in problems.json, e.g. id {missing[0]}")
    return [_with_path(problems[name]) for name in asked]


def _with_path(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**row, "image": f"{row['id']}/{row['image']}" if row["image"] else None}


# The data set has moved to another organisation, which keeps its commits.
COMMIT = "69dd4d6b67373d38f96a5badd5d24d0eb5bcdc50"
LAYOUTS = (
    FolderLayout(
        "LLaVA's eval layout",
        {"problems": "problems.json", "questions": "llava_test_*.json"},
        "images/test",
        _join,
    ),
    FolderLayout("ScienceQA's own files", {"problems": "problems.json"}, "images/test", _join),
)

# ---------------------------------------------------------------- what differs from lmms-eval

DEPARTURES = (
    Departure(
        what="protocol llava: a single lower-case letter is not read",
        why="the paper compares with figures of LLaVA's script, which reads only upper-case letters",
        example="'b' where B is right: wrong here, right in lmms-eval; `--protocol lmms` reads it",
    ),
    Departure(
        what="protocol llava: a letter and a full stop must be followed by a space",
        why="LLaVA's script does the same",
        example="'B.' where B is right: wrong here, right in lmms-eval; `--protocol lmms` reads it",
    ),
    Departure(
        what="protocol llava: `The answer is X` is read if it occurs once, whatever character follows",
        why="LLaVA's script does the same",
        example="'The answer is B.' where B is right: right here, wrong in lmms-eval",
    ),
)


def vary(options: Options) -> Benchmark:
    """The benchmark under a protocol and on a part of the questions."""
    lmms, full = options.protocol == "lmms", options.subset == "full"
    source = HubData(
        "lmms-lab-encoder/ScienceQA",
        "test",
        name="ScienceQA-FULL" if full else "ScienceQA-IMG",
        revision=COMMIT,
        rows=4241 if full else 2017,
        former=(HubId("lmms-lab/ScienceQA", COMMIT),),
    )
    return Benchmark(
        name="scienceqa",
        title="ScienceQA",
        version=2,
        source=source,
        to_sample=partial(to_sample, subset=options.subset),
        generation=Generation(max_new_tokens=16 if lmms else 1024),
        score=partial(score, read=lmms_letter) if lmms else score,
        aggregate=aggregate,
        protocol=(
            f"{'lmms-eval' if lmms else 'LLaVA-1.5'}: context, question, options, letter asked for; accuracy"
            f"{' over all questions' if full else ''}, unread is wrong"
        ),
        variant=f"{options.protocol}, full" if full else options.protocol,
        options=Options,
        vary=vary,
        judging=MATCHING,
        images=not full,
        keep=None if full else lambda row: row.get("image", ...) is not None,
        layouts=LAYOUTS,
        vlmeval="ScienceQA_TEST.tsv",
        paper_column="ScienceQA",
        metric="accuracy; by subject, kind of context, grade",
        sources=(
            "Lu et al., 2022, arXiv 2209.09513 (data)",
            "github haotian-liu/LLaVA: llava/eval/model_vqa_science.py, eval_science_qa.py (llava)",
            "lmms-eval 0.7.3: tasks/scienceqa (lmms)",
        ),
        departures=() if lmms else DEPARTURES,
    )


benchmark = vary(Options())
