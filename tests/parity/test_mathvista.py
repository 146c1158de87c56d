"""MathVista's extraction by rule, normal form and verdict against lmms-eval's own evaluator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stic_eval.benchmarks.mathvista import DEPARTURES, Options, benchmark, vary

from stic_eval.evals.scoring.mathvista import normalise
from tests.parity.answers import PARITY, WANTED, answers, batches, numbers

pytest.importorskip("lmms_eval")
pytest.importorskip("openai")

JUDGED = "\0left to the judge"
CHOICES = ("30\N{DEGREE SIGN}", "Yes", "no", "12 cm", "(B) 3/11")


def problem(**columns: Any) -> dict[str, Any]:
    """A row of the hub's schema."""
    return {
        "pid": "7", "question": "How wide?", "image": None, "decoded_image": None, "choices": None,
        "unit": None, "precision": None, "question_type": "free_form",
        "query": "Hint: x\nQuestion: How wide?",
        "metadata": {
            "task": "figure question answering", "skills": ["arithmetic reasoning"], "context": "table",
            "grade": "college", "split": "testmini",
        },
        **columns,
    }  # fmt: skip


PROBLEMS = (
    problem(question_type="multi_choice", answer_type="text", choices=list(CHOICES), answer="no"),
    problem(question_type="multi_choice", answer_type="text", choices=["A", "B", "C"], answer="B"),
    problem(answer_type="integer", answer="12"),
    problem(answer_type="float", precision=1, answer="1.2"),
    problem(answer_type="float", precision=2, answer="0.57"),
    problem(answer_type="list", answer="[1, 2]"),
)
FLOAT = problem(answer_type="float", precision=1.0, answer="1.2")
NONE = problem(answer_type="integer", answer="None")
SAMPLES = {id(each): benchmark.to_sample(each) for each in (*PROBLEMS, FLOAT, NONE)}


@pytest.fixture(scope="module")
def evaluator() -> Any:
    """Lmms-eval's evaluator, whose judge answers with a mark instead of being asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "none")  # its module makes a client when it is imported
        from lmms_eval.tasks.mathvista import mathvista_evals as evals

        patch.setattr(evals.MathVistaEvaluator, "get_chat_response", lambda *_, **__: JUDGED)
        evals.eval_logger.disable("lmms_eval")
        yield evals.MathVistaEvaluator()
        evals.eval_logger.enable("lmms_eval")


def lmms_extraction(evaluator: Any, row: dict[str, Any], answer: str) -> str:
    return str(evaluator.extract_answer(answer.strip(), row, quick_extract=True))


def lmms_normal(evaluator: Any, row: dict[str, Any], extraction: str) -> str | None:
    kind = (row["choices"] or [], row["question_type"], row["answer_type"], row["precision"])
    found: str | None = evaluator.normalize_extracted_answer(extraction, *kind)
    return found


def lmms_right(evaluator: Any, row: dict[str, Any], extraction: str) -> bool:
    return bool(evaluator.safe_equal(lmms_normal(evaluator, row, extraction), row["answer"]))


def our_value(row: dict[str, Any], extraction: str) -> float | None:
    assert benchmark.extraction is not None
    return benchmark.extraction(SAMPLES[id(row)], extraction).value


def drawn() -> st.SearchStrategy[str]:
    return st.one_of(answers("ABCDE", CHOICES), answers("ABC"), numbers(), numbers().map(str.strip))


# ---------------------------------------------------------------- extractions


def test_every_extraction_gets_lmms_evals_normal_form_and_verdict(evaluator: Any) -> None:
    seen: set[str] = set()
    right = 0

    @PARITY
    @given(batches(drawn()))
    def check(batch: list[str]) -> None:
        nonlocal right
        for text in batch:
            seen.add(text)
            for row in PROBLEMS:
                expected = lmms_normal(evaluator, row, text)
                kind = (row["question_type"], row["answer_type"], tuple(row["choices"] or ()))
                assert normalise(text, *kind, row["precision"]) == expected, (text, row)
                verdict = lmms_right(evaluator, row, text)
                assert our_value(row, text) == verdict
                right += verdict

    check()
    assert len(seen) >= WANTED
    assert right > 500


@pytest.mark.parametrize(
    "text", ["", "N/A", "None", "none", "nan", "inf", "-inf", "1e400", "1_000", "(z)", "b"]
)
def test_odd_extractions_get_lmms_evals_verdict(evaluator: Any, text: str) -> None:
    for row in PROBLEMS:
        assert our_value(row, text) == lmms_right(evaluator, row, text)


# ---------------------------------------------------------------- responses


@dataclass(frozen=True)
class Known:
    """A departure as a test: the answers that it is about, the documented example, both verdicts."""

    about: Callable[[Any, dict[str, Any], str], bool]
    row: dict[str, Any]
    answer: str
    ours: float | None
    lmms: float | str


def _read_by_more_rules(evaluator: Any, row: dict[str, Any], answer: str) -> bool:
    judged = lmms_extraction(evaluator, row, answer) == JUDGED
    return judged and benchmark.score(SAMPLES[id(row)], answer).answer is not None


def _precise(_: Any, row: dict[str, Any], answer: str) -> bool:
    return row["answer_type"] == "float" and isinstance(row["precision"], float)


def _called_none(_: Any, row: dict[str, Any], answer: str) -> bool:
    return row["answer_type"] in ("integer", "float") and row["answer"] == "None"


def _unread(evaluator: Any, row: dict[str, Any], answer: str) -> bool:
    judged = lmms_extraction(evaluator, row, answer) == JUDGED
    return judged and benchmark.score(SAMPLES[id(row)], answer).answer is None


# In the order of the benchmark's list.
KNOWN = (
    Known(_read_by_more_rules, problem(answer_type="integer", answer="7"), "The answer is 7.", 1, JUDGED),
    Known(_precise, FLOAT, "1.23", 1, 0),
    Known(_called_none, NONE, "many", 0, 1),
    Known(_unread, PROBLEMS[2], "I cannot tell.", None, 0),
)


def test_every_response_is_read_as_lmms_eval_reads_it_or_departs_as_documented(evaluator: Any) -> None:
    seen: set[str] = set()
    agreed = more = left = 0

    @PARITY
    @given(batches(drawn()))
    def check(batch: list[str]) -> None:
        nonlocal agreed, more, left
        for answer in batch:
            seen.add(answer)
            for row in PROBLEMS:
                verdict = benchmark.score(SAMPLES[id(row)], answer)
                extraction = lmms_extraction(evaluator, row, answer)
                if extraction != JUDGED:
                    assert verdict.answer == extraction, (answer, row)
                    assert verdict.value == lmms_right(evaluator, row, extraction), (answer, row)
                    agreed += 1
                elif verdict.answer is not None:
                    assert not verdict.open
                    more += 1
                else:
                    assert (verdict.value, verdict.open) == (None, True)
                    left += 1

    check()
    assert len(seen) >= WANTED
    assert min(agreed, more, left) > 500


@pytest.mark.parametrize(
    "response", ["", " \n", "12", " 12\n", "1.2", ".57", "B", "no", "No", 'The answer is "no".']
)
def test_some_responses_in_both(evaluator: Any, response: str) -> None:
    for row in PROBLEMS:
        extraction = lmms_extraction(evaluator, row, response)
        if extraction != JUDGED:
            verdict = benchmark.score(SAMPLES[id(row)], response)
            assert (verdict.answer, verdict.value) == (extraction, lmms_right(evaluator, row, extraction))


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_the_documented_example_departs(evaluator: Any, number: int) -> None:
    known = KNOWN[number]
    SAMPLES.setdefault(id(known.row), benchmark.to_sample(known.row))
    assert known.about(evaluator, known.row, known.answer)
    assert repr(known.answer) in DEPARTURES[number].example
    ours = our_value(known.row, known.answer) if number == 2 else None
    ours = benchmark.score(SAMPLES[id(known.row)], known.answer).value if ours is None else ours
    assert ours == known.ours
    extraction = lmms_extraction(evaluator, known.row, known.answer)
    if known.lmms == JUDGED:
        assert extraction == JUDGED
    else:  # a judge that fails leaves an empty extraction, one that works here repeats the answer
        given_back = {3: ""}.get(number, known.answer)
        assert lmms_right(evaluator, known.row, given_back) == bool(known.lmms)


def test_there_is_a_test_for_each_departure() -> None:
    assert len(KNOWN) == len(DEPARTURES) == len(benchmark.departures)


# ---------------------------------------------------------------- prompts


@pytest.mark.parametrize("row", PROBLEMS)
@pytest.mark.parametrize("unit", [None, "cm"])
def test_prompts_are_lmms_evals(evaluator: Any, row: dict[str, Any], unit: str | None) -> None:
    bare = {**row, "unit": unit, "query": ""}
    theirs = {**bare, "caption": "", "ocr": ""}
    lmms = vary(Options(protocol="lmms"))
    asked = lmms.to_sample(bare)
    assert asked.question == evaluator.create_one_query(theirs, shot_type="format-prompt")
    query = evaluator.create_one_query(theirs, shot_type="step-by-step")
    # The published queries put the hint first; lmms-eval's task of that name puts it last.
    hint = query.split("\n")[-1]
    expected = "\n".join([hint, *query.split("\n")[:-1]])
    assert benchmark.to_sample(bare).question == expected
    assert asked.meta["query"] == expected
    assert replace(asked, question="", meta={}) == replace(benchmark.to_sample(bare), question="", meta={})
