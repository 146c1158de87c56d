"""MathVista (testmini, 1,000 problems): mathematics over figures, charts and photographs.

The official protocol extracts the answer from the response by quick rules, and by a judge where they
do not apply. Without a judge the rules alone read it: where rules decide, an unread answer is wrong; on
other rows it is unscored, since the protocol hands it to the judge. Data: Lu et al., 2023, arXiv
2310.02255. Rows of the hub data set, of the repository's JSON (which has no `query`) and of VLMEvalKit's
TSV (whose `question` is the query) all fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from stic_eval.contracts.benchmark import Benchmark, Departure, FolderLayout, HubData
from stic_eval.documents import from_literal
from stic_eval.evals.answer_extractor import extracting
from stic_eval.evals.columns import FilledText, Number, Text
from stic_eval.evals.rule_grading import rules_decide
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.choice import cell_text, letters
from stic_eval.evals.scoring.mathvista import extract, is_correct
from stic_eval.evals.sources import images_of
from stic_eval.types import Generation, Record, Sample, Score, Summary


def _parse_list(cell: Any) -> Any:
    """A list cell; TSVs hold it as a Python list's text."""
    cell = cell_text(cell)
    if not isinstance(cell, str):
        return cell
    if not cell:
        return ()
    try:
        return from_literal(cell)
    except ValueError:
        raise ValueError("is no list") from None


def _parse_precision(cell: Any) -> Any:
    """A precision: the hub stores 1.0, TSVs `1.0`."""
    text = cell_text(cell)
    return None if text == "" else text.removesuffix(".0") if isinstance(text, str) else text


Texts = Annotated[tuple[Annotated[str, Field(coerce_numbers_to_str=True)], ...], BeforeValidator(_parse_list)]


class Options(BaseModel):
    """What may be chosen.

    Attributes:
        protocol: `llava`: the row's `query` (hint, question, choices), 1,024 new tokens; `lmms`:
            lmms-eval's task `mathvista_testmini_format` (question, choices, a request for the bare
            answer), 16,384 new tokens. Both read answers in the same way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["llava", "lmms"] = "llava"


class About(BaseModel):
    """What results are broken down by."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task: Text
    skills: Texts
    context: Text
    grade: Text


class Row(BaseModel):
    """A problem. `answer` is empty in the test split."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pid: Number = Field("", validation_alias=AliasChoices("pid", "id", "question_id", "index"))
    image: Any = None
    decoded_image: Any = None
    question: FilledText
    question_type: Literal["multi_choice", "free_form"]
    answer_type: Literal["text", "integer", "float", "list"]
    choices: Texts
    unit: Text = ""
    precision: Annotated[int | None, BeforeValidator(_parse_precision)] = None
    answer: Number
    answer_option: Text = ""
    metadata: About
    query: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _of_tsv(cls, row: Mapping[str, Any]) -> Mapping[str, Any]:
        if "metadata" in row or "task" not in row:
            return row
        return {**row, "metadata": {name: row[name] for name in About.model_fields if name in row}}

    @field_validator("choices")
    @classmethod
    def _check_choices(cls, choices: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not choices and info.data.get("question_type") == "multi_choice":
            raise ValueError("is empty in a multiple-choice problem")
        return choices

    @field_validator("answer")
    @classmethod
    def _among_choices(cls, answer: str, info: ValidationInfo) -> str:
        choices = info.data.get("choices")
        if answer and choices and info.data.get("question_type") == "multi_choice" and answer not in choices:
            raise ValueError(f"is {answer!r}, which is none of the {len(choices)} choices")
        return answer

    @field_validator("answer_option")
    @classmethod
    def _has_option(cls, letter: str, info: ValidationInfo) -> str:
        choices = info.data.get("choices")
        if letter and choices and letter not in letters(len(choices)):
            raise ValueError(f"is {letter!r}, but there are {len(choices)} choices")
        return letter

    @property
    def decimals(self) -> int | None:
        """The precision of the answer; told by the annotated answer where the column is missing."""
        if self.precision is None and self.answer_type == "float":
            return len(self.answer.partition(".")[2]) or None
        return self.precision


# ---------------------------------------------------------------- prompts

_KIND = Mapping[tuple[str, int | None], str]
_ASKED: _KIND = {
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
_LMMS_ASKED: _KIND = {
    ("integer", None): "a single integer number",
    ("float", 1): "a single floating-point number with one decimal place",
    ("float", 2): "a single floating-point number with two decimal places",
    ("list", None): "a Python list",
}
_QUESTION = re.compile(r"\AHint: .*?\nQuestion: (.*?)(?:\nChoices:\n.*)?\Z", re.DOTALL)


def _kind(row: Row, wordings: _KIND) -> str:
    key = (row.answer_type, row.decimals if row.answer_type == "float" else None)
    if key not in wordings:
        what = f"answer_type is {row.answer_type}" if key[1] is None else f"precision is {key[1]}"
        raise ValueError(f"column {what}, for which the protocol has no wording in a free-form problem")
    return wordings[key]


def query(row: Row) -> str:
    """The hub's `query` column; rebuilt for copies of the data without it (the repository's JSON)."""
    if row.query:
        return row.query
    if _QUESTION.match(row.question):
        return row.question
    if row.question_type == "multi_choice":
        asked = "and provide the correct option letter, e.g., A, B, C, D"
    else:
        asked = f"requiring {_kind(row, _ASKED)}"
    lines = [f"Hint: Please answer the question {asked}, at the end.", f"Question: {_with_unit(row)}"]
    if row.choices:
        names = letters(len(row.choices))
        lines += ["Choices:", *(f"({a}) {choice}" for a, choice in zip(names, row.choices, strict=True))]
    return "\n".join(lines)


def lmms_query(row: Row) -> str:
    """Question, choices, and the request for a letter or a bare value."""
    if row.question_type == "multi_choice":
        asked = "Answer with the option's letter from the given choices directly."
    else:
        asked = f"Answer the question using {_kind(row, _LMMS_ASKED)}."
    options = (f"{a}. {choice}" for a, choice in zip(letters(len(row.choices)), row.choices, strict=True))
    return "\n".join([_with_unit(row), *options, asked]).strip()


def _with_unit(row: Row) -> str:
    whole = _QUESTION.match(row.question)
    if whole:
        return whole[1]
    return f"{row.question} (Unit: {row.unit})" if row.unit else row.question


def to_sample(row: Mapping[str, Any], protocol: Literal["llava", "lmms"] = "llava") -> Sample:
    """Hint, question and choices; the target is the annotated answer's text, None in the test split."""
    read = Row.model_validate(row)
    about = read.metadata
    meta = {"question_type": read.question_type, "answer_type": read.answer_type, "precision": read.decimals}
    lmms = protocol == "lmms"
    return Sample(
        id=read.pid,
        images=images_of(
            read.image if read.decoded_image is None else read.decoded_image, f"mathvista/{read.pid}"
        ),
        question=lmms_query(read) if lmms else query(read),
        target=read.answer or None,
        choices=read.choices,
        group={
            "task": about.task,
            "skill": ",".join(about.skills),
            "context": about.context,
            "grade": about.grade,
        },
        meta={**meta, "query": query(read)} if lmms else meta,
    )


# ---------------------------------------------------------------- scoring

_NO_ANSWER = "the row has no answer (test split)"


def score(sample: Sample, response: str) -> Score:
    """Reads the answer by rule, normalises and compares it.

    An empty response is an empty extraction, as in the official code: wrong, unless the choice with
    the fewest characters is right.
    """
    if not response.strip() and not rules_decide(sample):
        return extraction(sample, "")
    meta = sample.meta
    found = extract(response, meta["question_type"], meta["answer_type"], sample.choices)
    if found is not None:
        return extraction(sample, found)
    if sample.target is None:
        return Score(None, None, _NO_ANSWER)
    if rules_decide(sample):
        return Score(0.0, None, "no answer read by rule")
    return Score(None, None, "no answer read by rule; needs a judge (--judge MODEL)", open=True)


def extraction(sample: Sample, extracted: str) -> Score:
    """Scores an extracted answer by the official normalisation, whatever it is."""
    if sample.target is None:
        return Score(None, extracted, _NO_ANSWER)
    meta = sample.meta
    kind = (meta["question_type"], meta["answer_type"], sample.choices)
    return Score(float(is_correct(extracted, sample.target, *kind, meta["precision"])), extracted)


def aggregate(records: Sequence[Record]) -> Summary:
    """Accuracy; by task, skill (a problem may need several), context and grade."""
    return summarize(records, several=("skill",))


# ---------------------------------------------------------------- layouts, departures


def _join(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[Mapping[str, Any]]:
    return [{**row, "pid": row.get("pid", row.get("id"))} for row in tables["problems"]]


LAYOUTS = (FolderLayout("MathVista's own files", {"problems": "testmini.json"}, ".", _join),)

DEPARTURES = (
    Departure(
        what='rules read more before a judge is asked, including `The answer is "...".`',
        why=(
            "on the authors' five recorded models, these rules agree with the authors' judge on over 99 % "
            "of what they read; lmms-eval asks its judge, because its rule for quotes is switched off"
        ),
        example="'The answer is 7.' to a whole-number problem: 7 here, left to the judge in lmms-eval",
    ),
    Departure(
        what="a precision that is stored as a float counts as the whole number that it is",
        why="the hub stores 1.0, and Python refuses to round to it: every such answer is wrong in lmms-eval",
        example="'1.23' where 1.2 is right and precision is 1.0: right here, wrong in lmms-eval",
    ),
    Departure(
        what="an extraction that is not a number equals no answer",
        why="lmms-eval compares Python's None as the text `None`",
        example="'many' to a whole-number problem with the answer `None`: wrong here, right in lmms-eval",
    ),
    Departure(
        what="an answer is unscored if a judge should read it and does not reply with just a number",
        why="lmms-eval uses whatever came, or nothing: the answer is wrong or becomes the nearest choice",
        example="'I cannot tell.' to a whole-number problem: unscored here, wrong in lmms-eval",
    ),
)


def vary(options: Options) -> Benchmark:
    """The benchmark under a protocol."""
    lmms = options.protocol == "lmms"
    prompt = "lmms-eval: question, choices, bare answer asked for" if lmms else "the row's query"
    return Benchmark(
        name="mathvista",
        title="MathVista",
        version=2,
        source=HubData(
            "AI4Math/MathVista", "testmini", revision="2b6ad69445fbb5695c9b165475e8decdbeb97747", rows=1000
        ),
        to_sample=partial(to_sample, protocol=options.protocol),
        generation=Generation(max_new_tokens=16384 if lmms else 1024),
        score=score,
        aggregate=aggregate,
        protocol=f"{prompt}; answer read by rule, normalised and compared; accuracy",
        variant=options.protocol,
        options=Options,
        vary=vary,
        judging=extracting(extraction),
        extraction=extraction,
        layouts=LAYOUTS,
        vlmeval="MathVista_MINI.tsv",
        paper_column="MathVista",
        metric="accuracy after normalisation; by task, skill, context, grade",
        sources=(
            "Lu et al., 2023, arXiv 2310.02255 (data)",
            "github lupantech/MathVista: evaluation/extract_answer.py, calculate_score.py (metric)",
            "lmms-eval 0.7.3: tasks/mathvista (lmms)",
        ),
        departures=DEPARTURES,
    )


benchmark = vary(Options())
