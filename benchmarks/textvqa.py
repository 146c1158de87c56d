"""TextVQA (validation, 5,000 questions): reading text in photographs.

The prompt is LLaVA-1.5's (`llava_textvqa_val_v051_ocr.jsonl`: the question, the OCR tokens that the data
set comes with, the request for a short answer) or lmms-eval's, which leaves the tokens out. Metric: VQA
accuracy over ten annotators. Data: Singh et al., 2019, arXiv 1904.08920. Rows of the hub data set, of
the authors' JSON (with the tokens of LLaVA's questions) and of VLMEvalKit's TSV (without tokens) all fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from stic_eval.contracts.benchmark import Benchmark, Departure, FolderLayout, HubData, HubId
from stic_eval.documents import from_literal
from stic_eval.evals.columns import FilledText, Number, Text
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.evals.scoring.vqa import evalai, vqa_accuracy
from stic_eval.evals.sources import images_of
from stic_eval.types import Generation, Sample, Score

SUFFIX = "Answer the question using a single word or phrase."
OCR = "\nReference OCR token: "

Word = Annotated[str, Field(coerce_numbers_to_str=True)]


def _parse_list(cell: Any) -> Any:
    """A list cell. In a TSV it is the text of a Python list; any other text is the only answer."""
    if cell is None or cell == "":
        return ()
    if not isinstance(cell, str):
        return cell
    try:
        found = from_literal(cell) if cell.lstrip().startswith("[") else cell
    except ValueError:
        return (cell,)
    return found if isinstance(found, list) else (cell,)


Words = Annotated[tuple[Word, ...], BeforeValidator(_parse_list)]


class Options(BaseModel):
    """What may be chosen.

    Attributes:
        protocol: `llava`: the question with the row's OCR tokens, 128 new tokens; `lmms`: without them,
            1,024 new tokens (the default of lmms-eval's LLaVA if a task sets no limit), and the answer ends
            before `ASSISTANT:`.
        ocr: Whether the prompt has the OCR tokens. Without this option the protocol decides, and rows of a
            file without the column (VLMEvalKit's) are asked without tokens; `true` refuses such rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["llava", "lmms"] = "llava"
    ocr: bool | None = None


class Row(BaseModel):
    """A row of the hub's data set, of the authors' JSON or of a TSV. The test split has no `answers`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: Number = Field("", validation_alias=AliasChoices("id", "question_id", "index"))
    image_id: Number = ""
    image: Any = None
    question: FilledText
    answers: Words = Field(validation_alias=AliasChoices("answers", "answer"))
    ocr_tokens: Words = ()
    wording: Text = ""  # the question as LLaVA's file asks it

    @field_validator("answers")
    @classmethod
    def _several(cls, answers: tuple[str, ...]) -> tuple[str, ...]:
        if len(answers) == 1:
            raise ValueError("is one answer; the metric compares with those of several annotators, a list")
        return answers


def to_sample(
    row: Mapping[str, Any], protocol: Literal["llava", "lmms"] = "llava", ocr: bool | None = None
) -> Sample:
    """Question and OCR tokens; the target is the annotators' answers, None in the test split.

    Args:
        row: In one of the schemas above.
        protocol: lmms-eval writes the line of tokens even if there is none, LLaVA's prompt does not.
        ocr: Whether the tokens are in the prompt; None: as the protocol has it.
    """
    read = Row.model_validate(row)
    if ocr and "ocr_tokens" not in read.model_fields_set:
        raise ValueError("column ocr_tokens is missing, which the prompt needs under ocr=true")
    wanted = protocol == "llava" if ocr is None else ocr
    tokens = ", ".join(read.ocr_tokens)
    line = OCR + tokens if wanted and (tokens or protocol == "lmms") else ""
    return Sample(
        id=read.id,
        images=images_of(read.image, f"textvqa/{read.id}"),
        # The data set's questions are not capitalised; both protocols ask as Python capitalises.
        question=f"{read.wording or read.question.capitalize()}{line}\n{SUFFIX}",
        target=read.answers or None,
        # LLaVA's answer files name the image, not the question.
        meta={"image_id": read.image_id} if read.image_id else {},
    )


def score(sample: Sample, response: str) -> Score:
    """VQA accuracy of the answer in EvalAI's normal form."""
    if sample.target is None:
        return Score(None, evalai(response), "the row has no answers (test split)")
    return Score(vqa_accuracy(response, sample.target), evalai(response))


# ---------------------------------------------------------------- other layouts

_Rows = Sequence[Mapping[str, Any]]


def _key(image_id: Any, question: str) -> tuple[str, str]:
    return str(image_id), question.lower()


def _join(tables: Mapping[str, _Rows]) -> Iterable[Mapping[str, Any]]:
    """The questions that LLaVA asks, each with the annotations of its image and text."""
    annotated: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in tables["annotations"]:
        annotated.setdefault(_key(row["image_id"], row["question"]), []).append(row)
    joined = []
    for asked in tables["questions"]:
        question, tokens = _split_prompt(asked["text"])
        key = _key(asked["question_id"], question)
        if not annotated.get(key):
            raise ValueError(
                f"question {question[:60]!r} on image {key[0]} is not in TextVQA_0.5.1_val.json "
                "(rows are joined by image and question)"
            )
        # Two annotators may have asked the same of an image: in the files' order.
        row = annotated[key].pop(0)
        joined.append({**row, "image": asked["image"], "ocr_tokens": tokens, "wording": question})
    return joined


def _split_prompt(text: str) -> tuple[str, list[str]]:
    """Splits one of LLaVA's prompts into question and OCR tokens."""
    question, found, rest = text.partition(OCR)
    if not found:
        return text.removesuffix(f"\n{SUFFIX}").split("\n")[0], []
    tokens = rest.removesuffix(f"\n{SUFFIX}")
    return question, tokens.split(", ") if tokens else []


def _authors(tables: Mapping[str, _Rows]) -> Iterable[Mapping[str, Any]]:
    return [{**row, "image": f"{row['image_id']}.jpg"} for row in tables["annotations"]]


# The data set has moved to another organisation, which keeps its commits.
COMMIT = "9c0699cd19768ac5ab97568f6b3cbac4c0062884"
_ANNOTATIONS = "TextVQA_0.5.1_val.json"
LAYOUTS = (
    FolderLayout(
        "LLaVA's eval layout",
        {"questions": "llava_textvqa_val_v051_ocr.jsonl", "annotations": _ANNOTATIONS},
        "train_images",
        _join,
    ),
    FolderLayout("TextVQA's own files", {"annotations": _ANNOTATIONS}, "train_images", _authors),
)

# ---------------------------------------------------------------- what differs from lmms-eval

DEPARTURES = (
    Departure(
        what="a row without answers (test split) is unscored",
        why="nothing says that its answer is wrong, but lmms-eval counts it as wrong with 0",
        example="'nokia' to a row without answers: unscored here, 0 in lmms-eval",
    ),
    Departure(
        what="scoring does not change the rows",
        why="lmms-eval overwrites a row's answers with normal forms, so scoring it again may differ",
        example=(
            "'thats' where all ten annotators wrote `thats`: right here however often it is scored; right "
            "once in lmms-eval, and wrong when the same row is scored again"
        ),
    ),
)


def vary(options: Options) -> Benchmark:
    """The benchmark under a protocol, with or without OCR tokens."""
    lmms = options.protocol == "lmms"
    with_ocr = not lmms if options.ocr is None else options.ocr
    tokens = "with the rows' OCR tokens" if with_ocr else "without OCR tokens"
    changed = f", {'ocr' if with_ocr else 'no ocr'}" if with_ocr == lmms else ""
    return Benchmark(
        name="textvqa",
        title="TextVQA",
        version=2,
        source=HubData(
            "lmms-lab-encoder/textvqa",
            "validation",
            revision=COMMIT,
            rows=5000,
            former=(HubId("lmms-lab/textvqa", COMMIT),),
        ),
        to_sample=partial(to_sample, protocol=options.protocol, ocr=options.ocr),
        generation=Generation(max_new_tokens=1024 if lmms else 128, stop=("ASSISTANT:",) if lmms else ()),
        score=score,
        aggregate=summarize,
        protocol=(
            f"{'lmms-eval' if lmms else 'LLaVA-1.5'}: question {tokens}, short answer asked for"
            f"{', ending before `ASSISTANT:`' if lmms else ''}; VQA accuracy"
        ),
        variant=options.protocol + changed,
        options=Options,
        vary=vary,
        layouts=LAYOUTS,
        vlmeval="TextVQA_VAL.tsv",
        paper_column="TextVQA",
        metric="VQA accuracy over ten annotators",
        sources=(
            "Singh et al., 2019, arXiv 1904.08920 (data)",
            "github haotian-liu/LLaVA: llava/eval/eval_textvqa.py, m4c_evaluator.py (llava)",
            "lmms-eval 0.7.3: tasks/textvqa (lmms)",
            "github facebookresearch/mmf: pythia/tasks/processors.py (metric)",
        ),
        departures=DEPARTURES,
    )


benchmark = vary(Options())
