"""Paired comparisons: how far a method is from a base, and how sure that is.

Both answered the same test rows, so that rows are paired (Efron and Tibshirani 1993, ch. 16; for
evaluation of language tasks Koehn 2004). A benchmark's score is a ratio `100 * sum(value) / sum(weight)`;
the average is the mean of the benchmarks' percentages, resampled and exchanged within each benchmark
(stratified). With several training seeds the estimate is the mean over seeds, and everything that says
how sure it is also has a Student t in it, scaled by the standard error over seeds: seeds are few, and
resampling them would claim too much. docs/statistics.md has the formulas.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stic_eval.report import statistics

Units = Mapping[str, tuple[float, float]]
N_RESAMPLES = 10_000

MCNEMAR = "exact McNemar"
PERMUTATION = "permutation"
PERMUTATION_WITH_SEEDS = "permutation with seeds"


@dataclass(frozen=True, slots=True)
class Difference:
    """A method's distance to the base, in percentage points.

    Attributes:
        delta: Mean over seeds of (method - base) on the units that all runs of both have a verdict for.
        low: Lower end of the 95 % percentile interval.
        high: Upper end.
        n: Units in the pairing.
        p: Two-sided p-value of no difference, uncorrected.
        test: What gave it: `exact McNemar`, `permutation` or `permutation with seeds`.
        better: Units that the method does better than the base (wrong to right), mean over seeds.
        worse: Units that it does worse.
        detectable: Smallest difference that such a pairing finds with 80 % power at 5 %, in points. NaN if
            that cannot be said, as no unit differs.
        p_holm: `p` after Holm's correction over the comparisons of a table; None before.
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

    @property
    def mark(self) -> str:
        """`*` if the p-value is below 0.05, `**` below 0.01; Holm's if there is one, else the plain one."""
        p = self.p if self.p_holm is None else self.p_holm
        return "**" if p < 0.01 else "*" if p < 0.05 else ""


def percent(units: Units) -> float:
    """Score of a set of units, `100 * sum(value) / sum(weight)`; NaN without any weight."""
    weight = sum(w for _, w in units.values())
    return 100.0 * sum(v for v, _ in units.values()) / weight if weight else float("nan")


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of p-values (Holm 1979).

    The k-th smallest of m is multiplied by m - k + 1, and none ends below a smaller one. Rejecting where the
    result is below a level keeps the chance of any false rejection in the family below it, whatever the
    tests depend on.

    Returns:
        Adjusted p-values in the order given, at most 1. NaN stays NaN and is no member of the family.
    """
    ranked = sorted((p, at) for at, p in enumerate(ps) if not math.isnan(p))
    adjusted = [float("nan")] * len(ps)
    least = 0.0
    for rank, (p, at) in enumerate(ranked):
        least = max(least, min(1.0, p * (len(ranked) - rank)))
        adjusted[at] = least
    return adjusted


def compare(
    base: Mapping[str, Units | Sequence[Units]],
    method: Mapping[str, Sequence[Units]],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> tuple[dict[str, Difference], Difference | None]:
    """Compares a method, evaluated once per training seed, with a base.

    Args:
        base: Benchmark -> units, or units for each seed. Equally many seeds as the method's are paired in
            their order; else the base's mean over seeds is compared with the method's.
        method: Benchmark -> units for each seed. On each side all benchmarks have the same number of seeds.
        n_resamples: Bootstrap resamples.
        seed: Seeds resampling and exchanges, together with the benchmark's name: results do not depend on
            which other benchmarks or methods are compared.

    Returns:
        A difference for every benchmark with units in common, and the average's (None without any).
    """
    parts = {}
    for name in method:
        if name in base:
            units = base[name]
            part = _part([units] if isinstance(units, Mapping) else units, method[name])
            if part is not None:
                parts[name] = part
    differences = {}
    drawn = []
    for name, part in parts.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        draws = statistics.resample(*part.pairs, n_resamples, rng)
        drawn.append(draws)
        differences[name] = _difference([part], draws, rng)
    if len(parts) < 2:
        return differences, next(iter(differences.values()), None)
    rng = np.random.default_rng([seed, zlib.crc32(b"average")])
    return differences, _difference(list(parts.values()), np.mean(drawn, axis=0), rng)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A benchmark: scores by run of the base and of the method, its pairs of units, and how units differ.

    `binary` says that one run meets one run and every unit is right or wrong.
    """

    scores: tuple[statistics.Array, statistics.Array]
    pairs: tuple[statistics.Array, statistics.Array]
    better: float
    worse: float
    binary: bool


def _part(base: Sequence[Units], method: Sequence[Units]) -> _Part | None:
    """Puts the units that all runs have into arrays; None if they have none with weight in common."""
    runs = [*base, *method]
    shared = sorted(set(runs[0]).intersection(*runs[1:])) if base and method else []
    if not shared:
        return None
    table = np.array([[run[unit] for run in runs] for unit in shared], dtype=np.float64)
    if not (table[..., 1].sum(axis=0) > 0).all():
        return None
    a, b = table[:, : len(base)], table[:, len(base) :]
    if a.shape[1] == b.shape[1]:
        ratios = b[..., 0] * a[..., 1] - a[..., 0] * b[..., 1]
    else:
        ratios = b[:, None, :, 0] * a[:, :, None, 1] - a[:, :, None, 0] * b[:, None, :, 1]
        ratios = ratios.reshape(len(shared), -1)
    return _Part(
        scores=(statistics.scores(a), statistics.scores(b)),
        pairs=statistics.paired(a, b),
        better=float((ratios > 0).sum(axis=0).mean()),
        worse=float((ratios < 0).sum(axis=0).mean()),
        binary=len(runs) == 2 and bool((table[..., 1] == 1).all() and np.isin(table[..., 0], (0, 1)).all()),
    )


def _difference(parts: Sequence[_Part], draws: statistics.Array, rng: np.random.Generator) -> Difference:
    """The difference of one benchmark, or the average's, from the bootstrap draws of it."""
    base, method = (np.mean([part.scores[side] for part in parts], axis=0) for side in (0, 1))
    delta = float(method.mean() - base.mean())
    seed_error, df = statistics.seed_error(base, method)
    if seed_error > 0:
        draws = draws + seed_error * rng.standard_t(df, size=len(draws))
    low, high = (float(x) for x in np.percentile(draws, [2.5, 97.5]))
    better, worse = sum(part.better for part in parts), sum(part.worse for part in parts)
    if len(parts) == 1 and parts[0].binary:
        test, p = MCNEMAR, statistics.mcnemar(round(better), round(worse))
    else:
        test = PERMUTATION_WITH_SEEDS if seed_error > 0 else PERMUTATION
        p = statistics.permutation(
            delta,
            lambda m: np.mean([statistics.shuffle(*part.pairs, m, rng) for part in parts], axis=0),
            seed_error,
            df,
        )
    errors = [statistics.unit_error(*part.pairs) for part in parts]
    unit_error = math.sqrt(sum(error**2 for error in errors)) / len(parts)
    return Difference(
        delta, low, high, sum(len(part.pairs[0]) for part in parts), p, test, better, worse,
        statistics.detectable(unit_error, seed_error, df),
    )  # fmt: skip
