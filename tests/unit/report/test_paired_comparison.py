"""Paired statistics against closed forms, scipy, and simulated coverage."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stic_eval.report.paired_comparison import Difference, Units, compare, percent


def units(values: list[float], weights: list[float] | None = None) -> dict[str, tuple[float, float]]:
    weights = weights or [1.0] * len(values)
    return {f"u{i:04d}": (v, w) for i, (v, w) in enumerate(zip(values, weights, strict=True))}


def test_percent_is_a_ratio_of_sums() -> None:
    assert percent(units([4.0, 6.0], [8.0, 8.0])) == pytest.approx(62.5)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=50), st.randoms())
def test_percent_does_not_depend_on_the_order_of_units(values: list[float], random: Random) -> None:
    there = units(values, [0.1 + value for value in values])
    shuffled = dict(random.sample(list(there.items()), len(there)))
    assert percent(shuffled) == percent(there)


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
    assert (difference.delta, difference.low, difference.high, difference.mark, difference.p) == (
        0,
        0,
        0,
        "",
        1,
    )


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
    assert alone.mark == "**" and several.test == "t with seeds"
    half = stats.t.ppf(0.975, 2) * 10 / 3**0.5  # 24.8 points: rows add little to that
    assert (several.high - several.low) / 2 == pytest.approx(half, rel=0.1)
    assert several.mark == ""


def test_nothing_in_common_is_no_difference() -> None:
    assert compare({"b": units([1.0])}, {"b": [{"other": (1.0, 1.0)}]}) == ({}, None)
    assert compare({"a": units([1.0])}, {"b": [units([1.0])]}) == ({}, None)


def test_right_and_wrong_is_tested_by_flips() -> None:
    base, method = units([1, 1, 0, 0, 0, 0, 0, 0, 0, 0]), units([1, 0, 1, 1, 1, 1, 1, 1, 1, 0])
    difference = compare({"b": base}, {"b": [method]})[0]["b"]
    assert (difference.better, difference.worse, difference.test) == (7, 1, "McNemar")
    assert difference.p == pytest.approx(2 * (1 + 8) / 2**8)


@pytest.mark.parametrize(
    ("base", "method", "test"),
    [
        ([units([0.5, 1, 0])], [units([1, 1, 0])], "permutation"),  # graded
        ([units([0, 1, 0], [2, 1, 1])], [units([1, 1, 0], [2, 1, 1])], "permutation"),  # weighted
        ([units([0, 1, 0])], [units([1, 1, 0])] * 2, "permutation"),  # seeds that agree
        ([units([0, 1, 0])], [units([1, 1, 0]), units([1, 1, 1])], "t with seeds"),
        ([units([0, 1, 0]), units([0, 0, 0])], [units([1, 1, 0])], "t with seeds"),
    ],
)
def test_everything_else_is_tested_by_exchanges(base: list[Units], method: list[Units], test: str) -> None:
    assert compare({"b": base}, {"b": method})[0]["b"].test == test


def test_flips_are_the_mean_over_seeds_and_add_up_in_the_average() -> None:
    base = {"a": units([0, 0, 1, 1]), "b": units([0.2, 0.4])}
    method = {
        "a": [units([1, 1, 1, 0]), units([1, 0, 1, 1])],  # 2 better and 1 worse; 1 better
        "b": [units([0.3, 0.4]), units([0.3, 0.3])],
    }
    differences, average = compare(base, method)
    assert average is not None
    assert (differences["a"].better, differences["a"].worse) == (1.5, 0.5)
    assert (differences["b"].better, differences["b"].worse) == (1, 0.5)
    assert (average.better, average.worse, average.n) == (2.5, 1, 6)


def test_units_with_other_weights_are_compared_by_their_ratio() -> None:
    base, method = units([4, 4, 4], [8, 8, 8]), units([4, 4, 4], [10, 8, 5])
    difference = compare({"b": base}, {"b": [method]})[0]["b"]
    assert (difference.better, difference.worse) == (1, 1)
    assert difference.delta == pytest.approx(100 * (12 / 23 - 12 / 24))


def test_a_base_with_as_many_seeds_is_paired_with_them() -> None:
    rng = np.random.default_rng(12)
    rows = (rng.random(300) < 0.5).astype(float)
    luck = [units(list(np.where(np.arange(300) < k, 1.0, rows))) for k in (0, 60, 120)]
    better = [units(list(np.where(np.arange(300) >= 285, 1.0, [v for v, _ in u.values()]))) for u in luck]
    paired = compare({"b": luck}, {"b": better})[0]["b"]
    alone = compare({"b": luck[0]}, {"b": better})[0]["b"]
    assert paired.high - paired.low < 10 < alone.high - alone.low  # every seed gains the same
    shuffled = compare({"b": luck}, {"b": better[::-1]})[0]["b"]
    assert shuffled.delta == pytest.approx(paired.delta)
    assert shuffled.high - shuffled.low > 20


def test_other_numbers_of_seeds_are_compared_by_their_means() -> None:
    base = [units([1.0] * k + [0.0] * (100 - k)) for k in (40, 44)]
    method = [units([1.0] * k + [0.0] * (100 - k)) for k in (50, 56, 59)]
    difference = compare({"b": base}, {"b": method})[0]["b"]
    assert difference.delta == pytest.approx(55 - 42)
    welch = stats.ttest_ind([50, 56, 59], [40, 44], equal_var=False)
    error = (difference.high - difference.low) / 2 / stats.t.ppf(1 - 0.05 / 2, 4)
    assert error > 13 / welch.statistic * 0.9  # seeds alone; rows come on top, with more degrees of freedom


def test_one_benchmark_is_its_own_average() -> None:
    base, method = units([0, 0, 1, 1, 0]), units([1, 1, 1, 0, 1])
    differences, average = compare({"b": base}, {"b": [method]})
    assert average == differences["b"]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_the_other_way_round_is_the_opposite(answers: list[tuple[bool, bool]]) -> None:
    a, b = (units([float(pair[side]) for pair in answers]) for side in (0, 1))
    there = compare({"b": a}, {"b": [b]}, n_resamples=200)[0]["b"]
    back = compare({"b": b}, {"b": [a]}, n_resamples=200)[0]["b"]
    assert there.delta == pytest.approx(-back.delta)
    assert (there.better, there.worse, there.p) == (back.worse, back.better, back.p)
    assert there.detectable == pytest.approx(back.detectable, nan_ok=True)


@pytest.mark.parametrize(
    ("p", "p_holm", "mark"),
    [(0.004, None, "**"), (0.01, None, "*"), (0.05, None, ""), (0.004, 0.04, "*"), (0.004, 0.2, "")],
)
def test_a_mark_is_for_the_corrected_p_value(p: float, p_holm: float | None, mark: str) -> None:
    assert Difference(1.0, 0.5, 1.5, 10, p, p_holm=p_holm).mark == mark
