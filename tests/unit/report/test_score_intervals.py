"""Intervals of scores by themselves: what a textbook gives, and nothing where rows do not tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from stic_eval.report.score_intervals import ScoreInterval, average, interval
from stic_eval.types import Resampled, Summary


def summary(values: list[float], clusters: dict[str, str] | None = None, weight: float = 1.0) -> Summary:
    units = {str(n): (value, weight) for n, value in enumerate(values)}
    score = 100 * sum(values) / (weight * len(values))
    return Summary(score, len(values), 0, units, {}, clusters=clusters)


def test_it_is_the_interval_of_a_mean() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.5, 0.0, 1.0]
    made = interval([summary(values)])
    assert made is not None
    error = 100 * np.std(values, ddof=1) / math.sqrt(7)
    reach = t.ppf(0.975, 6) * error
    assert made.error == pytest.approx(error) and made.df == 6
    assert (made.low, made.high) == pytest.approx(
        (100 * np.mean(values) - reach, min(100, 100 * np.mean(values) + reach))
    )


def test_clusters_count_once() -> None:
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    apart = interval([summary(values)])
    twice = interval([summary(values * 2, {str(n): str(n % 6) for n in range(12)})])
    assert apart is not None and twice is not None
    assert (twice.low, twice.high) == pytest.approx((apart.low, apart.high))
    assert interval([summary(values, dict.fromkeys(map(str, range(6)), "all"))]) is None


def test_a_mean_over_seeds_is_surer_where_they_differ_by_chance() -> None:
    one, other = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    both, single = interval([summary(one), summary(other)]), interval([summary(one)])
    assert both is not None and single is not None and both.error < single.error


def test_nothing_is_said_where_rows_do_not_tell() -> None:
    same = summary([1.0, 1.0, 1.0])
    own = Resampled(draws=[1.0], without=[1.0], clusters=2, rows="x")
    assert interval([]) is None and interval([same]) is None and interval([summary([1.0])]) is None
    assert interval([summary([1.0, 0.0]), summary([1.0, 0.0, 1.0])]) is None
    assert interval([Summary(50.0, 2, 0, {"a": (1.0, 1.0), "b": (0.0, 1.0)}, {}, resampled=own)]) is None


def test_an_average_is_surer_than_its_parts_and_needs_all_of_them() -> None:
    part = ScoreInterval(40.0, 60.0, 5.0, 100.0)
    made = average([50.0, 50.0], [part, part])
    assert (
        made is not None and made.error == pytest.approx(5 / math.sqrt(2)) and made.df == pytest.approx(200)
    )
    assert 40 < made.low < 50 < made.high < 60
    assert average([50.0, 50.0], [part, None]) is None and average([], []) is None
