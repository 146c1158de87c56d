"""ScienceQA's reading of answers against lmms-eval's own function."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from stic_eval.benchmarks.scienceqa import DEPARTURES, Options, benchmark, vary

from stic_eval.contracts.benchmark import Benchmark
from tests.parity.answers import PARITY, WANTED, answers, batches

theirs = pytest.importorskip("lmms_eval.tasks.scienceqa.utils")

LETTER = "Answer with the option's letter from the given choices directly."
CHOICES = ("a feather", "Stone", "12 cm", "A red one", "none")
ROWS = [
    {
        "image": None, "question": "Which is heavier?", "choices": list(CHOICES[:n]), "answer": answer,
        "hint": hint, "subject": "natural science", "grade": "grade3",
    }
    for n, answer, hint in ((2, 0, ""), (3, 2, "Look at the scale."), (4, 1, "x\ny"), (5, 4, "It is heavy."))
]  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A departure as a test: which answers it is about, and the documented example."""

    about: Callable[[str], bool]
    answer: str
    ours: float
    lmms: float


# In the order of the benchmark's list. Each looks at the answer without white space around it.
KNOWN = (
    Known(lambda text: len(text) == 1 and text.islower(), "b", 0, 1),
    Known(lambda text: re.match(r"[A-Z]\.(?! )", text) is not None, "B.", 0, 1),
    Known(lambda text: "The answer is " in text, "The answer is B.", 1, 0),
)
EXAMPLE = {**ROWS[2], "answer": 1}


def lmms_score(row: dict[str, Any], answer: str) -> float:
    return float(theirs.sqa_process_results(row, [answer])["exact_match"])


def our_score(variant: Benchmark, row: dict[str, Any], answer: str) -> float | None:
    return variant.score(variant.to_sample(row), answer).value


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("protocol", ["llava", "lmms"])
def test_the_prompt_is_lmms_evals(row: dict[str, Any], protocol: Any) -> None:
    wording = {"format": "default", "pre_prompt": "", "post_prompt": f"\n{LETTER}"}
    assert vary(Options(protocol=protocol)).to_sample(row).question == theirs.sqa_doc_to_text(row, wording)


def test_every_answer_gets_lmms_evals_verdict_under_its_protocol() -> None:
    variant = vary(Options(protocol="lmms"))
    assert variant.departures == ()
    samples = [variant.to_sample(row) for row in ROWS]
    seen: set[str] = set()
    right = 0

    @PARITY
    @given(batches(answers("ABCDE", CHOICES)))
    def check(batch: list[str]) -> None:
        nonlocal right
        for answer in batch:
            seen.add(answer)
            for row, sample in zip(ROWS, samples, strict=True):
                expected = lmms_score(row, answer)
                assert variant.score(sample, answer).value == expected, answer
                right += expected == 1

    check()
    assert len(seen) >= WANTED
    assert right > 250


def test_every_answer_gets_lmms_evals_verdict_or_departs_as_documented() -> None:
    samples = [benchmark.to_sample(row) for row in ROWS]
    seen: set[str] = set()
    departed = [0] * len(KNOWN)

    @PARITY
    @given(batches(answers("ABCDE", CHOICES)))
    def check(batch: list[str]) -> None:
        for answer in batch:
            seen.add(answer)
            about = [known.about(answer.strip()) for known in KNOWN]
            for row, sample in zip(ROWS, samples, strict=True):
                if benchmark.score(sample, answer).value != lmms_score(row, answer):
                    assert any(about), answer
                    departed[about.index(True)] += 1

    check()
    assert len(seen) >= WANTED
    assert all(departed)


@pytest.mark.parametrize("number", range(len(KNOWN)))
def test_the_documented_example_departs(number: int) -> None:
    known, text = KNOWN[number], DEPARTURES[number].example
    assert known.about(known.answer)
    assert (our_score(benchmark, EXAMPLE, known.answer), lmms_score(EXAMPLE, known.answer)) == (
        known.ours,
        known.lmms,
    )
    assert repr(known.answer) in text
    assert (("right here" in text), ("right in lmms-eval" in text)) == (known.ours == 1, known.lmms == 1)
    others = [other for other in KNOWN if other is not known]
    assert not any(other.about(known.answer) for other in others)


def test_there_is_a_test_for_each_departure() -> None:
    assert len(KNOWN) == len(DEPARTURES) == len(benchmark.departures)
