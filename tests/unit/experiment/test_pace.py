"""Rates and times that are left: nothing is said before it can be told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from stic_eval.experiment.pace import Pace


def pace(*seen: tuple[float, int]) -> Pace:
    found = Pace(100.0)
    for seconds, done in seen:
        found.see(100.0 + seconds, done)
    return found


def test_cached_answers_have_no_rate() -> None:
    found = pace(*((at / 1000, 100 * at) for at in range(100)))
    assert (found.rate, found.text(101, 10_000)) == (None, "")


def test_what_is_left_is_not_told_from_what_was_cached_or_from_the_first_batch() -> None:
    cached = [(0.01, 600)]
    first = [(40.0 + n / 100, 600 + n) for n in range(17)]  # the model is loaded before it
    second = [(44.2 + n / 100, 616 + n) for n in range(17)]
    assert pace(*cached, *first).text(140.2, 1000) == ""
    found = pace(*cached, *first, *second)
    assert found.rate == pytest.approx(16 / 4.2, rel=0.01)
    assert found.text(144.4, 1000) == "3.8/s, 1 min 37 s left"
    assert found.seconds_left(154.4, 1000) == pytest.approx(found.seconds_left(144.4, 1000) or 0, abs=10.1)


@pytest.mark.parametrize(
    "steps", [[(0.0, 0), (30.0, 500)], [(0.0, 500), (30.0, 501)], [(0.5, 500), (0.9, 900)]]
)
def test_one_batch_is_not_enough(steps: Sequence[tuple[float, int]]) -> None:
    assert pace(*steps).rate is None


def test_steps_that_come_one_by_one() -> None:
    found = pace(*((float(n), n) for n in range(11)))
    assert found.rate == pytest.approx(1.0)
    assert found.text(110, 10) == "1.0/s, 0 s left"
    assert found.text(110, None) == "1.0/s"
    assert found.text(110, 7210 + 10) == "1.0/s, 2 h 0 min left"
    assert found.seconds_left(10_000, 20) == 0.0
