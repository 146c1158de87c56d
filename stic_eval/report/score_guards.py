"""Scores that cannot tell rows apart: constant answers, all or no rows right, and no row that differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stic_eval.types import Summary

if TYPE_CHECKING:
    from stic_eval.report.paired_comparison import Difference
    from stic_eval.report.table_rows import Column, TableRow

SIGN = "¶"
CEILING = "at the ceiling"
LEAST = 20  # units: fewer may all be right, or wrong, by chance
_ROUNDING = 0.05  # points
_MOST = 0.5  # of the answers empty or cut, from which on it is said
_NAMED = 3  # rows


def guard(summaries: Sequence[Summary]) -> str:
    """Why a score, of all of its training seeds, says little; empty where it may be taken as it is."""
    found = [_of_one(summary) for summary in summaries]
    return found[0] if found and all(found) else ""


def _of_one(summary: Summary) -> str:
    units = summary.units.values()
    if len(units) >= LEAST and all(weight == 1 and value >= 1 for value, weight in units):
        return CEILING
    if summary.constant:
        return f"constant answer {summary.constant}"
    if len(units) >= LEAST and all(value <= 0 for value, _ in units):
        return "no row right"
    best, score = summary.best_constant, summary.score
    if best is not None and score is not None and abs(score - best[1]) <= _ROUNDING:
        return f"what always answering {best[0]} scores"
    return ""


def notes(columns: Sequence[Column], averaged: Sequence[str], rows: Sequence[TableRow]) -> list[str]:
    """What the sign at a column's head stands for; nothing where no column has it."""
    found = {column.name: texts for column in columns if (texts := reasons(column.name, rows))}
    if not found:
        return []
    titles = {column.name: column.title for column in columns}
    listed = "; ".join(f"{titles[name]}: {', '.join(texts)}" for name, texts in found.items())
    inside = sum(name in averaged for name in found)
    average = f" The average holds {inside} such column{'' if inside == 1 else 's'}." if inside else ""
    return [
        f"{SIGN} {listed}: such scores cannot tell rows apart, and a difference between two of them is not "
        f"tested, except to the ceiling.{average}"
    ]


def reasons(name: str, rows: Sequence[TableRow]) -> list[str]:
    """Why a column is marked, each reason with the rows that it is true of, unless of all."""
    measured = [row for row in rows if not row.published and row.cells[name].score is not None]
    labels: dict[str, list[str]] = {}
    for row in measured:
        if reason := row.cells[name].guard:
            labels.setdefault(reason, []).append(row.label)
    texts = []
    for reason, of in labels.items():
        few = ", ".join(of) if len(of) <= _NAMED else f"{len(of)} of {len(measured)} rows"
        texts.append(reason if len(of) == len(measured) else f"{reason} ({few})")
    return texts


def answers(column: str, rows: Sequence[TableRow]) -> list[str]:
    """Whether most answers of a row are empty or cut, the most in a row; nothing where that is not so."""
    summaries = [s for row in rows for s in row.variant.summaries.get(column, ()) if s.answers]
    texts = []
    for what, share in (
        ("empty", max((s.blank / s.answers for s in summaries), default=0.0)),
        ("cut at their bound", max((s.cut / s.answers for s in summaries), default=0.0)),
    ):
        texts += [f"up to {100 * share:.0f} % of a row's answers are {what}"] if share >= _MOST else []
    return texts


def without_test(found: Difference, a: Sequence[Summary], b: Sequence[Summary]) -> Difference:
    """A difference without its test where neither side's score says anything."""
    return replace(found, p=float("nan"), test="") if _inseparable(guard(a), guard(b)) else found


def _inseparable(a: str, b: str) -> bool:
    """Whether both sides say little, and not one of them because all of its rows are right."""
    return bool(a and b) and (a == CEILING) == (b == CEILING)


def between(title: str, a: Sequence[Summary], b: Sequence[Summary]) -> str:
    """What a comparison of A and B says of their scores; empty where both may be taken as they are."""
    guarded = {name: reason for name, one in (("A", a), ("B", b)) if (reason := guard(one))}
    if _inseparable(guarded.get("A", ""), guarded.get("B", "")):
        reasons_ = "; ".join(f"{name}: {reason}" for name, reason in guarded.items())
        return f"{title}: such scores cannot tell A and B apart ({reasons_})."
    parts = [f"{name}'s score says little by itself ({reason})" for name, reason in guarded.items()]
    return f"{title}: {', '.join(parts)}." if parts else ""


def untested_average(average: Difference, benchmarks: Iterable[Difference]) -> Difference:
    """The average without its test where none of its benchmarks has one."""
    return average if any(d.test for d in benchmarks) else replace(average, p=float("nan"), test="")


def unmoved_notes(differences: Sequence[Difference]) -> list[str]:
    """What benchmarks without a differing row leave open, by their number of rows; nothing without any."""
    found = sorted({(d.clusters, d.n): bound(d) for d in differences if d.unmoved}.items())
    if not found:
        return []
    parts = ", ".join(text for _, text in found)
    return [f"= no row's score differs; {parts} may differ (95 %)."]


def bound(d: Difference) -> str:
    """How large a share may differ though none here does: of rows, or of clusters where rows lie in such.

    Of clusters it is no bound in points, as those that differ may be large ones.
    """
    if 0 < d.clusters < d.n:
        return f"up to {d.unseen:.1f} % of clusters like these {d.clusters:,}, of {d.n:,} rows"
    return f"up to {d.unseen:.1f} % of rows like these {d.n:,}"
