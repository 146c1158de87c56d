"""TextVQA: rows of every layout, protocols, what is asked and how answers are scored."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError
from stic_eval.benchmarks.textvqa import Options, benchmark, vary

from stic_eval.benchmark_protocols import protocols, with_options
from stic_eval.errors import UserError
from stic_eval.evals.predictions import match, read_predictions
from stic_eval.evals.row_faults import faults
from stic_eval.evals.sources import samples
from stic_eval.types import Sample, Score

ASKED = "Answer the question using a single word or phrase."
ROW: dict[str, Any] = {
    "image_id": "003a8ae2ef43b901", "question_id": 34602, "question": "what is the brand of this Camera?",
    "question_tokens": ["what"], "image": Image.new("RGB", (8, 6)), "image_width": 8, "image_height": 6,
    "answers": ["dakota"] * 9 + ["nokia"], "image_classes": ["Camera"], "set_name": "val",
    "ocr_tokens": ["DAKOTA", "DIGITAL"],
}  # fmt: skip


def sample(**changes: Any) -> Sample:
    return benchmark.to_sample({**ROW, **changes})


def fault(row: Mapping[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        benchmark.to_sample(row)
    return str(faults(raised.value)[0])


# ---------------------------------------------------------------- protocols


def test_variants_are_named() -> None:
    assert protocols(benchmark) == ("llava", "lmms")
    given: list[dict[str, Any]] = [
        {}, {"ocr": True}, {"ocr": False}, {"protocol": "lmms"}, {"protocol": "lmms", "ocr": True}
    ]  # fmt: skip
    made = [with_options(benchmark, options) for options in given]
    assert [one.variant for one in made] == ["llava", "llava", "llava, no ocr", "lmms", "lmms, ocr"]
    assert ["with the rows' OCR tokens" in one.protocol for one in made] == [True, True, False, False, True]
    assert [one.generation.max_new_tokens for one in made] == [128, 128, 128, 1024, 1024]
    # By which runs from before answers ended there are told apart.
    assert ["ending before `ASSISTANT:`" in one.protocol for one in made] == [False, False, False, True, True]
    with pytest.raises(UserError, match=r"benchmarks\.textvqa\.ocr 'maybe'"):
        with_options(benchmark, {"ocr": "maybe"})


@pytest.mark.parametrize(
    ("options", "tokens", "line"),
    [
        (Options(), ["DAKOTA", "DIGITAL"], "\nReference OCR token: DAKOTA, DIGITAL"),
        (Options(), [], ""),
        (Options(), None, ""),
        (Options(ocr=True), [], ""),
        (Options(ocr=False), ["DAKOTA"], ""),
        (Options(protocol="lmms"), ["DAKOTA"], ""),
        (Options(protocol="lmms", ocr=True), ["DAKOTA"], "\nReference OCR token: DAKOTA"),
        (Options(protocol="lmms", ocr=True), [], "\nReference OCR token: "),
    ],
)
def test_prompts(options: Options, tokens: list[str] | None, line: str) -> None:
    made = vary(options).to_sample({**ROW, "ocr_tokens": tokens})
    assert made.question == f"What is the brand of this camera?{line}\n{ASKED}"
    assert made.target == ("dakota",) * 9 + ("nokia",)


def test_tokens_that_are_asked_for_must_be_there() -> None:
    bare = {name: cell for name, cell in ROW.items() if name != "ocr_tokens"}
    assert benchmark.to_sample(bare).question.count("\n") == 1
    with pytest.raises(ValueError, match="column ocr_tokens is missing"):
        vary(Options(ocr=True)).to_sample(bare)


# ---------------------------------------------------------------- scoring


def test_answers_are_compared_in_normal_form() -> None:
    assert benchmark.score(sample(), " The DAKOTA.\n") == Score(1.0, "dakota")
    assert benchmark.score(sample(), "Nokia").value == pytest.approx(0.3)
    assert benchmark.score(sample(), "").value == 0


@pytest.mark.parametrize("answers", [None, [], ""])
def test_the_test_split_has_no_answers_and_stays_unscored(answers: Any) -> None:
    found = benchmark.score(sample(answers=answers), "Dakota")
    assert found == Score(None, "dakota", "the row has no answers (test split)")


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": " "}, 'column "question" is empty'),
        ({"question": 5}, 'column "question": input should be a valid string, not 5'),
        ({"answers": {"a": 1}}, 'column "answers": input should be a valid tuple'),
        ({"answers": ["a", None]}, 'column "answers.1": input should be a valid string, not None'),
        ({"ocr_tokens": 3}, 'column "ocr_tokens": input should be a valid tuple, not 3'),
        ({"question_id": ["x"]}, 'column "question_id": input should be a valid string'),
    ],
)
def test_a_row_that_does_not_fit_names_the_column(changes: dict[str, Any], message: str) -> None:
    assert fault({**ROW, **changes}).startswith(message)


@pytest.mark.parametrize("column", ["question", "answers"])
def test_a_missing_column_is_named(column: str) -> None:
    row = {name: cell for name, cell in ROW.items() if name != column}
    assert fault(row) == f'column "{column}" is missing'


def save(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


QUESTIONS = [
    {
        "question_id": "b", "image": "b.jpg", "category": "default",
        "text": f"What number?\nReference OCR token: d, e, 7\n{ASKED}",
    },
    {
        "question_id": "a", "image": "a.jpg", "category": "default",
        "text": f"What is the Brand?\nReference OCR token: DAKOTA\n{ASKED}",
    },
    {"question_id": "b", "image": "b.jpg", "text": f"What is the brand?\n{ASKED}", "category": "default"},
]  # fmt: skip
ANNOTATED = [
    {"image_id": "a", "question_id": 1, "question": "what is the Brand?", "answers": ["dakota"] * 10},
    {"image_id": "b", "question_id": 2, "question": "what number?", "answers": ["7"] * 10},
    {"image_id": "b", "question_id": 3, "question": "what is the brand?", "answers": ["x"] * 10},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """LLaVA's eval layout."""
    (tmp_path / "train_images").mkdir()
    for level, name in enumerate("ab"):
        Image.new("RGB", (8, 6), (40 * level, 0, 0)).save(tmp_path / "train_images" / f"{name}.jpg")
    save(tmp_path / "llava_textvqa_val_v051_ocr.jsonl", QUESTIONS)
    annotations = {"dataset_type": "val", "data": ANNOTATED}
    (tmp_path / "TextVQA_0.5.1_val.json").write_text(json.dumps(annotations))
    return tmp_path


def test_llavas_questions_are_joined_to_their_annotations(folder: Path) -> None:
    found = samples(benchmark, folder)
    assert [(one.id, one.target[0], one.meta["image_id"]) for one in found] == [
        ("2", "7", "b"), ("1", "dakota", "a"), ("3", "x", "b")
    ]  # fmt: skip
    assert [one.question.split("\n")[:-1] for one in found] == [
        ["What number?", "Reference OCR token: d, e, 7"],
        ["What is the Brand?", "Reference OCR token: DAKOTA"],
        ["What is the brand?"],
    ]
    assert [one.images[0].load().getpixel((0, 0))[0] > 20 for one in found] == [True, False, True]


def test_llavas_answers_find_their_questions_by_image_and_text(folder: Path, tmp_path: Path) -> None:
    answers = [
        {"question_id": one["question_id"], "prompt": one["text"], "text": text, "model_id": "m"}
        for one, text in zip(QUESTIONS, ("7", "Dakota", "no"), strict=True)
    ]
    save(tmp_path / "answers.jsonl", answers)
    found = samples(benchmark, folder)
    matched = match(found, read_predictions(tmp_path / "answers.jsonl"))
    values = [benchmark.score(one, matched[one.id].response).value for one in found]
    assert values == [1, 1, 0]


def test_a_question_asked_twice_of_an_image_keeps_both_annotations(folder: Path) -> None:
    twice = [*ANNOTATED, {**ANNOTATED[1], "question_id": 4, "answers": ["8"] * 10}]
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": twice}))
    save(folder / "llava_textvqa_val_v051_ocr.jsonl", [QUESTIONS[0]] * 2)
    assert [(one.id, one.target[0]) for one in samples(benchmark, folder)] == [("2", "7"), ("4", "8")]


def test_a_question_without_annotation_is_named(folder: Path) -> None:
    save(folder / "llava_textvqa_val_v051_ocr.jsonl", [{**QUESTIONS[0], "question_id": "c"}])
    with pytest.raises(UserError, match=r"LLaVA's eval layout.*'What number\?' on image c is not in TextVQA"):
        samples(benchmark, folder)


def test_the_authors_own_file_has_no_tokens(folder: Path) -> None:
    (folder / "llava_textvqa_val_v051_ocr.jsonl").unlink()
    found = samples(benchmark, folder)
    assert [one.id for one in found] == ["1", "2", "3"]
    assert found[0].question == f"What is the brand?\n{ASKED}"
    with pytest.raises(UserError, match=r"TextVQA's own files.*row 1: column ocr_tokens is missing"):
        samples(vary(Options(ocr=True)), folder)


@pytest.mark.parametrize(
    ("cell", "target"),
    [
        ("['dakota', \"it's\", '7']", ("dakota", "it's", "7")),
        ("[7, 7.5]", ("7", "7.5")),
        ("", None),
    ],
)
def test_vlmevalkits_tsv(cell: str, target: tuple[str, ...] | None, tmp_path: Path) -> None:
    with (tmp_path / benchmark.vlmeval).open("w", newline="") as file:
        writer = csv.DictWriter(file, ["index", "question", "answer"], delimiter="\t")
        writer.writeheader()
        writer.writerow({"index": "5", "question": "what is it?", "answer": cell})
    (found,) = samples(benchmark, tmp_path / benchmark.vlmeval, images=False)
    assert (found.id, found.target, found.meta) == ("5", target, {})
