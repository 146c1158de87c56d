"""Rows that one of two variants does better than the other, with what both answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from stic_eval.errors import UserError
from stic_eval.report.compared_variants import Side
from stic_eval.report.runs import Entry, records_of
from stic_eval.store import read_jsonl


@dataclass(frozen=True)
class SideAnswer:
    """What one side answered with one seed; `score` is a share of the row's weight."""

    side: str
    seed: int | None
    score: float
    response: str
    description: str | None


@dataclass(frozen=True)
class Flip:
    """A row that one side does better than the other; `change` is B minus A, the mean over seeds."""

    benchmark: str
    id: str
    change: float
    question: str
    target: Any
    answers: tuple[SideAnswer, ...]


def flips(a: Side, b: Side, benchmark: str) -> list[Flip]:
    """Rows that one side does better than the other, the largest change first.

    Where units are groups of rows (circular evaluation), these are the rows behind the units that changed.
    Empty without records.

    Raises:
        UserError: Records are damaged.
    """
    sides = [[(e, _records(side, e, benchmark)) for e in side.entries] for side in (a, b)]
    everything = [records for side in sides for _, records in side]
    found = []
    for id_ in everything[0]:
        if not all(id_ in records for records in everything):
            continue
        rows = [[(entry, records[id_]) for entry, records in side] for side in sides]
        shares = [[_share(row["score"], row["weight"]) for _, row in side] for side in rows]
        known = [[share for share in side if share is not None] for side in shares]
        if known != shares:
            continue
        change = mean(known[1]) - mean(known[0])
        if abs(change) < 1e-9 or _unit_change(rows, change, benchmark) * change <= 0:
            continue
        answers = [
            SideAnswer(name, entry.seed, share, row["response"], row.get("description"))
            for name, side, scores in zip("AB", rows, known, strict=True)
            for (entry, row), share in zip(side, scores, strict=True)
        ]
        first = rows[0][0][1]
        found.append(Flip(benchmark, id_, change, first["question"], first["target"], tuple(answers)))
    return sorted(found, key=lambda flip: -abs(flip.change))


def _unit_change(
    rows: Sequence[Sequence[tuple[Entry, Mapping[str, Any]]]], change: float, benchmark: str
) -> float:
    """How the unit changed that a row belongs to; `change` itself where rows are units of their own."""
    unit = str((rows[0][0][1].get("meta") or {}).get("unit", rows[0][0][1]["id"]))
    means = []
    for side in rows:
        pairs = [entry.summaries[benchmark].units.get(unit) for entry, _ in side]
        shares = [_share(*pair) for pair in pairs if pair is not None]
        scored = [share for share in shares if share is not None]
        if len(scored) < len(side):
            return change
        means.append(mean(scored))
    return means[1] - means[0]


def _share(score: float | None, weight: float) -> float | None:
    return score / weight if score is not None and weight > 0 else None


def _records(side: Side, entry: Entry, benchmark: str) -> dict[str, dict[str, Any]]:
    """The records of one evaluation by id; none if there is no such file."""
    path = records_of(side.run, entry, benchmark)
    found = {}
    for line, row in enumerate(read_jsonl(path), start=1):
        row.setdefault("weight", 1.0)
        numbers = (row.get("score") or 0.0, row["weight"])
        texts = (row.get("question"), row.get("response"), row.get("description") or "")
        if (
            not {"id", "score", "target"} <= set(row)
            or not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers)
            or not all(isinstance(x, str) for x in texts)
            or not isinstance(row.get("meta") or {}, dict)
        ):
            raise UserError(f"{path}, line {line}: is no record of this program; run it again")
        found[str(row["id"])] = row
    return found


def check_same_rows(a: Side, b: Side, benchmark: str) -> list[str]:
    """Checks that two runs mean the same rows by the same ids, and says where that cannot be told.

    An image alone may differ, for it is named by its encoding, and a target alone, where a label was put
    right; both together are another row.
    """
    mine, theirs = (_records(side, side.entries[0], benchmark) for side in (a, b))
    title = a.columns[benchmark].title
    if not mine or not theirs:
        run = a.run if not mine else b.run
        return [f"{title}: {run} has no records, so that no rows are shown."]
    changed = [id_ for id_, row in mine.items() if id_ in theirs and row["target"] != theirs[id_]["target"]]
    for id_ in changed:
        if mine[id_].get("images") != theirs[id_].get("images"):
            raise UserError(
                f"{a.run} and {b.run} were asked different rows: {benchmark} {id_} has another image and "
                "another target; compare runs of the same rows"
            )
    return [f"{title}: {len(changed)} rows have another target in A than in B."] if changed else []
