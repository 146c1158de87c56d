"""Paired statistics against closed forms, scipy, and simulated coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stic_eval.report.compare import compare, percent


def units(values: list[float], weights: list[float] | None = None) -> dict[str, tuple[float, float]]:
    weights = weights or [1.0] * len(values)
    return {f"u{i:04d}": (v, w) for i, (v, w) in enumerate(zip(values, weights, strict=True))}


def test_percent_is_a_ratio_of_sums() -> None:
    assert percent(units([4.0, 6.0], [8.0, 8.0])) == pytest.approx(62.5)


def test_delta_and_pairing_leave_out_units_that_one_side_lacks() -> None:
    base = units([1, 0, 0, 1])
    method = units([1, 1, 0, 1])
    del method["u0003"]
    by_benchmark, average = compare({"b": base}, {"b": [method]})
    assert by_benchmark["b"].n == 3
    assert by_benchmark["b"].delta == pytest.approx(100 / 3)
    assert average is not None and average.delta == pytest.approx(100 / 3)


def test_identical_answers_have_no_difference_and_no_mark() -> None:
    same = units([1, 0, 1, 1, 0])
    difference = compare({"b": same}, {"b": [same]})[0]["b"]
    assert (difference.delta, difference.low, difference.high, difference.mark) == (0, 0, 0, "")


def test_interval_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    base = (rng.random(200) < 0.5).astype(float)
    method = np.where(rng.random(200) < 0.2, 1.0, base)
    ours = compare({"b": units(list(base))}, {"b": [units(list(method))]})[0]["b"]
    theirs = stats.bootstrap(
        (100 * (method - base),),
        np.mean,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.6)
    assert ours.high == pytest.approx(theirs.high, abs=0.6)
    assert ours.mark == "**"


def test_weights_are_resampled_with_their_values() -> None:
    weights = [8.0, 4.0, 2.0, 8.0, 6.0, 7.0]
    base = units([4.0, 2.0, 1.0, 4.0, 3.0, 3.5], weights)  # exactly half of every weight
    method = units(weights, weights)
    difference = compare({"b": base}, {"b": [method]})[0]["b"]
    assert (difference.low, difference.high) == (pytest.approx(50), pytest.approx(50))


def test_average_is_the_mean_of_percentages_not_of_rows() -> None:
    base = {"small": units([0] * 10), "large": units([0] * 1000)}
    method = {"small": [units([1] * 10)], "large": [units([0] * 1000)]}
    average = compare(base, method)[1]
    assert average is not None and average.delta == pytest.approx(50)


def test_a_benchmark_draws_the_same_whatever_else_is_compared() -> None:
    rng = np.random.default_rng(5)
    one, two = (units(list(rng.integers(0, 2, 50).astype(float))) for _ in range(2))
    alone = compare({"b": one}, {"b": [two]})[0]["b"]
    beside = compare({"a": two, "b": one}, {"a": [one], "b": [two]})[0]["b"]
    assert alone == beside


def test_seeds_widen_the_interval_by_their_student_t() -> None:
    rows = units([0.0] * 400)
    seeds = [units([1.0] * k + [0.0] * (400 - k)) for k in (40, 80, 120)]  # 10, 20, 30 %
    several = compare({"b": rows}, {"b": seeds})[0]["b"]
    alone = compare({"b": rows}, {"b": [seeds[1]]})[0]["b"]
    assert several.delta == pytest.approx(20)
    assert alone.mark == "**"
    half = stats.t.ppf(0.975, 2) * 10 / 3**0.5  # 24.8 points: rows add little to that
    assert (several.high - several.low) / 2 == pytest.approx(half, rel=0.1)
    assert several.mark == ""


def test_coverage_of_the_true_difference_is_close_to_95_percent() -> None:
    rng = np.random.default_rng(11)
    hits = 0
    trials = 300
    for _ in range(trials):
        base = (rng.random(100) < 0.5).astype(float)
        method = np.where(rng.random(100) < 0.2, 1 - base, base)  # flips keep the mean: true difference 0
        difference = compare({"b": units(list(base))}, {"b": [units(list(method))]}, n_resamples=500)[0]["b"]
        hits += difference.low <= 0 <= difference.high
    assert 0.90 <= hits / trials <= 0.99


def test_nothing_in_common_is_no_difference() -> None:
    assert compare({"b": units([1.0])}, {"b": [{"other": (1.0, 1.0)}]}) == ({}, None)
    assert compare({"a": units([1.0])}, {"b": [units([1.0])]}) == ({}, None)
