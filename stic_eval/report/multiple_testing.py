"""Which of a table's comparisons may be marked: averages first, a row's benchmarks behind its average.

The averages of all rows are one family, corrected by Holm's procedure. A row's benchmarks are a family of
their own, corrected by Holm's procedure within the row, and tested only behind a rejected average: their
corrected p is never below the average's. At a level of 5 %, the chance of any false mark among the
averages of a table is at most 5 %, and so is that of any false mark in a row, average or benchmark, whatever
is true of the others and however tests depend on each other. Over the benchmarks of all rows together it is
not: among m rows whose averages are marked, 0.05 m rows with a false mark are to be expected at most.
docs/statistics.md has the proof.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PValues:
    """A row's p-values.

    Attributes:
        average: Of the average, which opens the way to the benchmarks; None where the row has none. Then k
            times the smallest of its k benchmarks' p-values takes its place.
        benchmarks: Of the benchmarks; NaN is not tested.
    """

    average: float | None
    benchmarks: Mapping[str, float]

    @property
    def gate(self) -> float:
        """The p-value of no difference in this row; NaN if nothing of it is tested."""
        if self.average is not None and not math.isnan(self.average):
            return self.average
        found = [p for p in self.benchmarks.values() if not math.isnan(p)]
        return min(1.0, len(found) * min(found)) if found else float("nan")


def correct(rows: Sequence[PValues]) -> list[PValues]:
    """The p-values of a table's rows, corrected; a mark is given where one is below its level."""
    gates = holm([row.gate for row in rows])
    found = []
    for row, gate in zip(rows, gates, strict=True):
        within = holm(list(row.benchmarks.values()))
        benchmarks = {
            name: p if math.isnan(p) else max(p, gate) for name, p in zip(row.benchmarks, within, strict=True)
        }
        found.append(PValues(None if row.average is None else gate, benchmarks))
    return found


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
