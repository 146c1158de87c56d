"""The mathematics of paired comparisons against closed forms, scipy, enumeration and simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stic_eval.report import statistics
from stic_eval.report.multiple_testing import holm
from stic_eval.report.paired_comparison import Difference, Units, compare
from stic_eval.report.statistics import Array

Rng = np.random.Generator


def arrays(values: Array, weights: Array | None = None) -> Array:
    """Values `(n, runs)` -> `(n, runs, 2)`, weights 1 unless given."""
    return np.stack([values, np.ones_like(values) if weights is None else weights], axis=-1)


def differences(values: Array) -> tuple[Array, Array]:
    """One pair of runs that differ by these values."""
    return statistics.paired(arrays(0 * values[:, None]), arrays(values[:, None]))


def p_of(base: Array, method: Array, seed: int = 0, exact: bool = True) -> float:
    rng = np.random.default_rng(seed)
    sums = base.sum(axis=0)[None], method.sum(axis=0)[None]
    delta = float(statistics.deltas(*sums)[0])
    return statistics.permutation(delta, lambda m: statistics.shuffle(base, method, m, rng), 10_000, exact)


# ---------------------------------------------------------------- McNemar


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_two_sided_binomial_sum_and_mid_p_from_20_flips_on(better: int, worse: int) -> None:
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1)) / 2**n
    at = math.comb(n, better) / 2**n if n >= 20 else 0.0
    assert statistics.mcnemar(better, worse) == pytest.approx(min(1.0, 2 * tail - at))


@given(st.integers(0, 9), st.integers(1, 10))
def test_few_flips_are_tested_exactly_as_scipy_does(better: int, worse: int) -> None:
    expected = stats.binomtest(better, better + worse, 0.5).pvalue
    assert statistics.mcnemar(better, worse) == pytest.approx(expected)


@pytest.mark.parametrize(("flips", "n"), [(0.2, 200), (0.05, 1000), (0.5, 60)])
def test_mcnemars_false_alarms_are_nominal(flips: float, n: int) -> None:
    """Summed over all numbers of flips: no simulation."""
    alarms = 0.0
    for moved in range(1, n + 1):
        better = np.arange(moved + 1)
        p = np.array([statistics.mcnemar(int(k), moved - int(k)) for k in better])
        given_moved = float(stats.binom.pmf(better, moved, 0.5)[p < 0.05].sum())
        alarms += float(stats.binom.pmf(moved, n, flips)) * given_moved
    assert 0.04 < alarms < 0.055


def test_mid_p_exchanges_are_mid_p_mcnemar() -> None:
    values = np.array([1.0] * 27 + [-1.0] * 13 + [0.0] * 50)
    p = p_of(*differences(values), exact=False)
    assert p == pytest.approx(statistics.mcnemar(27, 13), abs=0.005)
    assert p_of(*differences(values)) == pytest.approx(stats.binomtest(27, 40).pvalue, abs=0.006)


# ---------------------------------------------------------------- permutation


def test_permutation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.1, 0.2):
        values = rng.normal(shift, 1, 150).round(1)
        ours = p_of(*differences(values))
        theirs = stats.permutation_test(
            (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(2)
        ).pvalue
        assert ours == pytest.approx(theirs, abs=0.02)


def brute_force(base: Array, method: Array) -> float:
    """Exact p-value: all exchanges of base and method within units, one after the other."""
    delta = abs(float((statistics.scores(method) - statistics.scores(base)).mean()))
    far = 0
    for exchanged in itertools.product([False, True], repeat=len(base)):
        swap = np.array(exchanged)[:, None, None]
        a, b = np.where(swap, method, base), np.where(swap, base, method)
        far += abs(float((statistics.scores(b) - statistics.scores(a)).mean())) >= delta - 1e-9
    return far / 2 ** len(base)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("same_weights", [True, False])
def test_exchanges_are_those_of_all_runs_at_once(seed: int, same_weights: bool) -> None:
    rng = np.random.default_rng(seed)
    base, method = (arrays(rng.random((9, 2)), rng.uniform(0.5, 2, (9, 2))) for _ in range(2))
    if same_weights:
        base[..., 1] = method[..., 1] = base[:, :1, 1]
    assert p_of(*statistics.paired(base, method)) == pytest.approx(brute_force(base, method), abs=0.02)


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200])
def test_exchanges_of_many_equal_units_are_binomial(n: int) -> None:
    drawn = statistics.shuffle(*differences(np.ones(n)), 20_000, np.random.default_rng(n))
    exchanged = (100 - drawn) * n / 200
    assert (
        stats.kstest(exchanged.round() + np.random.default_rng(0).random(20_000), _jittered(n)).pvalue > 1e-3
    )


def _jittered(n: int) -> Callable[[Array], Array]:
    """The distribution of a binomial variate plus a uniform one, which is continuous."""

    def cdf(x: Array) -> Array:
        k = np.floor(x)
        below, at = stats.binom.cdf(k - 1, n, 0.5), stats.binom.pmf(k, n, 0.5)
        return np.asarray(below + at * (x - k))

    return cdf


def test_small_p_values_are_drawn_for_longer() -> None:
    drawn: list[int] = []

    def draw(m: int) -> Array:
        drawn.append(m)
        return np.zeros(m)

    assert statistics.permutation(1.0, draw, 10_000, True) == pytest.approx(1 / 200_001)
    assert sum(drawn) == 200_000
    drawn.clear()
    assert statistics.permutation(0.0, draw, 10_000, False) == 1.0
    assert sum(drawn) == 10_000


# ---------------------------------------------------------------- clusters


def test_clusters_are_exchanged_whole() -> None:
    """Twelve rows on four images: 16 exchanges, not 4,096."""
    rng = np.random.default_rng(3)
    cluster = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3])
    base, method = (statistics.gathered(arrays(rng.random((12, 1))), cluster) for _ in range(2))
    assert base.shape == (4, 1, 2) and base[..., 1].ravel().tolist() == [3, 2, 4, 3]
    assert p_of(*statistics.paired(base, method)) == pytest.approx(brute_force(base, method), abs=0.02)


def test_clustered_error_is_the_sandwich_and_what_resampling_clusters_gives() -> None:
    rng = np.random.default_rng(4)
    cluster = np.unique(rng.integers(0, 150, 400), return_inverse=True)[1]
    shared = rng.normal(0, 1, cluster.max() + 1)[cluster]
    values = 0.6 * shared + 0.8 * rng.normal(0, 1, 400)
    base, method = (statistics.gathered(arrays(v[:, None]), cluster) for v in (0 * values, values))
    rows, noise = statistics.variances(base, method)
    residuals = values - values.mean()
    meat = sum(residuals[cluster == g].sum() ** 2 for g in set(cluster.tolist()))
    groups = len(set(cluster.tolist()))
    assert rows == pytest.approx(1e4 * meat / 400**2 * groups / (groups - 1))
    assert noise == 0
    drawn = statistics.resample(*statistics.paired(base, method), 20_000, rng)
    assert math.sqrt(rows) == pytest.approx(drawn.std(), rel=0.03)
    naive = 100 * values.std(ddof=1) / 20
    assert math.sqrt(rows) > 1.2 * naive


def test_a_row_for_each_cluster_is_the_plain_error() -> None:
    rng = np.random.default_rng(5)
    values = rng.random((80, 1))
    base, method = arrays(0 * values), arrays(values)
    assert statistics.variances(base, method)[0] == pytest.approx(1e4 * float(values.var(ddof=1)) / 80)
    assert all(math.isnan(v) for v in statistics.variances(base[:1], method[:1]))


# ---------------------------------------------------------------- seeds


def test_seeds_that_alone_differ_are_a_students_t() -> None:
    by_seed = np.array([1.0, 2.5, 4.0])
    variance, df = statistics.seed_variance(np.zeros(3), by_seed)
    error, df = statistics.with_seeds(0.0, 0.0, 99, variance, df)
    p = statistics.t_test(float(by_seed.mean()), error, df)
    assert p == pytest.approx(stats.ttest_1samp(by_seed, 0).pvalue)


def test_degrees_of_freedom_lie_between_those_of_seeds_and_of_rows() -> None:
    assert statistics.with_seeds(4.0, 0.0, 99, 0.0, 2) == (2.0, pytest.approx(99))
    assert statistics.with_seeds(3.0, 3.0, 99, 4.0, 2) == (2.0, 2)
    error, df = statistics.with_seeds(3.0, 1.0, 99, 2.0, 2)
    assert (error, df) == (2.0, pytest.approx(1 / (0.5**1.25 / 99 + 0.5**1.25 / 2)))
    assert statistics.with_seeds(3.0, 1.0, 99, 2.0, 1) == (2.0, 1)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("own", "noise"), [(1.0, 0.0), (1.0, 0.2), (0.5, 0.5), (0.05, 0.95)])
def test_false_alarms_with_seeds_are_nominal_for_any_luck(seeds: int, own: float, noise: float) -> None:
    """In normal theory, with known variances over many clusters: `own`, and `noise` that seeds share."""
    rng = np.random.default_rng(11)
    for luck in (0.05, 0.2, 1.0, 3.0, 10.0, 40.0):
        alarms = 0
        times = 2_000
        for delta in rng.normal(0, math.sqrt(luck + own + noise), times):
            variance = (luck + noise) * rng.chisquare(seeds - 1) / (seeds - 1)
            error, df = statistics.with_seeds(own + noise, noise, 1e6, variance, seeds - 1)
            alarms += abs(delta) > error * statistics.quantile(0.975, df)
        assert alarms / times > 0.04 - 2 * math.sqrt(0.04 * 0.96 / times)
        assert alarms / times < 0.065 + 2 * math.sqrt(0.05 * 0.95 / times), luck


def test_the_seeds_noise_on_rows_counts_once() -> None:
    """Seeds without luck that answer each row anew: both variances are of the same noise."""
    rng = np.random.default_rng(6)
    both, counted = [], []
    for _ in range(300):
        base, method = arrays(np.zeros((300, 1))), arrays((rng.random((300, 3)) < 0.5).astype(float))
        rows, noise = statistics.variances(base, method)
        seeds, df = statistics.seed_variance(statistics.scores(base), statistics.scores(method))
        both.append(rows + seeds)
        counted.append(statistics.with_seeds(rows, noise, 299, seeds, df)[0] ** 2)
    true = 1e4 * 0.25 / 900
    assert np.mean(both) == pytest.approx(2 * true, rel=0.15)
    assert np.mean(counted) == pytest.approx(true, rel=0.15)


# ---------------------------------------------------------------- standard errors and resamples


def test_error_over_seeds_agrees_with_scipys_t_tests() -> None:
    a, b, c = np.array([60.0, 62.0, 61.5]), np.array([63.0, 62.5, 66.0]), np.array([61.0, 66.0])
    for mine, theirs in (((a, b), stats.ttest_rel(b, a)), ((a, c), stats.ttest_ind(c, a, equal_var=False))):
        variance, df = statistics.seed_variance(*mine)
        assert (mine[1].mean() - mine[0].mean()) / math.sqrt(variance) == pytest.approx(theirs.statistic)
        assert df == pytest.approx(theirs.df)
    assert statistics.seed_variance(a[:1], b) == (pytest.approx(stats.sem(b) ** 2), 2)
    assert statistics.seed_variance(a[:1], b[:1])[0] == 0


def test_resamples_spread_like_the_closed_form() -> None:
    rng = np.random.default_rng(4)
    values = (rng.random(500) < 0.3).astype(float)
    base, method = differences(values)
    p = values.mean()
    expected = 100 * math.sqrt(p * (1 - p) / 500)
    drawn = statistics.resample(base, method, 20_000, rng)
    assert drawn.std() == pytest.approx(expected, rel=0.03)
    assert drawn.mean() == pytest.approx(100 * p, abs=4 * expected / math.sqrt(20_000))
    assert statistics.variances(base, method)[0] == pytest.approx(expected**2 * 500 / 499)


def test_linearised_error_of_a_ratio_is_what_resampling_gives() -> None:
    rng = np.random.default_rng(5)
    weights = rng.uniform(4, 10, (400, 2))
    base, method = (arrays(weights * rng.random((400, 2)), weights + shift) for shift in (0, 0.5))
    drawn = statistics.resample(*statistics.paired(base, method), 10_000, rng)
    assert math.sqrt(statistics.variances(base, method)[0]) == pytest.approx(drawn.std(), rel=0.05)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_pairing_keeps_the_difference_of_means(runs: int, others: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 2, (20, 1))
    for spread in (0.0, 0.5):  # equal weights are reduced to one pair, others are not
        base, method = (
            arrays(rng.random((20, n)), weights + spread * rng.random((20, n))) for n in (runs, others)
        )
        expected = statistics.scores(method).mean() - statistics.scores(base).mean()
        a, b = statistics.paired(base, method)
        assert a.shape[1] == 1 or spread
        assert statistics.deltas(a.sum(axis=0)[None], b.sum(axis=0)[None])[0] == pytest.approx(expected)


# ---------------------------------------------------------------- Holm


def by_closure(ps: list[float]) -> list[float]:
    """Holm's adjusted p-values by their definition: closed testing with Bonferroni's test of every subset."""
    adjusted = []
    for i in range(len(ps)):
        subsets = (
            s
            for size in range(1, len(ps) + 1)
            for s in itertools.combinations(range(len(ps)), size)
            if i in s
        )
        adjusted.append(max(min(1.0, len(s) * min(ps[k] for k in s)) for s in subsets))
    return adjusted


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closure_of_bonferroni(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(by_closure(ps))


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12))
def test_holm_keeps_order_and_leaves_nan_out(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert [math.isnan(p) for p in adjusted] == [math.isnan(p) for p in ps]
    members = sorted((p, q) for p, q in zip(ps, adjusted, strict=True) if not math.isnan(p))
    assert all(p <= q <= 1 for p, q in members)
    assert [q for _, q in members] == sorted(q for _, q in members)
    assert [q for q in adjusted if not math.isnan(q)] == holm([p for p in ps if not math.isnan(p)])


def test_holm_keeps_the_family_wise_error() -> None:
    rng = np.random.default_rng(6)
    families, nulls = 3_000, 12
    ps = rng.random((families, nulls + 3))
    ps[:, nulls:] *= 1e-4  # three that are not null
    false = [min(holm(list(family))[:nulls]) < 0.05 for family in ps]
    assert 0.03 < np.mean(false) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / families)


# ---------------------------------------------------------------- simulated studies


def as_units(values: Array) -> Units:
    return {f"u{i:04d}": (float(v), 1.0) for i, v in enumerate(values)}


def study(rng: Rng, n: int, delta: float, seeds: int, spread: float, levels: int) -> Difference:
    """One benchmark of n rows, drawn anew with its training seeds; `delta` is the true difference, 0 to 1.

    A fifth of the answers are given anew, better by what makes the difference; answers have `levels` steps.
    """
    base = rng.integers(0, levels + 1, n) / levels
    runs = []
    for _ in range(seeds):
        true = delta + (rng.normal(0, spread) if seeds > 1 else 0)
        raised = np.clip(0.5 + 5 * true, 0, 1)  # expected value of an answer that is given anew
        anew = rng.binomial(levels, raised, n) / levels
        runs.append(as_units(np.where(rng.random(n) < 0.2, anew, base)))
    return compare({"b": as_units(base)}, {"b": runs}, n_resamples=1_000)[0]["b"]


def studies(times: int, seed: int, **how: float) -> list[Difference]:
    rng = np.random.default_rng(seed)
    return [study(rng, int(how["n"]), how["delta"], int(how["seeds"]), how["spread"], int(how["levels"]))
            for _ in range(times)]  # fmt: skip


TIMES = 400
SLACK = 3 * math.sqrt(0.05 * 0.95 / TIMES)


@pytest.mark.parametrize(
    ("seeds", "spread", "levels", "test"),
    [
        (1, 0.0, 1, "McNemar"),
        (1, 0.0, 4, "permutation"),
        (3, 0.03, 1, "t with seeds"),
        (3, 0.03, 4, "t with seeds"),
        (2, 0.03, 1, "t with seeds"),
    ],
)
def test_coverage_and_false_alarms_are_nominal(seeds: int, spread: float, levels: int, test: str) -> None:
    found = studies(TIMES, 7, n=150, delta=0.0, seeds=seeds, spread=spread, levels=levels)
    assert max((d.test for d in found), key=[d.test for d in found].count) == test
    covered = np.mean([d.low <= 0 <= d.high for d in found])
    alarms = np.mean([d.p < 0.05 for d in found])
    # Two seeds have one degree of freedom, whatever rows add: careful.
    assert 0.95 - SLACK <= covered <= (0.95 + SLACK if seeds == 1 else 1)
    assert alarms <= 0.05 + SLACK
    assert alarms > 0 and covered < 1


def test_the_average_of_unequal_benchmarks_is_covered_too() -> None:
    rng = np.random.default_rng(13)
    found = []
    for _ in range(TIMES):
        sides: list[dict[str, Units]] = [{}, {}]
        for name, n in (("small", 40), ("large", 200)):
            base = rng.integers(0, 2, n).astype(float)
            anew = np.where(rng.random(n) < 0.3, rng.integers(0, 2, n), base)
            sides[0][name], sides[1][name] = as_units(base), as_units(anew)
        average = compare(sides[0], {k: [u] for k, u in sides[1].items()}, n_resamples=1_000)[1]
        assert average is not None and average.test == "permutation"
        found.append(average)
    assert 0.95 - SLACK <= np.mean([d.low <= 0 <= d.high for d in found]) <= 0.95 + SLACK
    assert 0.05 - SLACK <= np.mean([d.p < 0.05 for d in found]) <= 0.05 + SLACK


def test_resampled_seeds_alone_would_claim_too_much() -> None:
    """What the Student t is for: without it, three seeds' interval misses the truth far too often."""
    rng = np.random.default_rng(8)
    hits = []
    for _ in range(TIMES):
        deltas = rng.normal(0, 3, 3)
        drawn = rng.choice(deltas, (500, 3)).mean(axis=1)
        low, high = np.percentile(drawn, [2.5, 97.5])
        hits.append(low <= 0 <= high)
    assert np.mean(hits) < 0.9


@pytest.mark.parametrize(("seeds", "spread", "levels"), [(1, 0.0, 1), (1, 0.0, 4), (3, 0.02, 4)])
def test_a_detectable_difference_is_found_four_times_in_five(seeds: int, spread: float, levels: int) -> None:
    how = {"n": 300, "seeds": seeds, "spread": spread, "levels": levels}
    size = 0.0
    for _ in range(2):  # the spread depends a little on the difference
        size = float(np.mean([d.detectable for d in studies(60, 9, delta=size, **how)])) / 100
    power = np.mean([d.p < 0.05 for d in studies(TIMES, 10, delta=size, **how)])
    assert 0.8 - 0.1 <= power <= 0.8 + 0.1


def test_detectable_is_the_textbooks_formula() -> None:
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert statistics.detectable(2.0, math.inf, 50) == pytest.approx(2 * z)
    assert statistics.detectable(2.0, 2, 50) == pytest.approx(2 * 5.6535, rel=1e-4)
    for df in (2, 10, 300):  # by the noncentral t itself
        found = statistics.detectable(1.0, df, 50)
        assert stats.nct.sf(stats.t.ppf(0.975, df), df, found) == pytest.approx(0.8, abs=1e-6)
    assert math.isnan(statistics.detectable(0.0, 10, 50))
    assert math.isnan(statistics.detectable(2.0, 4, 5)), "five clusters reach p = 0.0625 at best"
