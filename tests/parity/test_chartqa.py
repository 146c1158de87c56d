"""ChartQA's relaxed accuracy against lmms-eval's own function, as published and strict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from stic_eval.benchmarks.chartqa import DEPARTURES, STRICT_DEPARTURES, Options, benchmark, vary

from stic_eval.evals.scoring.relaxed import quantity
from tests.parity.answers import PARITY, WANTED, answers, batches, numbers

utils = pytest.importorskip("lmms_eval.tasks.chartqa.utils")

STRICT = vary(Options(strict=True))
PLAIN_TARGETS = ("14", "57%", "0.57", "-3.5", "1000", "120", "Yes", "Spain", "2014", "[Red, Blue]")
TARGETS = (*PLAIN_TARGETS, "0", "0.0", "1,000", "$5.2 million", "Inf", "1_000", "Yes ")


def row(target: str, kind: str = "human_test") -> dict[str, Any]:
    return {"type": kind, "question": "How many bars?", "answer": target, "image": None}


def lmms_right(answer: str, target: str) -> bool:
    return bool(utils.chartqa_process_results(row(target), [answer])["relaxed_overall"])


_DRESSES = ("{}", "{}", "{}%", "{} ", "\n{}", "${}", "{} cm", "{}.", "+{}", "**{}**")
_FORMS = ("{}", "{:.2f}", "{:.0f}", "{:.3g}", "{:,.1f}")


def _near(target: str, factor: float, form: str, dress: str) -> str:
    """A target, or a number around it, in some dress."""
    value = _float(target)
    if value is None:
        return dress.format((target, target.upper(), target.lower())[int(100 * factor) % 3])
    return dress.format(form.format(value * factor))


def drawn() -> st.SearchStrategy[str]:
    factors = st.one_of(st.sampled_from((1.0, 0.95, 1.05, 0.9499, 1.0501, 100.0, 0.01)), st.floats(0.9, 1.1))
    near = st.builds(
        _near, st.sampled_from(TARGETS), factors, st.sampled_from(_FORMS), st.sampled_from(_DRESSES)
    )
    return st.one_of(near, near, numbers(), answers("ABCD", ("Yes", "spain")))


@dataclass(frozen=True)
class Known:
    """A departure as a test: which (answer, target) pairs it is about, and documented examples.

    `examples` are (answer, target, ours, lmms-eval's).
    """

    about: Callable[[str, str], bool]
    examples: tuple[tuple[str, str, bool, bool], ...]


def _spaced(answer: str, target: str) -> bool:
    return answer != answer.strip() or target != target.strip()


def _percent(answer: str, target: str) -> bool:
    signs = answer.strip().endswith("%"), target.endswith("%")
    if not all(signs):
        return any(signs)
    # Dividing both by a hundred rounds: 54.15% is 5 % off 57%, or a little less.
    given, wanted = _float(answer), _float(target)
    return bool(given and wanted) and abs(abs(given - wanted) / abs(wanted) - 0.05) < 1e-9


def _written(answer: str, target: str) -> bool:
    """One side is a number as people write it, and none to Python."""
    return any(quantity(text) is not None and _float(text) is None for text in (answer, target))


def _float(text: str) -> float | None:
    try:
        return float(text.strip().rstrip("%"))
    except ValueError:
        return None


def _zero(answer: str, target: str) -> bool:
    return _float(target) == 0 and quantity(answer) is not None


def _python_only(answer: str, target: str) -> bool:
    return any(_float(text) is not None and quantity(text) is None for text in (answer, target))


# In the order of the benchmark's lists. The second is about generation: no answer here is about it.
KNOWN = (Known(_spaced, (("Yes\n", "Yes", True, False), ("Yes", "Yes ", True, False))),)
STRICT_KNOWN = (
    Known(_percent, (("45%", "45", True, False), ("45%", "0.45", False, True))),
    Known(_written, (("$1,000", "1000", True, False),)),
    Known(_zero, (("0.0", "0", True, False),)),
    Known(_python_only, (("1_000", "1000", False, True),)),
)


def test_every_verdict_is_lmms_evals_or_departs_as_documented() -> None:
    samples = {target: benchmark.to_sample(row(target)) for target in TARGETS}
    seen: set[str] = set()
    right = departed = 0

    @PARITY
    @given(batches(drawn()))
    def check(batch: list[str]) -> None:
        nonlocal right, departed
        for answer, target in product(batch, TARGETS):
            seen.add(answer)
            verdict = bool(benchmark.score(samples[target], answer).value)
            right += verdict
            assert verdict == lmms_right(answer.strip(), target.strip()), (answer, target)
            if verdict != lmms_right(answer, target):
                assert KNOWN[0].about(answer, target), (answer, target)
                departed += 1

    check()
    assert len(seen) >= WANTED
    assert right > 1000
    assert departed


def test_every_strict_verdict_is_lmms_evals_or_departs_as_documented() -> None:
    samples = {target: STRICT.to_sample(row(target)) for target in TARGETS}
    seen: set[str] = set()
    departed = [0] * (1 + len(STRICT_KNOWN))
    agreed = 0

    @PARITY
    @given(batches(drawn()))
    def check(batch: list[str]) -> None:
        nonlocal agreed
        for answer, target in product(batch, TARGETS):
            seen.add(answer)
            verdict = bool(STRICT.score(samples[target], answer).value)
            if verdict == lmms_right(answer, target):
                agreed += verdict
                continue
            about = [known.about(answer, target) for known in (KNOWN[0], *STRICT_KNOWN)]
            assert any(about), (answer, target)
            if sum(about) == 1:
                departed[about.index(True)] += 1

    check()
    assert len(seen) >= WANTED
    assert agreed > 500
    assert all(departed), departed  # each of them for itself


@pytest.mark.parametrize("kind", ["human", "augmented"])
def test_splits_and_prompt_are_lmms_evals(kind: str) -> None:
    each = row("14", f"{kind}_test")
    sample = benchmark.to_sample(each)
    assert f"relaxed_{sample.group['questions']}_split" in utils.chartqa_process_results(each, ["14"])
    wording = {"pre_prompt": "", "post_prompt": "\nAnswer the question with a single word."}
    assert sample.question == utils.chartqa_doc_to_text(each, wording)


def test_the_documented_examples_depart() -> None:
    white, longer = DEPARTURES
    assert benchmark.departures == DEPARTURES
    assert STRICT.departures == DEPARTURES + STRICT_DEPARTURES
    pairs = zip((*KNOWN, *STRICT_KNOWN), (white, *STRICT_DEPARTURES), strict=True)
    for known, departure in pairs:
        variant = benchmark if departure is white else STRICT
        assert repr(known.examples[0][0]) in departure.example
        for answer, target, ours, theirs in known.examples:
            assert known.about(answer, target)
            assert bool(variant.score(variant.to_sample(row(target)), answer).value) is ours
            assert lmms_right(answer, target) is theirs

    bound = yaml.load(_task().replace("!function", ""), yaml.SafeLoader)["generation_kwargs"][
        "max_new_tokens"
    ]
    assert f"{benchmark.generation.max_new_tokens} new tokens, where lmms-eval's has {bound}" in longer.what
    answer = longer.example.split("'")[1]
    # Every word and every comma is a token at least.
    tokens = answer.replace(",", " ,").split()
    assert bound < len(tokens) <= benchmark.generation.max_new_tokens
    cut = " ".join(tokens[:bound]).replace(" ,", ",")
    assert benchmark.score(benchmark.to_sample(row(answer)), answer).value == 1
    assert not lmms_right(cut, answer)
    assert tokens[-1] not in cut


def _task() -> str:
    return (Path(utils.__file__).parent / "chartqa.yaml").read_text(encoding="utf-8")
