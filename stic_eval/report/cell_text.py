"""How a table's cells read, in any format: texts, marks, and which is the best."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

from stic_eval.printable import printable
from stic_eval.report.table_rows import Cell
from stic_eval.report.tables import Table

NONE = "–"  # where there is no score; also "no" in a column of components
UNMOVED = "="
Rank = Literal["best", "second"]


def score_text(cell: Cell) -> str:
    """A score as printed: `51.5`, `51.5 ±0.8` over seeds, `51.5°` if incomplete, `–` without one."""
    mark = "" if cell.complete else "°"
    if cell.score is None:
        return f"{NONE}{mark}"
    spread = f" ±{points(cell.sd)}" if cell.sd is not None else ""
    return f"{points(cell.score)}{mark}{spread}"


def delta_text(cell: Cell) -> str:
    """A difference as printed, e.g. `+3.0*`, `+3.0§` if untested; empty for the reference."""
    return f"{points(cell.difference.delta, '+')}{cell.difference.mark}" if cell.difference else ""


def interval_text(cell: Cell) -> str:
    """A 95 % interval as printed, e.g. `[0.5, 5.5]`, `=` where no row differs; empty for the reference.

    Where there is a difference and no interval (a single cluster) it is empty as well.
    """
    found = cell.difference
    if found and found.unmoved:
        return UNMOVED
    return f"[{points(found.low)}, {points(found.high)}]" if found and math.isfinite(found.low) else ""


def points(value: float, sign: Literal["", "+"] = "") -> str:
    """Percentage points with one decimal; what rounds to zero has no minus.

    Rounded first to what sums of the same numbers in another order have in common: 72.15 is 72.2 either way.
    """
    return f"{round(round(value, 9), 1) + 0.0:{sign}.1f}"


def one_line(text: str) -> str:
    """A title or note as one line without control characters."""
    return printable(" ".join(text.split()))


def markdown(text: str) -> str:
    """A text as one line that Markdown shows as it is, mathematics of GitHub's included."""
    return re.sub(r"([\\`*_\[\]<>|~&$#])", r"\\\1", one_line(text))


def ranks(table: Table) -> Mapping[tuple[int, str], Rank]:
    """(row, column) of the best and second-best scores, as far as the printed digits tell them apart.

    Ties share a rank, and two that are best leave no second. Published rows, scores over fewer units than
    there are and columns in which all are the same have no rank.
    """
    found: dict[tuple[int, str], Rank] = {}
    for name, _ in table.fields:
        scores = {
            at: round(cell.score, 1)
            for at, row in enumerate(table.rows)
            if not row.published and (cell := row.cells[name]).score is not None and not cell.unscored
        }
        order = sorted(scores.values(), reverse=True)
        if not order or order[0] == order[-1]:
            continue
        for at, score in scores.items():
            if score == order[0]:
                found[at, name] = "best"
            elif score == order[1]:
                found[at, name] = "second"
    return found
