"""Paired statistics: how far a method is from the baseline, and how sure that is.

Both answered the same test rows, so rows are resampled in pairs (Efron and Tibshirani 1993, ch. 16;
for evaluation of language tasks Koehn 2004). A benchmark's score is a ratio `100 * sum(value) /
sum(weight)`; the average is the mean of the benchmarks' percentages, resampled within each benchmark
(stratified). With several training seeds the estimate is the mean over seeds, and every resample
also gets a draw from a Student t with `seeds - 1` degrees of freedom, scaled by the standard error
over seeds: seeds are few, and resampling them would claim too narrow an interval.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Units = Mapping[str, tuple[float, float]]
N_RESAMPLES = 10_000
_CHUNK_CELLS = 4_000_000  # bounds the memory of one block of resamples to about 100 MB


@dataclass(frozen=True, slots=True)
class Difference:
    """A method's distance to the baseline, in percentage points.

    Attributes:
        delta: Mean over seeds of (method - baseline) on the units that both have a verdict for.
        low: Lower end of the 95 % percentile interval.
        high: Upper end.
        mark: `*` if the 95 % interval leaves out zero, `**` if the 99 % interval does, else empty.
        n: Units in the pairing.
        p: Two-sided p-value of no difference, uncorrected.
        test: What gave it, e.g. `exact McNemar`.
        better: Units that the method does better than the baseline (wrong to right), mean over seeds.
        worse: Units that it does worse.
        detectable: Smallest difference that such a pairing finds with 80 % power at 5 %, in points.
        p_holm: `p` after Holm's correction over the comparisons of a table; None before.
    """

    delta: float
    low: float
    high: float
    mark: str
    n: int
    p: float = float("nan")
    test: str = ""
    better: float = 0.0
    worse: float = 0.0
    detectable: float = float("nan")
    p_holm: float | None = None


def percent(units: Units) -> float:
    """Score of a set of units, `100 * sum(value) / sum(weight)`; NaN without any weight."""
    weight = sum(w for _, w in units.values())
    return 100.0 * sum(v for v, _ in units.values()) / weight if weight else float("nan")


def compare(
    baseline: Mapping[str, Units],
    method: Mapping[str, Sequence[Units]],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, Difference], Difference | None]:
    """Compares a method, evaluated once per training seed, with the baseline.

    Args:
        baseline: Benchmark -> units.
        method: Benchmark -> units for each seed. All benchmarks have the same number of seeds.
        n_resamples: Bootstrap resamples.
        seed: Seeds the resampling, together with the benchmark's name: results do not depend on
            which other benchmarks or methods are compared.

    Returns:
        A difference for every benchmark with units in common, and the average's (None without any).
    """
    differences: dict[str, Difference] = {}
    row_draws: list[NDArray[np.float64]] = []
    by_seed: list[NDArray[np.float64]] = []
    for name in method:
        if name not in baseline:
            continue
        shared = sorted(set(baseline[name]).intersection(*method[name]))
        runs = [baseline[name], *method[name]]
        table = np.array([[x for run in runs for x in run[unit]] for unit in shared], dtype=np.float64)
        if not shared or not (table[:, 1::2].sum(axis=0) > 0).all():
            continue
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        point = _deltas(table.sum(axis=0)[None, :])[0]
        draws = _resample(table, n_resamples, rng)
        differences[name] = _difference(point, draws, len(shared), rng)
        row_draws.append(draws)
        by_seed.append(point)
    if not row_draws:
        return differences, None
    rng = np.random.default_rng([seed, zlib.crc32(b"average")])
    n = sum(difference.n for difference in differences.values())
    return differences, _difference(np.mean(by_seed, axis=0), np.mean(row_draws, axis=0), n, rng)


def _deltas(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column sums `(r, 2 * (1 + seeds))` of (value, weight) pairs -> deltas `(r, seeds)` in points."""
    # A resample of a benchmark whose weights may be 0 can come out empty; it then says nothing.
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = 100.0 * sums[:, 0::2] / sums[:, 1::2]
    deltas: NDArray[np.float64] = np.nan_to_num(scores[:, 1:] - scores[:, :1])
    return deltas


def _resample(table: NDArray[np.float64], n_resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mean-over-seeds delta of `n_resamples` draws of the rows of `table`, with replacement."""
    n = len(table)
    means = []
    step = max(1, _CHUNK_CELLS // n)
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        picks = rng.integers(0, n, size=(rows, n)) + np.arange(rows)[:, None] * n
        # How often each unit was drawn turns every sum of the resample into one matrix product.
        counts = np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        means.append(_deltas(counts @ table).mean(axis=1))
    return np.concatenate(means)


def _difference(
    point: NDArray[np.float64], draws: NDArray[np.float64], n: int, rng: np.random.Generator
) -> Difference:
    """Interval and mark from the deltas by seed and the bootstrap draws of their mean."""
    seeds = len(point)
    if seeds > 1:
        standard_error = float(point.std(ddof=1)) / seeds**0.5
        draws = draws + standard_error * rng.standard_t(seeds - 1, size=len(draws))
    low99, low, high, high99 = (float(x) for x in np.percentile(draws, [0.5, 2.5, 97.5, 99.5]))
    mark = "**" if low99 > 0 or high99 < 0 else "*" if low > 0 or high < 0 else ""
    return Difference(float(point.mean()), low, high, mark, n)
