"""The mathematics of paired comparisons, on arrays.

One benchmark is two arrays, `base (n, runs, 2)` and `method (n, runs', 2)`: for each unit and run (training
seed) the unit's value and weight. Scores are ratios, `100 * sum(value) / sum(weight)`; differences are in
percentage points. docs/statistics.md derives what is computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

POWER = 0.8
LEVEL = 0.05
_DRAWS = 10_000  # of a permutation test; more, up to the next number, where p is small
_MOST_DRAWS = 200_000
_ENOUGH = 20  # exceedances that make a p-value precise to about a fifth of itself
_CHUNK_CELLS = 2_000_000  # bounds the memory of one block of draws to some 50 MB


def scores(runs: Array) -> Array:
    """`(n, runs, 2)` -> the score of each run in percent `(runs,)`."""
    sums = runs.sum(axis=0)
    percents: Array = 100.0 * sums[:, 0] / sums[:, 1]
    return percents


def paired(base: Array, method: Array) -> tuple[Array, Array]:
    """Pairs runs: the first with the first if there are equally many, else each with each.

    Either way the mean over pairs of the difference is the difference of the means over runs. Where every
    run gives a unit the same weight, that mean is all that counts of a unit, and one pair says it: a base
    of 0 and the unit's mean difference. There are few such values, which is what makes `resample` and
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
    """The difference in `draws` bootstrap resamples of the units, drawn in pairs, with replacement.

    How often each of the distinct units is drawn is a multinomial variate, and their sums one product.
    """
    n, pairs, _ = base.shape
    units, sizes = np.unique(
        np.concatenate([base, method], axis=1).reshape(n, -1), axis=0, return_counts=True
    )
    step = max(1, _CHUNK_CELLS // len(units))
    blocks = []
    for start in range(0, draws, step):
        counts = rng.multinomial(n, sizes / n, size=min(step, draws - start)).astype(np.float64)
        sums = (counts @ units).reshape(len(counts), 2 * pairs, 2)
        blocks.append(deltas(sums[:, :pairs], sums[:, pairs:]))
    return np.concatenate(blocks)


def shuffle(base: Array, method: Array, draws: int, rng: np.random.Generator) -> Array:
    """The difference in `draws` random exchanges of base and method within units, each with probability 1/2.

    A unit is exchanged in all of its pairs at once. Units on which nobody differs drop out. The others are
    gathered by what exchanging them changes: how many of a group are exchanged is the number of ones in
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
    blocks = []
    for start in range(0, draws, step):
        size = (min(step, draws - start), len(masks))
        bits = rng.integers(0, 2**64, size=size, dtype=np.uint64) & masks
        shift = (np.bitwise_count(bits).astype(np.float64) @ changes).reshape(-1, pairs, 2)
        blocks.append(deltas(at[0] - shift, at[1] + shift))
    return np.concatenate(blocks)


def seed_error(base: Array, method: Array) -> tuple[float, float]:
    """Standard error over seeds of the difference of mean scores, and its degrees of freedom.

    Equally many runs on both sides are paired (the first with the first); else the variances of both sides
    add up, with Welch's degrees of freedom, and a side with a single run contributes nothing.

    Args:
        base: Score of each run of the base, in percent.
        method: The same of the method.

    Returns:
        Points (0 where one run meets one run) and degrees of freedom.
    """
    if len(base) == len(method):
        parts = [_variance_of_mean(method - base)]
    else:
        parts = [_variance_of_mean(base), _variance_of_mean(method)]
    parts = [(variance, df) for variance, df in parts if df]
    total = sum(variance for variance, _ in parts)
    if total <= 0:
        return 0.0, float(sum(df for _, df in parts)) or 1.0
    return float(total**0.5), float(total**2 / sum(variance**2 / df for variance, df in parts))


def _variance_of_mean(values: Array) -> tuple[float, int]:
    df = len(values) - 1
    return (float(values.var(ddof=1)) / len(values) if df else 0.0), df


def unit_error(base: Array, method: Array) -> float:
    """Standard error over units of the difference, in points; NaN of a single unit.

    Of a ratio it is linearised: a unit counts as `(value - ratio * weight) / sum(weight)` (the delta method;
    Cochran 1977, section 6.4). Where all weights are 1 this is the standard error of a mean.
    """
    n = len(base)
    if n < 2:
        return float("nan")
    parts = []
    for side in (base, method):
        sums = side.sum(axis=0)
        parts.append((side[..., 0] - sums[:, 0] / sums[:, 1] * side[..., 1]) / sums[:, 1])
    influence = 100.0 * (parts[1] - parts[0]).mean(axis=1)
    return float((n / (n - 1) * (influence**2).sum()) ** 0.5)


def detectable(unit_error: float, seed_error: float, df: float) -> float:
    """Smallest true difference that is found with a power of 80 % in a two-sided test at 5 %, in points.

    `q(0.975) + q(0.8)` with the quantiles of the difference where there is none: a normal variate times the
    error over units, `(1.960 + 0.842) * unit_error`, to which several seeds add a Student t times theirs.
    NaN where no unit differs, and there is nothing to tell a standard error from.
    """
    if not unit_error + seed_error > 0:
        return float("nan")
    if seed_error == 0:
        return unit_error * sum(NormalDist().inv_cdf(q) for q in (1 - LEVEL / 2, POWER))
    from scipy.special import ndtri, stdtr, stdtrit

    normal = unit_error * ndtri((np.arange(200) + 0.5) / 200)

    def quantile(q: float) -> float:
        low, high = 0.0, 5 * unit_error + seed_error * float(stdtrit(df, 0.9999))
        while high - low > 1e-4 * high:
            middle = (low + high) / 2
            below = float(stdtr(df, (middle - normal) / seed_error).mean())
            low, high = (middle, high) if below < q else (low, middle)
        return high

    return quantile(1 - LEVEL / 2) + quantile(POWER)


def mcnemar(better: int, worse: int) -> float:
    """Exact two-sided p-value that units flip either way alike (McNemar 1947; the binomial form).

    Args:
        better: Units that went from wrong to right.
        worse: Units that went from right to wrong.
    """
    from scipy.special import bdtr

    return float(min(1.0, 2.0 * bdtr(min(better, worse), better + worse, 0.5))) if better + worse else 1.0


def permutation(
    delta: float, draw: Callable[[int], Array], seed_error: float = 0.0, df: float = 1.0
) -> float:
    """Two-sided p-value of `delta` among differences between sides that were exchanged at random.

    `(b + 1) / (m + 1)`, with b of m draws at least as far from 0. m is 10,000; as long as b is below 20 it
    is doubled, up to 200,000 (sequential Monte Carlo, Besag and Clifford 1991): correction for many
    comparisons needs small p-values to be precise.

    With an error over seeds, a draw t of Student's distribution times that error is added to every draw,
    as to the resamples of the interval. It is not drawn but integrated: instead of 0 or 1, a draw counts
    as the probability that it ends at least as far from 0.

    Args:
        delta: Observed difference in points.
        draw: Number of draws -> so many differences under exchange.
        seed_error: Standard error over seeds, in points.
        df: Its degrees of freedom.
    """
    far = abs(delta) - 1e-9 * max(1.0, abs(delta))  # sums of the same units in another order are no less far
    exceeding, done = 0.0, 0
    while not done or (exceeding < _ENOUGH and done < _MOST_DRAWS):
        drawn = draw(min(max(done, _DRAWS), _MOST_DRAWS - done))
        done += len(drawn)
        if seed_error > 0:
            from scipy.special import stdtr

            tails = stdtr(df, (drawn - far) / seed_error) + stdtr(df, (-drawn - far) / seed_error)
            exceeding += float(np.minimum(tails, 1.0).sum())
        else:
            exceeding += int((np.abs(drawn) >= far).sum())
    return (exceeding + 1) / (done + 1)
