"""MathVista: rows of every layout, protocols, extractions, the judge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError
from stic_eval.benchmarks.mathvista import Options, benchmark, vary

from stic_eval.benchmark_protocols import protocols, with_options
from stic_eval.contracts.benchmark import Unreadable
from stic_eval.errors import UserError
from stic_eval.evals.row_faults import faults
from stic_eval.evals.sources import samples
from stic_eval.types import Sample, Score

ROW: dict[str, Any] = {
    "pid": "7", "question": "How wide?", "image": "images/7.jpg", "decoded_image": Image.new("RGB", (8, 6)),
    "choices": None, "unit": "cm", "precision": 1.0, "answer": "1.2", "question_type": "free_form",
    "answer_type": "float", "query": "Hint: Please answer.\nQuestion: How wide? (Unit: cm)",
    "metadata": {
        "category": "math-targeted-vqa", "context": "table", "grade": "high school",
        "skills": ["algebraic reasoning", "arithmetic reasoning"], "source": "x", "split": "testmini",
        "task": "figure question answering",
    },
}  # fmt: skip
CHOICE = {
    **ROW, "question_type": "multi_choice", "answer_type": "text", "choices": ["30", "40", "145"],
    "answer": "40", "precision": None, "unit": None, "query": "",
}  # fmt: skip
LIST = {**ROW, "answer_type": "list", "answer": "[1, 2]", "precision": None}
WHOLE = {**ROW, "answer_type": "integer", "answer": "12", "precision": None}


def sample(row: Mapping[str, Any] = ROW, **changes: Any) -> Sample:
    return benchmark.to_sample({**row, **changes})


def fault(row: Mapping[str, Any]) -> str:
    with pytest.raises(ValidationError) as raised:
        benchmark.to_sample(row)
    return str(faults(raised.value)[0])


def extraction(one: Sample, text: str) -> Score:
    assert benchmark.extraction is not None
    return benchmark.extraction(one, text)


# ---------------------------------------------------------------- protocols


def test_variants_are_named() -> None:
    assert protocols(benchmark) == ("llava", "lmms")
    lmms = with_options(benchmark, {"protocol": "lmms"})
    assert (benchmark.variant, lmms.variant) == ("llava", "lmms")
    assert (benchmark.generation.max_new_tokens, lmms.generation.max_new_tokens) == (1024, 16384)
    assert benchmark.protocol != lmms.protocol
    with pytest.raises(UserError, match=r"benchmarks\.mathvista\.protocol 'cot'"):
        with_options(benchmark, {"protocol": "cot"})


@pytest.mark.parametrize(
    ("row", "question"),
    [
        (
            ROW,
            "How wide? (Unit: cm)\n"
            "Answer the question using a single floating-point number with one decimal place.",
        ),
        (WHOLE, "How wide? (Unit: cm)\nAnswer the question using a single integer number."),
        (LIST, "How wide? (Unit: cm)\nAnswer the question using a Python list."),
        (
            CHOICE,
            "How wide?\nA. 30\nB. 40\nC. 145\n"
            "Answer with the option's letter from the given choices directly.",
        ),
    ],
)
def test_protocol_lmms_asks_for_a_bare_answer(row: Mapping[str, Any], question: str) -> None:
    made = vary(Options(protocol="lmms")).to_sample(row)
    assert made.question == question
    assert made.meta["query"] == sample(row).question


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ROW, "question": " "}, 'column "question" is empty'),
        ({**ROW, "question": 3}, 'column "question": input should be a valid string, not 3'),
        ({**ROW, "question_type": "essay"}, "column \"question_type\": input should be 'multi_choice' or"),
        ({**ROW, "answer_type": "date"}, "column \"answer_type\": input should be 'text', 'integer'"),
        ({**ROW, "precision": "two"}, 'column "precision": input should be a valid integer'),
        ({**CHOICE, "choices": None}, 'column "choices" is empty in a multiple-choice problem'),
        ({**CHOICE, "choices": "[1, "}, 'column "choices" is no list'),
        ({**CHOICE, "answer": "41"}, "column \"answer\" is '41', which is none of the 3 choices"),
        ({**CHOICE, "answer_option": "D"}, "column \"answer_option\" is 'D', but there are 3 choices"),
        ({**ROW, "metadata": {"task": "x"}}, 'column "metadata.skills" is missing'),
        ({**ROW, "metadata": None}, 'column "metadata":'),
    ],
)
def test_a_row_that_does_not_fit_names_the_column(row: dict[str, Any], message: str) -> None:
    assert fault(row).startswith(message)


@pytest.mark.parametrize(
    "column", ["question", "question_type", "answer_type", "choices", "answer", "metadata"]
)
def test_a_missing_column_is_named(column: str) -> None:
    assert (
        fault({name: cell for name, cell in ROW.items() if name != column}) == f'column "{column}" is missing'
    )


def test_a_precision_that_no_query_has_words_for_is_named() -> None:
    with pytest.raises(ValueError, match="column precision is 4"):
        sample(precision=4, query="")
    assert sample(precision=4).meta["precision"] == 4


def test_vlmevalkits_tsv() -> None:
    query = sample(CHOICE).question
    row = {
        "index": "3", "image": None, "question": query, "question_type": "multi_choice",
        "answer_type": "text", "choices": "['30', '40', '145']", "answer": "40", "answer_option": "B",
        "task": "geometry problem solving",
        "skills": "['geometry reasoning', 'algebraic reasoning']", "context": "geometry diagram",
        "grade": "high school", "source": "x", "category": "math-targeted-vqa",
    }  # fmt: skip
    made = benchmark.to_sample(row)
    assert (made.id, made.question, made.target, made.choices) == ("3", query, "40", ("30", "40", "145"))
    assert made.group == {
        "task": "geometry problem solving", "skill": "geometry reasoning,algebraic reasoning",
        "context": "geometry diagram", "grade": "high school",
    }  # fmt: skip
    assert benchmark.score(made, "B").value == 1
    lmms = vary(Options(protocol="lmms"))
    assert lmms.to_sample(row).question == lmms.to_sample(CHOICE).question
    assert fault({name: cell for name, cell in row.items() if name != "skills"}) == (
        'column "metadata.skills" is missing'
    )


def test_numbers_are_taken_for_texts_where_tables_make_numbers_of_them() -> None:
    assert sample(WHOLE, answer=12, pid=7).target == "12"
    assert sample(CHOICE, choices=[30, 40, 145], answer=40).choices == ("30", "40", "145")


def test_a_tsv_without_precision_has_the_annotated_answers() -> None:
    number = {**ROW, "precision": "", "answer": "0.57"}
    assert sample(number).meta["precision"] == 2
    assert sample(number, precision="1.0").meta["precision"] == 1
    assert extraction(sample(number), "0.571").value == 1


def test_the_repositorys_own_files(tmp_path: Path) -> None:
    bare = {name: cell for name, cell in ROW.items() if name not in ("query", "decoded_image", "pid")}
    (tmp_path / "testmini.json").write_text(json.dumps({"7": bare, "8": {**bare, "image": "images/8.jpg"}}))
    (tmp_path / "annot_testmini.json").write_text("[]")
    (tmp_path / "images").mkdir()
    for name, level in (("7", 7), ("8", 8)):
        Image.new("RGB", (8, 6), (0, 0, level)).save(tmp_path / "images" / f"{name}.jpg")
    found = samples(benchmark, tmp_path)
    assert [one.id for one in found] == ["7", "8"]
    assert found[0].question.startswith("Hint: Please answer the question requiring a floating-point number")
    assert len({one.images[0].sha256 for one in found}) == 2


# ---------------------------------------------------------------- scoring


@pytest.mark.parametrize("answer", ["", None])
def test_the_test_split_has_no_answers_and_stays_unscored(answer: Any) -> None:
    hidden = sample(answer=answer)
    for found in (benchmark.score(hidden, "1.2"), benchmark.score(hidden, "?"), extraction(hidden, "1.2")):
        assert (found.value, found.open) == (None, False)
        assert found.why
        assert "no answer" in found.why


@pytest.mark.parametrize(
    ("row", "text", "value"),
    [
        (ROW, "1.23", 1), (ROW, "1.26", 0), (ROW, "", 0), (ROW, "N/A", 0), (ROW, "1.2 cm", 0),
        (WHOLE, "12.9", 1), (WHOLE, "twelve", 0), (LIST, "[1, 2]", 1), (LIST, "[1,2]", 0),
        (CHOICE, "B", 1), (CHOICE, "(b) 40", 1), (CHOICE, "40.", 1), (CHOICE, "C", 0),
        # The closest choice by edit distance, the first of several: what the authors' code does.
        (CHOICE, "", 0), (CHOICE, "N/A", 0), ({**CHOICE, "answer": "30"}, "N/A", 1),
        ({**CHOICE, "answer": "30"}, "", 1), ({**CHOICE, "answer": "145"}, "14S", 1),
    ],
)  # fmt: skip
def test_a_given_extraction_is_scored_whatever_it_is(row: Mapping[str, Any], text: str, value: float) -> None:
    found = extraction(sample(row), text)
    assert (found.value, found.answer) == (value, text)
    assert not found.open


def test_an_unread_answer_is_open_and_an_empty_one_is_not() -> None:
    unread = benchmark.score(sample(), "I cannot tell.")
    assert (unread.value, unread.answer, unread.open) == (None, None, True)
    assert benchmark.score(sample(), " \n") == Score(0.0, "")
    pocket = replace(sample(), meta={**sample().meta, "rows": "pocket"})
    for response in ("I cannot tell.", ""):
        assert benchmark.score(pocket, response) == Score(0.0, None, "no answer read by rule")


# ---------------------------------------------------------------- the judge


def test_the_judge_extracts_and_the_rules_decide() -> None:
    assert benchmark.judging is not None
    own = benchmark.judging.own
    assert own.read(sample(), "", "Verdict: 1.23") == Score(1.0, "1.23", "extracted by the judge")
    assert own.read(sample(CHOICE), "", "Verdict: (B)").value == 1
    assert own.read(sample(CHOICE), "", "Verdict: 40").value == 1
    assert own.read(sample(LIST), "", "Verdict: [1, 2]").value == 1
    assert own.read(sample(WHOLE), "", "It gives a dozen.\nVerdict: 12").value == 1
    assert own.read(sample(), "", "Verdict: none") == Score(0.0, None, "the judge: no final answer")
    assert not own.read(sample(), "", "Verdict: 1.2").open


@pytest.mark.parametrize(
    ("row", "reply"),
    [
        (ROW, ""), (ROW, "1.2"), (ROW, "Verdict: about 1.2"), (WHOLE, "Verdict: twelve"),
        (CHOICE, "Verdict: D"), (CHOICE, "Verdict: A or B"), (LIST, "Verdict: 1, 2"),
    ],
)  # fmt: skip
def test_an_unreadable_verdict_leaves_the_sample_unscored(row: Mapping[str, Any], reply: str) -> None:
    assert benchmark.judging is not None
    with pytest.raises(Unreadable):
        benchmark.judging.own.read(sample(row), "", reply)


def test_prompts_of_the_judge_hold_query_and_answer() -> None:
    assert benchmark.judging is not None
    lmms = vary(Options(protocol="lmms")).to_sample(CHOICE)
    for one in (sample(CHOICE), lmms):
        prompt = benchmark.judging.own.prompt(one, "It is forty.")
        assert sample(CHOICE).question in prompt
        assert "It is forty." in prompt
        assert "the letter of the option" in prompt


def test_the_official_judge_is_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    evals = pytest.importorskip("lmms_eval.tasks.mathvista.mathvista_evals")
    assert benchmark.judging is not None
    grader = benchmark.judging.official
    theirs = evals.MathVistaEvaluator.create_test_prompt(
        None, evals.DEMO_PROMPT, sample(CHOICE).question, "It is forty."
    )
    assert grader.prompt(sample(CHOICE), "It is forty.") == theirs
    assert grader.read(sample(CHOICE), "", " B\n").value == 1
    assert grader.read(sample(WHOLE), "", "twelve").value == 0
    with pytest.raises(Unreadable):
        grader.read(sample(CHOICE), "", " ")


@pytest.mark.parametrize(
    ("response", "reply", "value"),
    [
        ("", "12", 1.0),
        ("", "The extracted answer is 12", None),  # a number that the official normalisation cannot read
        ("", "10 to 15", None),
        ("", "The answer cannot be determined.", 0.0),
        ("I cannot help with that. Ask another.", "I cannot help with that.", 0.0),  # the model's refusal
        ("It is twelve.", "I cannot help with that.", None),  # the judge's
    ],
)
def test_an_official_extraction_is_a_number_alone_or_none_at_all(
    response: str, reply: str, value: float | None
) -> None:
    assert benchmark.judging is not None
    grader = benchmark.judging.official
    if value is None:
        with pytest.raises(Unreadable):
            grader.read(sample(WHOLE), response, reply)
    else:
        assert grader.read(sample(WHOLE), response, reply).value == value
