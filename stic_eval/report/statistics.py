"""The mathematics of paired comparisons, on arrays.

One benchmark is two arrays, `base (n, runs, 2)` and `method (n, runs', 2)`: for each cluster of units and run
(training seed) the sums of the units' values and weights. Scores are ratios, `100 * sum(value) /
sum(weight)`; differences are in percentage points. docs/statistics.md derives what is computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POWER = 0.8
LEVEL = 0.05
FEW = 20  # clusters that differ; below, p-values are exact, from here on mid-p
_MANY = 1e5  # degrees of freedom with which Student's t is the normal distribution
_SHARES = 1.25  # the power of variances in the mean of their degrees of freedom
_FEWEST = 6  # clusters; of five, even those that all change alike come out one time in sixteen
_MORE = 20  # times as many draws of a permutation test, at most, where p is small
_ENOUGH = 20  # exceedances that make a p-value precise to about a fifth of itself
_CHUNK_CELLS = 2_000_000  # bounds the memory of one block of draws to some 50 MB
_CACHED_CELLS = 32_768  # of random bits: what is made of them is done while a processor's cache has them


def gathered(runs: Array, cluster: NDArray[np.intp]) -> Array:
    """Sums over the units of each cluster: `(n, runs, 2)` and `(n,)` -> `(clusters, runs, 2)`."""
    sums = np.zeros((int(cluster.max()) + 1, *runs.shape[1:]))
    np.add.at(sums, cluster, runs)
    return sums


def scores(runs: Array) -> Array:
    """`(n, runs, 2)` -> the score of each run in percent `(runs,)`."""
    sums = runs.sum(axis=0)
    percents: Array = 100.0 * sums[:, 0] / sums[:, 1]
    return percents


def paired(base: Array, method: Array) -> tuple[Array, Array]:
    """Pairs runs: the first with the first if there are equally many, else each with each.

    Either way the mean over pairs of the difference is the difference of the means over runs. Where every
    run gives a cluster the same weight, that mean is all that counts of it, and one pair says it: a base
    of 0 and the cluster's mean difference. There are few such values, which is what makes `resample` and
    `shuffle` fast.

    Returns:
        Base and method, both `(n, pairs, 2)`.
    """
    if base.shape[1] != method.shape[1]:
        runs = base.shape[1], method.shape[1]
        base, method = np.repeat(base, runs[1], axis=1), np.tile(method, (1, runs[0], 1))
    weights = base[:, :1, 1]
    if not ((base[..., 1] == weights).all() and (method[..., 1] == weights).all()):
        return base, method
    # Rounded, as the mean of the same numbers in another order may differ in its last digit.
    differences = (method[..., 0] - base[..., 0]).mean(axis=1, keepdims=True).round(12)
    return np.stack([0 * weights, weights], axis=-1), np.stack([differences, weights], axis=-1)


def deltas(base: Array, method: Array) -> Array:
    """Sums of values and weights `(draws, pairs, 2)` -> mean-over-pairs difference in points `(draws,)`."""
    # A resample of a benchmark whose weights may be 0 can come out empty; it then says nothing.
    with np.errstate(invalid="ignore", divide="ignore"):
        by_pair = 100.0 * (method[..., 0] / method[..., 1] - base[..., 0] / base[..., 1])
    points: Array = np.nan_to_num(by_pair).mean(axis=-1)
    return points


def resample(base: Array, method: Array, draws: int, rng: np.random.Generator) -> Array:
    """The difference in `draws` bootstrap resamples of the clusters, drawn in pairs, with replacement.

    How often each of the distinct clusters is drawn is a multinomial variate, and their sums one product.
    """
    n, pairs, _ = base.shape
    clusters, sizes = np.unique(
        np.concatenate([base, method], axis=1).reshape(n, -1), axis=0, return_counts=True
    )
    step = max(1, _CHUNK_CELLS // len(clusters))
    blocks = []
    for start in range(0, draws, step):
        counts = rng.multinomial(n, sizes / n, size=min(step, draws - start)).astype(np.float64)
        sums = (counts @ clusters).reshape(len(counts), 2 * pairs, 2)
        blocks.append(deltas(sums[:, :pairs], sums[:, pairs:]))
    return np.concatenate(blocks)


def shuffle(base: Array, method: Array, draws: int, rng: np.random.Generator) -> Array:
    """The difference in `draws` random exchanges of base and method, each cluster's with probability 1/2.

    A cluster is exchanged whole, in all of its pairs. Clusters in which nobody differs drop out. The others
    are gathered by what exchanging them changes: how many of a group are exchanged is the number of ones in
    as many random bits, which come in words of 64.
    """
    n, pairs, _ = base.shape
    changes, sizes = np.unique((base - method).reshape(n, -1), axis=0, return_counts=True)
    moved = changes.any(axis=1)
    changes, sizes = changes[moved], sizes[moved]
    at = base.sum(axis=0), method.sum(axis=0)
    if not len(sizes):
        return np.full(draws, deltas(at[0][None], at[1][None])[0])
    words = -(-sizes // 64)
    changes = np.repeat(changes, words, axis=0)
    last = np.cumsum(words) - 1
    masks = np.full(len(changes), 2**64 - 1, dtype=np.uint64)
    masks[last] >>= (64 * words - sizes).astype(np.uint64)
    step = max(1, _CHUNK_CELLS // len(changes))
    few = max(1, _CACHED_CELLS // len(changes))
    counts = np.empty((min(step, draws), len(changes)))
    blocks = []
    for start in range(0, draws, step):
        exchanged = counts[: draws - start]
        for first in range(0, len(exchanged), few):
            part = exchanged[first : first + few]
            bits = rng.integers(0, 2**64, size=part.shape, dtype=np.uint64)
            bits &= masks
            part[:] = np.bitwise_count(bits)
        shift = (exchanged @ changes).reshape(-1, pairs, 2)
        blocks.append(deltas(at[0] - shift, at[1] + shift))
    return np.concatenate(blocks)


def moved(base: Array, method: Array) -> int:
    """How many clusters differ at all."""
    return int((base != method).reshape(len(base), -1).any(axis=1).sum())


def influence(side: Array) -> Array:
    """What each cluster adds to its run's score beyond its share, in points: `(n, runs, 2)` -> `(n, runs)`.

    `(value - ratio * weight) / sum(weight)`: the delta method for a ratio (Cochran 1977, section 6.4). The
    sums over clusters are 0.
    """
    sums = side.sum(axis=0)
    points: Array = 100.0 * (side[..., 0] - sums[:, 0] / sums[:, 1] * side[..., 1]) / sums[:, 1]
    return points


def variances(base: Array, method: Array) -> tuple[float, float]:
    """Variance of the difference of mean scores over clusters, and what of it is the seeds' noise on them.

    Returns:
        In square points: the cluster-robust variance of the mean over runs (NaN of a single cluster); and the
        part of it that comes from clusters answered otherwise in each run. That part is also in the variance
        over seeds, and would count twice.
    """
    n = len(base)
    if n < 2:
        return float("nan"), float("nan")
    sides = influence(base), influence(method)
    rows = n / (n - 1) * float(((sides[1].mean(axis=1) - sides[0].mean(axis=1)) ** 2).sum())
    parts = [sides[1] - sides[0]] if sides[0].shape == sides[1].shape else list(sides)
    noise = sum(float(part.var(axis=1, ddof=1).sum()) / part.shape[1] for part in parts if part.shape[1] > 1)
    return rows, n / (n - 1) * noise


def seed_variance(base: Array, method: Array) -> tuple[float, float]:
    """Variance over seeds of the difference of mean scores, and its degrees of freedom.

    Equally many runs on both sides are paired (the first with the first); else the variances of both sides
    add up, with Welch's degrees of freedom, and a side with a single run contributes nothing.

    Args:
        base: Score of each run of the base, in percent.
        method: The same of the method.

    Returns:
        Square points (0 where one run meets one run) and degrees of freedom.
    """
    parts = [method - base] if len(base) == len(method) else [base, method]
    found = [(float(part.var(ddof=1)) / len(part), len(part) - 1) for part in parts if len(part) > 1]
    total = sum(variance for variance, _ in found)
    if total <= 0:
        return 0.0, float(sum(df for _, df in found)) or 1.0
    return total, total**2 / sum(variance**2 / df for variance, df in found)


def with_seeds(
    rows: float, noise: float, rows_df: float, seeds: float, seeds_df: float
) -> tuple[float, float]:
    """Standard error of a difference of means over seeds, and the degrees of freedom of its Student's t.

    The variance over clusters without the seeds' noise, and the variance over seeds, which has it. Degrees of
    freedom are the harmonic mean of both, weighted by their shares of the sum to the power of 5/4. With 1
    false alarms of three seeds lie between 3.6 and 5.8 % for mixtures of luck, rows and noise, with 2
    (Satterthwaite) up to 7.9 %, with 5/4 between 4.0 and 6.4 %. A variance of one degree of freedom (two
    seeds) keeps that one.

    Args:
        rows: Variance over clusters, in square points.
        noise: What of it is the seeds'.
        seeds: Variance over seeds.

    Returns:
        Points, and degrees of freedom.
    """
    own = max(0.0, rows - noise)
    total = own + seeds
    if total <= 0:
        return 0.0, rows_df
    if seeds > 0 and seeds_df < 2:
        return math.sqrt(total), seeds_df
    shares = (own / total) ** _SHARES / rows_df + (seeds / total) ** _SHARES / seeds_df
    return math.sqrt(total), 1 / shares


def quantile(q: float, df: float) -> float:
    """Of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(df, q)) if math.isfinite(df) else NormalDist().inv_cdf(q)


def t_test(delta: float, error: float, df: float) -> float:
    """Two-sided p-value of a difference with a standard error."""
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(delta) / error))


def widening(df: float) -> float:
    """By how much a percentile interval is too narrow: its draws have the sample's spread, and no t.

    `sqrt(n / (n - 1)) * t / 1.96` with n - 1 degrees of freedom (Hesterberg 2015, section 5.1): 1.01 with 100
    clusters, 1.08 with 24, 1.58 with 5.
    """
    return math.sqrt((df + 1) / df) * quantile(1 - LEVEL / 2, df) / NormalDist().inv_cdf(1 - LEVEL / 2)


def detectable(error: float, df: float, clusters: int) -> float:
    """Smallest true difference that is found with a power of 80 % in a two-sided test at 5 %, in points.

    The noncentrality of a Student t that exceeds its quantile so often, times the error: 2.80 errors with
    many degrees of freedom, 5.65 with two. NaN where no cluster differs, and there is nothing to tell an
    error from; and with five clusters or fewer, which no difference makes sure.
    """
    from scipy.special import nctdtrinc

    if not error > 0 or clusters < _FEWEST:
        return float("nan")
    if df > _MANY:
        return error * (quantile(1 - LEVEL / 2, df) + quantile(POWER, df))
    return error * float(nctdtrinc(df, 1 - POWER, quantile(1 - LEVEL / 2, df)))


def mcnemar(better: int, worse: int) -> float:
    """Two-sided p-value that units flip either way alike (McNemar 1947; the binomial form).

    Exact below 20 flips. From there on mid-p: of flips exactly as uneven as these, half the probability. The
    exact test errs on the careful side, at 3.8 % instead of 5 for 40 flips (Fagerland et al. 2013).

    Args:
        better: Units that went from wrong to right.
        worse: Units that went from right to wrong.
    """
    from scipy.special import bdtr

    flips, fewer = better + worse, min(better, worse)
    if not flips:
        return 1.0
    tail = 2.0 * float(bdtr(fewer, flips, 0.5))
    if flips >= FEW:
        tail -= math.exp(math.lgamma(flips + 1) - math.lgamma(fewer + 1) - math.lgamma(flips - fewer + 1)
                         - flips * math.log(2))  # fmt: skip
    return min(1.0, tail)


def permutation(delta: float, draw: Callable[[int], Array], draws: int, exact: bool) -> float:
    """Two-sided p-value of `delta` among differences between sides that were exchanged at random.

    `(b + 1) / (m + 1)`, with b of m draws at least as far from 0. m begins with `draws`; as long as b is
    below 20 it is doubled, up to 20 times as many (sequential Monte Carlo, Besag and Clifford 1991):
    correction for many comparisons needs small p-values to be precise.

    Args:
        delta: Observed difference in points.
        draw: Number of draws -> so many differences under exchange.
        draws: How many at first.
        exact: Whether draws just as far as `delta` count as far; else they count half (mid-p).
    """
    slack = 1e-9 * max(1.0, abs(delta))  # sums of the same units in another order are no less far
    exact = exact or abs(delta) <= slack  # which no draw is closer than
    exceeding, done, most = 0.0, 0, _MORE * draws
    while not done or (exceeding < _ENOUGH and done < most):
        drawn = np.abs(draw(min(max(done, draws), most - done)))
        done += len(drawn)
        at_least = int((drawn >= abs(delta) - slack).sum())
        beyond = at_least if exact else int((drawn > abs(delta) + slack).sum())
        exceeding += (at_least + beyond) / 2
    return (exceeding + 1) / (done + 1)
