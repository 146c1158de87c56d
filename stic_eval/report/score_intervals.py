"""How sure a score by itself is: 95 % intervals over test rows, for runs that are not compared in pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stic_eval.report import statistics
from stic_eval.types import Summary


@dataclass(frozen=True, slots=True)
class ScoreInterval:
    """A score's interval, in percent, and what an average's is made of.

    Attributes:
        error: Standard error, in points.
        df: Its degrees of freedom.
    """

    low: float
    high: float
    error: float
    df: float


def interval(summaries: Sequence[Summary]) -> ScoreInterval | None:
    """Of a benchmark's score, the mean over seeds: cluster-robust, with Student's t.

    It is about test rows alone; what another seed would come to is not in it.

    Returns:
        None where rows do not tell: a benchmark with a statistic of its own, a single cluster, seeds
        that were scored on different rows, or rows that all score the same.
    """
    if not summaries or any(one.resampled is not None for one in summaries):
        return None
    units = list(summaries[0].units)
    if len(units) < 2 or any(one.units.keys() != summaries[0].units.keys() for one in summaries):
        return None
    runs = np.array([[one.units[unit] for one in summaries] for unit in units], dtype=np.float64)
    if not (runs[..., 1].sum(axis=0) > 0).all():
        return None
    names: dict[str, int] = {}
    of = summaries[0].clusters or {}
    # A unit that is not named is a cluster of its own; its number is told from a cluster's name by its kind.
    keys = [f"cluster {of[unit]}" if unit in of else f"unit {unit}" for unit in units]
    runs = statistics.gathered(runs, np.array([names.setdefault(key, len(names)) for key in keys]))
    n = len(runs)
    if n < 2:
        return None
    error = math.sqrt(n / (n - 1) * float((statistics.influence(runs).mean(axis=1) ** 2).sum()))
    return _around(float(statistics.scores(runs).mean()), error, n - 1)


def average(scores: Sequence[float], parts: Sequence[ScoreInterval | None]) -> ScoreInterval | None:
    """Of the mean of several benchmarks' scores; None where one of them has no interval."""
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(scores):
        return None
    shares = [(part.error / len(scores)) ** 2 for part in known]
    df = sum(shares) ** 2 / sum(share**2 / part.df for share, part in zip(shares, known, strict=True))
    return _around(sum(scores) / len(scores), math.sqrt(sum(shares)), df)


def _around(score: float, error: float, df: float) -> ScoreInterval | None:
    if error < 1e-9:
        return None
    reach = error * statistics.quantile(1 - statistics.LEVEL / 2, df)
    high = score + reach
    return ScoreInterval(max(0.0, score - reach), min(100.0, high) if score <= 100 else high, error, df)
