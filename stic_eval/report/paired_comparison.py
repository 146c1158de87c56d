"""Paired comparisons: how far a method is from a base, and how sure that is.

Both answered the same test rows, so that rows are paired (Efron and Tibshirani 1993, ch. 16; for
evaluation of language tasks Koehn 2004). Rows that share an image are one cluster, which is resampled and
exchanged whole (Miller 2024). A benchmark's score is a ratio `100 * sum(value) / sum(weight)`, or its own
statistic; the average is the mean of the benchmarks' percentages, resampled and exchanged within each
benchmark (stratified). With several training seeds the estimate is the mean over seeds, tested by a Student
t with the variance over clusters and that over seeds. docs/statistics.md has the formulas.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from stic_eval.report import statistics
from stic_eval.types import Summary

Units = Mapping[str, tuple[float, float]]
Run = Units | Summary
N_RESAMPLES = 10_000

MCNEMAR = "McNemar"
PERMUTATION = "permutation"
SEEDS = "t with seeds"
OWN = "jackknife permutation"
UNMARKED = "§"
SEED, DESCRIPTION = "seeds", "descriptions"  # what a comparison may have too few of


@dataclass(frozen=True, slots=True)
class Difference:
    """A method's distance to the base, in percentage points.

    Attributes:
        delta: Mean over seeds of (method - base) on the units that all runs of both have a verdict for.
        low: Lower end of the 95 % interval; NaN where a single cluster leaves nothing to tell it from.
        clusters: In how many clusters they lie.
        p: Two-sided p-value of no difference, uncorrected.
        test: What gave it: `McNemar`, `permutation`, `t with seeds` or `jackknife permutation`.
        better: Units that the method does better than the base (wrong to right), mean over seeds.
        detectable: Smallest difference that such a pairing finds with 80 % power at 5 %, in points. NaN if
            that cannot be said, as no unit differs.
        p_holm: `p` as corrected in its table, see `report.multiple_testing`; None: it is tested in none.
        lacks: `seeds`, `descriptions` or nothing: what there is one of, of a kind that luck decides, so that
            interval and p are about test rows alone, and no mark is given.
    """

    delta: float
    low: float
    high: float
    n: int
    p: float = float("nan")
    test: str = ""
    better: float = 0.0
    worse: float = 0.0
    detectable: float = float("nan")
    p_holm: float | None = None
    clusters: int = 0
    lacks: str = ""

    @property
    def mark(self) -> str:
        """`*` if p, corrected where it is, is below 0.05, `**` below 0.01; `§` if it is not tested."""
        if self.lacks:
            return UNMARKED
        p = self.p if self.p_holm is None else self.p_holm
        return "**" if p < 0.01 else "*" if p < 0.05 else ""

    @property
    def unmoved(self) -> bool:
        """Whether no unit differs in any run, so that an interval of resamples would be a point at zero."""
        return self.n > 0 and self.delta == self.better == self.worse == 0

    @property
    def unseen(self) -> float:
        """How large a share of differing clusters `unmoved` leaves open, in percent: its upper 95 % bound.

        Exact, of independent clusters: 100 (1 - 0.05^(1 / clusters)), some 300 / clusters (Hanley and
        Lippman-Hand 1983).
        """
        return 100.0 * (1.0 - math.pow(0.05, 1.0 / (self.clusters or self.n)))

    @property
    def significant(self) -> bool:
        """Whether it has a star."""
        return "*" in self.mark


def percent(units: Units) -> float:
    """Score of a set of units, `100 * sum(value) / sum(weight)`; NaN without any weight.

    Sums are exact before they are rounded: units come in any order.
    """
    weight = math.fsum(w for _, w in units.values())
    return 100.0 * math.fsum(v for v, _ in units.values()) / weight if weight else float("nan")


def compare(
    base: Mapping[str, Run | Sequence[Run]],
    method: Mapping[str, Sequence[Run]],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    lacks: str = "",
) -> tuple[dict[str, Difference], Difference | None]:
    """Compares a method, evaluated once per training seed, with a base.

    Args:
        base: Benchmark -> a run, or one for each seed: its summary, or its units where each is a cluster by
            itself. Equally many seeds as the method's are paired in their order; else the base's mean over
            seeds is compared with the method's.
        method: Benchmark -> a run for each seed. On each side all benchmarks have the same number of seeds.
        n_resamples: Bootstrap resamples, and exchanges at first.
        seed: Seeds resampling and exchanges, together with the benchmark's name: results do not depend on
            which other benchmarks or methods are compared.
        lacks: Said of all differences, see `Difference`.

    Returns:
        A difference for every benchmark with units in common, and the average's (None without any).
    """
    parts = {}
    for name in method:
        if name in base:
            one = base[name]
            part = _part([one] if isinstance(one, (Mapping, Summary)) else one, method[name])
            if part is not None:
                parts[name] = part

    def seeded(name: str) -> np.random.Generator:
        return np.random.default_rng([seed, zlib.crc32(name.encode())])

    @cache
    def resampled(name: str) -> statistics.Array:
        own = parts[name].draws
        return statistics.resample(*parts[name].pairs, n_resamples, seeded(name)) if own is None else own

    def averaged() -> statistics.Array:
        drawn = [resampled(name) for name in parts]
        fewest = min(map(len, drawn))
        mean: statistics.Array = np.mean([draws[:fewest] for draws in drawn], axis=0)
        return mean

    def found(of: Sequence[_Part], draws: Callable[[], statistics.Array], name: str) -> Difference:
        return replace(_difference(of, draws, n_resamples, seeded(f"exchanges of {name}")), lacks=lacks)

    differences = {name: found([part], partial(resampled, name), name) for name, part in parts.items()}
    if len(parts) < 2:
        return differences, next(iter(differences.values()), None)
    return differences, found(list(parts.values()), averaged, "average")


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A benchmark that all runs have units of.

    Attributes:
        scores: By run, of the base and of the method.
        pairs: Pairs of clusters, see `statistics.paired`.
        rows: Variance of the difference over clusters.
        noise: What of it is the seeds', see `statistics.variances`.
        clusters: In how many clusters they lie; of a statistic of its own, `pairs` are groups of them.
        better: Units that the method does better, mean over pairs of runs.
        binary: One run meets one, and clusters are single units that are right or wrong.
        draws: Differences of a benchmark's own statistic in resamples; None: made of the pairs.
    """

    scores: tuple[statistics.Array, statistics.Array]
    pairs: tuple[statistics.Array, statistics.Array]
    rows: float
    noise: float
    n: int
    clusters: int
    better: float
    worse: float
    binary: bool
    draws: statistics.Array | None = None


def _part(base: Sequence[Run], method: Sequence[Run]) -> _Part | None:
    """Puts what all runs have into arrays.

    Returns:
        None if they have no units with weight in common, or a statistic of their own over other rows.
    """
    runs = [*base, *method]
    units = [run.units if isinstance(run, Summary) else run for run in runs]
    shared = sorted(set(units[0]).intersection(*units[1:])) if base and method else []
    if not shared:
        return None
    table = np.array([[run[unit] for run in units] for unit in shared], dtype=np.float64)
    if not (table[..., 1].sum(axis=0) > 0).all():
        return None
    a, b = table[:, : len(base)], table[:, len(base) :]
    if a.shape[1] == b.shape[1]:
        ratios = b[..., 0] * a[..., 1] - a[..., 0] * b[..., 1]
    else:
        ratios = b[:, None, :, 0] * a[:, :, None, 1] - a[:, :, None, 0] * b[:, None, :, 1]
        ratios = ratios.reshape(len(shared), -1)
    better, worse = (float((sign * ratios > 0).sum(axis=0).mean()) for sign in (1, -1))
    if any(isinstance(run, Summary) and run.resampled for run in runs):
        return _own([run for run in runs if isinstance(run, Summary)], len(base), len(method), better, worse)
    cluster = _clusters(shared, runs)
    single = len(cluster) == cluster.max() + 1
    if not single:
        a, b = statistics.gathered(a, cluster), statistics.gathered(b, cluster)
    rows, noise = statistics.variances(a, b)
    return _Part(
        scores=(statistics.scores(a), statistics.scores(b)),
        pairs=statistics.paired(a, b),
        rows=rows,
        noise=noise,
        n=len(shared),
        clusters=len(a),
        better=better,
        worse=worse,
        binary=single
        and len(runs) == 2
        and bool((table[..., 1] == 1).all() and np.isin(table[..., 0], (0, 1)).all()),
    )


def _own(runs: Sequence[Summary], base: int, method: int, better: float, worse: float) -> _Part | None:
    """A benchmark with a statistic of its own: by the resamples that were drawn when it was evaluated.

    In place of clusters stand the pseudo-values of a delete-a-group jackknife, weighted by the groups' sizes
    (Busing et al. 1999): exchanges need something that adds up. They are centred on the score, without the
    jackknife's correction of bias, which would multiply the rounding of a score by the number of groups.
    """
    found = [run.resampled for run in runs if run.resampled is not None]
    if len(found) < base + method or len({one.rows for one in found}) > 1 or not found[0].without:
        return None
    groups = len(found[0].without)
    total = found[0].clusters
    sizes = np.bincount(np.arange(total) % groups).astype(np.float64)
    scores = np.array([float(run.score or 0.0) for run in runs])
    without = np.array([one.without for one in found]).T / 100
    times = (total / sizes)[:, None]
    centre = np.average(without, axis=0, weights=total - sizes)
    values = (scores / 100 + (times - 1) * (centre - without)) * sizes[:, None]
    table = np.stack([values, np.broadcast_to(sizes[:, None], values.shape)], axis=-1)
    a, b = table[:, :base], table[:, base:]
    draws = np.array([one.draws for one in found])
    rows, noise = statistics.variances(a, b)
    return _Part(
        scores=(scores[:base], scores[base:]),
        pairs=statistics.paired(a, b),
        rows=rows,
        noise=noise,
        n=min(len(run.units) for run in runs),
        clusters=total,
        better=better,
        worse=worse,
        binary=False,
        draws=draws[base:].mean(axis=0) - draws[:base].mean(axis=0),
    )


def _clusters(units: Sequence[str], runs: Sequence[Run]) -> NDArray[np.intp]:
    """The number of each unit's cluster. Units that any of the runs has in one cluster are in one."""
    maps = [run.clusters for run in runs if isinstance(run, Summary) and run.clusters]
    maps = [one for at, one in enumerate(maps) if one not in maps[:at]]
    if not maps:
        return np.arange(len(units))
    leader = list(range(len(units)))

    def find(at: int) -> int:
        while leader[at] != at:
            leader[at] = at = leader[leader[at]]
        return at

    for one in maps:
        first: dict[str, int] = {}
        for at, unit in enumerate(units):
            if (name := one.get(unit)) is not None:
                leader[find(at)] = find(first.setdefault(name, at))
    return np.unique([find(at) for at in range(len(units))], return_inverse=True)[1]


def _difference(
    parts: Sequence[_Part], draws: Callable[[], statistics.Array], n_resamples: int, rng: np.random.Generator
) -> Difference:
    """The difference of one benchmark, or the average's; with several seeds nothing is resampled."""
    base, method = (np.mean([part.scores[side] for part in parts], axis=0) for side in (0, 1))
    delta = float(method.mean() - base.mean())
    rows, noise = (sum(getattr(part, name) for part in parts) / len(parts) ** 2 for name in ("rows", "noise"))
    rows_df = math.inf
    if rows > 0:
        own = sum((part.rows / len(parts) ** 2) ** 2 / (len(part.pairs[0]) - 1) for part in parts)
        rows_df = rows**2 / own
    error, df = math.sqrt(rows) if rows >= 0 else rows, rows_df
    moved = sum(statistics.moved(*part.pairs) for part in parts)
    clusters = sum(part.clusters for part in parts)
    better, worse = sum(part.better for part in parts), sum(part.worse for part in parts)
    by_seed = _seeds(base, method, rows, noise, rows_df)
    if by_seed is not None:
        error, df = by_seed
        test, p = SEEDS, statistics.t_test(delta, error, df)
        reach = error * statistics.quantile(1 - statistics.LEVEL / 2, df)
        low, high = delta - reach, delta + reach
    else:
        low, high = _interval(delta, draws(), rows, rows_df)
        test, p = PERMUTATION if all(part.draws is None for part in parts) else OWN, 1.0
    if len(parts) == 1 and parts[0].binary:
        test, p = MCNEMAR, statistics.mcnemar(round(better), round(worse))
    elif by_seed is None or moved < statistics.FEW:
        # Few clusters that differ make no normal distribution: then exchanges bound the t as well.
        by_rows = _exchanged(parts, n_resamples, moved < statistics.FEW, rng)
        p = max(p, by_rows) if by_seed is not None else by_rows
    return Difference(
        delta, low, high, sum(part.n for part in parts), p, test, better, worse,
        statistics.detectable(error, df, clusters), clusters=clusters,
    )  # fmt: skip


def _seeds(
    base: statistics.Array, method: statistics.Array, rows: float, noise: float, rows_df: float
) -> tuple[float, float] | None:
    """Standard error and degrees of freedom with several seeds; None where seeds do not differ."""
    if len(base) == len(method) == 1 or math.isnan(rows):
        return None
    seeds, seeds_df = statistics.seed_variance(base, method)
    error, df = statistics.with_seeds(rows, noise, rows_df, seeds, seeds_df)
    return (error, df) if seeds + noise > 0 and error > 0 else None


def _interval(delta: float, draws: statistics.Array, rows: float, df: float) -> tuple[float, float]:
    """The percentile interval, widened for few clusters."""
    if math.isnan(rows):
        return float("nan"), float("nan")
    ends = np.percentile(draws, [100 * statistics.LEVEL / 2, 100 - 100 * statistics.LEVEL / 2])
    wider = statistics.widening(df) if math.isfinite(df) else 1.0
    low, high = (delta + wider * (float(end) - delta) for end in ends)
    return low, high


def _exchanged(parts: Sequence[_Part], draws: int, exact: bool, rng: np.random.Generator) -> float:
    """p-value by exchanges within clusters."""
    sums = [[side.sum(axis=0)[None] for side in part.pairs] for part in parts]
    observed = float(np.mean([statistics.deltas(*pair)[0] for pair in sums]))
    return statistics.permutation(
        observed,
        lambda m: np.mean([statistics.shuffle(*part.pairs, m, rng) for part in parts], axis=0),
        draws,
        exact,
    )
