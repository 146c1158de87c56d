"""ChartQA (test, 2,500 questions: half written by people, half generated): questions on charts.

The paper's scripts have none for ChartQA; prompt and metric are lmms-eval's, which are Qwen-VL's.
Data: Masry et al., 2022, arXiv 2203.10244. Rows of the hub data set, of the authors' JSON and of
VLMEvalKit's TSV all fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from stic_eval.contracts.benchmark import Benchmark, Departure, FolderLayout, HubData, HubId
from stic_eval.documents import from_literal
from stic_eval.evals.columns import FilledNumber, FilledText, Number, Text
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.relaxed import relaxed_match, strict_match
from stic_eval.evals.sources import images_of
from stic_eval.types import Generation, Sample, Score

SUFFIX = "Answer the question with a single word."

# The hub's names of the two halves, and VLMEvalKit's.
KINDS = {
    "human_test": "human", "augmented_test": "augmented",
    "test_human": "human", "test_augmented": "augmented",
}  # fmt: skip


def _only(cell: Any) -> Any:
    """An answer; some copies of the data hold a list of one, TSVs as its text."""
    found = cell
    if isinstance(cell, str) and cell.startswith(("['", '["')):
        try:
            found = from_literal(cell)
        except ValueError:
            return cell
    return found[0] if isinstance(found, (list, tuple)) and len(found) == 1 else cell


class Options(BaseModel):
    """What may be chosen.

    Attributes:
        protocol: `lmms`: prompt and metric of lmms-eval; LLaVA's scripts have none for ChartQA.
        strict: `false`: the published metric with its quirks: `45%` is 0.45; `1,000` is a text, and so is
            a target of zero. `true`: numbers are read as people write them: per cent signs, currencies
            and units are ignored, thousands separators are read, and zero is a number. Such scores do
            not compare with published figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["lmms"] = "lmms"
    strict: bool = False


class Row(BaseModel):
    """A row of the hub's data set, of the authors' JSON, or of a TSV (`split` instead of `type`)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Number = Field("", validation_alias=AliasChoices("id", "question_id", "index"))
    image: Any = None
    question: FilledText
    answer: Annotated[FilledNumber, BeforeValidator(_only)]
    type: Text = Field(validation_alias=AliasChoices("type", "split"))

    @field_validator("type")
    @classmethod
    def _parse_kind(cls, name: str) -> str:
        if name not in KINDS:
            raise ValueError(f"is {name!r}; human_test and augmented_test are known")
        return KINDS[name]


def to_sample(row: Mapping[str, Any]) -> Sample:
    """The question; the target is the annotated answer."""
    read = Row.model_validate(row)
    return Sample(
        id=read.id,
        images=images_of(read.image, f"chartqa/{read.id}"),
        question=f"{read.question}\n{SUFFIX}",
        target=read.answer,
        group={"questions": read.type},
    )


def score(sample: Sample, response: str, match: Callable[[str, str], bool] = relaxed_match) -> Score:
    """Relaxed accuracy: a number within 5 %, or the same text ignoring case.

    Args:
        sample: The question.
        response: The model's answer.
        match: (answer, annotated answer) -> whether it is right.
    """
    answer = response.strip()
    return Score(float(match(answer, sample.target.strip())), answer)


# ---------------------------------------------------------------- other layouts


def _join(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterable[Mapping[str, Any]]:
    """Questions written by people, then generated ones, as on the hub."""
    return [
        {"type": f"{half}_test", "image": row["imgname"], "question": row["query"], "answer": row["label"]}
        for half in ("human", "augmented")
        for row in tables[half]
    ]


def _layout(name: str, folder: str) -> FolderLayout:
    files = {half: f"{folder}/test_{half}.json" for half in ("human", "augmented")}
    return FolderLayout(name, files, f"{folder}/png", _join)


# The data set has moved to another organisation, which keeps its commits.
COMMIT = "9e63b7df1592a1c2158e735cc1725454aef0d6d9"
LAYOUTS = (
    _layout("ChartQA's own files", "test"),
    _layout("ChartQA's repository", "ChartQA Dataset/test"),
)

# ---------------------------------------------------------------- what differs from lmms-eval

DEPARTURES = (
    Departure(
        what="white space around an answer is ignored",
        why="a line break after the answer means nothing, but makes every answer wrong in lmms-eval",
        example="'Yes\\n' where 'Yes' is right: right here, wrong in lmms-eval",
    ),
    Departure(
        what="an answer may have 128 new tokens, where lmms-eval's has 16",
        why="a long answer is then judged as it was meant, not as it was cut off",
        example=(
            "'Spain, Portugal, Italy, Greece, Malta, Cyprus, Croatia, Slovenia, Albania' where this is "
            "right: right here, wrong in lmms-eval, which cuts it off before the last country"
        ),
    ),
)
STRICT_DEPARTURES = (
    Departure(
        what="strict: a per cent sign does not divide by a hundred",
        why="charts and answers write one percentage with or without the sign",
        example="'45%' where 45 is right: right here, wrong in lmms-eval; where 0.45 is right, the reverse",
    ),
    Departure(
        what="strict: thousands separators, currencies and units are read, and must agree if both have one",
        why="people write numbers with them; lmms-eval compares such numbers as texts",
        example="'$1,000' where 1000 is right: right here, wrong in lmms-eval",
    ),
    Departure(
        what="strict: a target of zero is a number, and only zero equals it",
        why="there is no relative difference to zero; lmms-eval falls back to comparing texts",
        example="'0.0' where 0 is right: right here, wrong in lmms-eval",
    ),
    Departure(
        what="strict: texts that only Python reads as numbers are not numbers",
        why="`inf`, `1_000` and digits of other scripts do not answer a question about a chart",
        example="'1_000' where 1000 is right: wrong here, right in lmms-eval",
    ),
)


def vary(options: Options) -> Benchmark:
    """The benchmark with the published metric or the strict one."""
    strict = options.strict
    metric = "strict relaxed accuracy" if strict else "relaxed accuracy"
    return Benchmark(
        name="chartqa",
        title="ChartQA",
        version=2,
        source=HubData(
            "lmms-lab-encoder/ChartQA",
            "test",
            revision=COMMIT,
            rows=2500,
            former=(HubId("lmms-lab/ChartQA", COMMIT),),
        ),
        to_sample=to_sample,
        generation=Generation(max_new_tokens=128),
        score=partial(score, match=strict_match) if strict else score,
        aggregate=summarize,
        protocol=f"lmms-eval: question, single word asked for; {metric} (numbers within 5 %)",
        variant=f"{options.protocol}, strict" if strict else options.protocol,
        options=Options,
        vary=vary,
        layouts=LAYOUTS,
        vlmeval="ChartQA_TEST.tsv",
        paper_column="ChartQA",
        metric="relaxed accuracy; by human and augmented questions",
        sources=(
            "Masry et al., 2022, arXiv 2203.10244 (data; metric in section 5.1)",
            "github QwenLM/Qwen-VL: eval_mm/evaluate_vqa.py (metric)",
            "lmms-eval 0.7.3: tasks/chartqa (lmms)",
        ),
        departures=DEPARTURES + STRICT_DEPARTURES if strict else DEPARTURES,
    )


benchmark = vary(Options())
