"""TextVQA's normal form, accuracy and prompts against lmms-eval's own functions."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stic_eval.benchmarks.textvqa import DEPARTURES, Options, benchmark, vary

from stic_eval.evals.scoring.vqa import evalai
from tests.parity.answers import PARITY, WANTED, answers, batches

utils = pytest.importorskip("lmms_eval.tasks.textvqa.utils")

# Whatever the normal form does something to: punctuation with and without space beside it, full stops
# and commas between digits, number words, articles, contractions with an apostrophe missing.
_PARTS = (
    "dont", "don't", "couldntve", "couldnt've", "couldn'tve", "somebody'd", "somebodyd've", "y'allll",
    "thats", "that's", "'ow'sat", "its", "it's", "id've", "i'm", "im", "lets", "let's", "she's", "ten", "One",
    "none", "zero", "a", "An", "THE", "the", "nokia", "Coca-Cola", "U.S.A.", "3.5", "1,000", "1,,0",
    "10,000.00", "7.", ".5", "$5.00", "a.b", ";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\",
    "_", "-", ">", "<", "@", "`", ",", "?", "!", ".", "...", ":", "'", "'s", "%", "#", "\u00e9", "\u0130",
    "\u2019s",
)  # fmt: skip
_TOKENS = st.lists(
    st.tuples(st.sampled_from(_PARTS), st.sampled_from(("", "", " ", "  ", "\n", "\t"))), max_size=8
)
RESPONSES = st.one_of(
    _TOKENS.map(lambda parts: "".join(part + space for part, space in parts)),
    answers("ABCD", ("nokia", "the dog", "two")),
)
WROTE = ("nokia", "Nokia.", "the nokia", "dont", "don't", "two", "2", "thats", "")


def row(wrote: list[str] | None) -> dict[str, Any]:
    return {
        "question_id": 34602, "question": "what is it?", "answers": wrote, "image": None, "ocr_tokens": ["A"]
    }  # fmt: skip


def lmms_accuracy(each: dict[str, Any], response: str) -> float:
    return float(utils.textvqa_process_results(each, [response])["exact_match"])


def test_every_answer_has_lmms_evals_normal_form() -> None:
    processor = utils.EvalAIAnswerProcessor()
    seen: set[str] = set()
    changed = 0

    @PARITY
    @given(batches(RESPONSES))
    def check(batch: list[str]) -> None:
        nonlocal changed
        for response in batch:
            seen.add(response)
            assert evalai(response) == processor(response), response
            changed += evalai(response) != response

    check()
    assert len(seen) >= WANTED
    assert changed > 2500


def test_every_answer_has_lmms_evals_accuracy() -> None:
    seen: set[str] = set()
    partly = 0

    @PARITY
    @given(batches(RESPONSES))
    def check(batch: list[str]) -> None:
        nonlocal partly
        for response in batch:
            seen.add(response)
            rng = random.Random(response)
            wrote = rng.choices([*WROTE, response, response], k=rng.randint(2, 12))
            each = row(wrote)
            verdict = benchmark.score(benchmark.to_sample(each), response)
            expected = utils.textvqa_process_results(each, [response])
            assert verdict.value == pytest.approx(expected["exact_match"]), (response, wrote)
            assert verdict.answer == expected["submission"]["answer"]
            partly += 0 < expected["exact_match"] < 1

    check()
    assert len(seen) >= WANTED
    assert partly > 500


@pytest.mark.parametrize("ocr", [False, True])
@pytest.mark.parametrize("tokens", [[], ["DAKOTA"], ["DAKOTA", "d, e", ""]])
@pytest.mark.parametrize("question", ["what is it?", "What IS it?", "\u00dfein?"])
def test_prompts_of_protocol_lmms_are_lmms_evals(question: str, tokens: list[str], ocr: bool) -> None:
    each = {**row(["x"] * 10), "question": question, "ocr_tokens": tokens}
    wording = {"post_prompt": "\nAnswer the question using a single word or phrase.", "ocr": ocr}
    lmms = vary(Options(protocol="lmms", ocr=ocr))
    assert lmms.to_sample(each).question == utils.textvqa_doc_to_text(each, wording)


def test_the_documented_examples_depart() -> None:
    hidden, changing = DEPARTURES
    assert benchmark.departures == DEPARTURES
    for wrote in ([], None):
        verdict = benchmark.score(benchmark.to_sample(row(wrote)), "nokia")
        assert (verdict.value, verdict.why) == (None, "the row has no answers (test split)")
    assert lmms_accuracy(row(None), "nokia") == 0
    assert repr("nokia") in hidden.example

    ours, theirs = row(["thats"] * 10), row(["thats"] * 10)
    assert [benchmark.score(benchmark.to_sample(ours), "thats").value for _ in range(3)] == [1, 1, 1]
    assert [lmms_accuracy(theirs, "thats") for _ in range(2)] == [1, 0]
    assert ours["answers"] == ["thats"] * 10 != theirs["answers"]
    assert repr("thats") in changing.example
