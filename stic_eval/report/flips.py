"""Rows that one of two variants does better than the other, with what both answered."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from stic_eval.errors import UserError
from stic_eval.report.compared_variants import Side
from stic_eval.report.runs import Entry, records_of
from stic_eval.store import read_jsonl

Which = Literal["all", "better", "worse"]


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
    return choose(read(a, b, benchmark), Choice())[0]


@dataclass(frozen=True)
class Choice:
    """Which rows of a benchmark are shown.

    Attributes:
        which: Those that B does better than A, worse, or both.
        number: How many at most, the largest change first; None: all.
        benchmark: Of this one alone; None: of all.
    """

    which: Which = "all"
    number: int | None = None
    benchmark: str | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a record says of a row and one side's answer; `share` is None where it has no verdict."""

    question: str
    target: Any
    images: Any
    unit: str
    share: float | None
    response: str
    description: str | None


@dataclass(frozen=True)
class PairedRecords:
    """A benchmark's records of both sides: for each of a side's entries, row -> answer."""

    a: Side
    b: Side
    benchmark: str
    answers: tuple[tuple[Mapping[str, _Answer], ...], tuple[Mapping[str, _Answer], ...]]


def read(a: Side, b: Side, benchmark: str, *, first: bool = False) -> PairedRecords:
    """Reads the records of both sides.

    Args:
        a: One side.
        b: The other.
        benchmark: Of which.
        first: Only of each side's first seed.

    Raises:
        UserError: Records are damaged.
    """
    most = 1 if first else None
    mine, theirs = (
        tuple(_records(side, entry, benchmark) for entry in side.entries[:most]) for side in (a, b)
    )
    return PairedRecords(a, b, benchmark, (mine, theirs))


def choose(records: PairedRecords, choice: Choice) -> tuple[list[Flip], int]:
    """The rows that are shown, the largest change first, and how many there are to choose from."""
    found = [
        (change, id_)
        for id_, change in _changes(records)
        if choice.which == "all" or (change > 0) == (choice.which == "better")
    ]
    number = len(found) if choice.number is None else choice.number
    shown = heapq.nsmallest(number, found, key=lambda pair: -abs(pair[0]))
    return [_flip(records, id_, change) for change, id_ in shown], len(found)


def _changes(records: PairedRecords) -> Iterator[tuple[str, float]]:
    """Rows whose score differs, as does that of the unit they belong to, and by how much."""
    mine, theirs = records.answers
    everything = [*mine, *theirs]
    for id_ in everything[0]:
        if not all(id_ in answers for answers in everything):
            continue
        sides = [[answers[id_].share for answers in side] for side in records.answers]
        known = [[share for share in side if share is not None] for side in sides]
        if known != sides or known[0] == known[1]:
            continue
        change = _mean(known[1]) - _mean(known[0])
        if abs(change) >= 1e-9 and _unit_change(records, mine[0][id_].unit, change) * change > 0:
            yield id_, change


def _flip(records: PairedRecords, id_: str, change: float) -> Flip:
    answers = tuple(
        SideAnswer(name, entry.seed, found.share, found.response, found.description)
        for name, side, by_entry in zip("AB", (records.a, records.b), records.answers, strict=True)
        for entry, found in zip(side.entries, (answers[id_] for answers in by_entry), strict=True)
        if found.share is not None  # none is of a row that differs
    )
    first = records.answers[0][0][id_]
    return Flip(records.benchmark, id_, change, first.question, first.target, answers)


def _unit_change(records: PairedRecords, unit: str, change: float) -> float:
    """How the unit changed that a row belongs to; `change` itself where rows are units of their own."""
    means = []
    for side in (records.a, records.b):
        pairs = [entry.summaries[records.benchmark].units.get(unit) for entry in side.entries]
        scored = [share for pair in pairs if pair is not None and (share := _share(*pair)) is not None]
        if len(scored) < len(side.entries):
            return change
        means.append(_mean(scored))
    return means[1] - means[0]


def _mean(values: Sequence[float]) -> float:
    # Of one seed, which most have, without the fractions that an exact mean goes through.
    return values[0] if len(values) == 1 else mean(values)


def _share(score: float | None, weight: float) -> float | None:
    return score / weight if score is not None and weight > 0 else None


def _records(side: Side, entry: Entry, benchmark: str) -> dict[str, _Answer]:
    """The answers of one evaluation by row; none if there is no such file."""
    path = records_of(side.run, entry, benchmark)
    found = {}
    for line, row in enumerate(read_jsonl(path), start=1):
        answer = _answer(row)
        if answer is None:
            raise UserError(f"{path}, line {line}: not a record of this program; run it again")
        found[str(row["id"])] = answer
    return found


def _answer(row: Mapping[str, Any]) -> _Answer | None:
    """What a record says; None if it is none of this program's."""
    if "id" not in row or "score" not in row or "target" not in row:
        return None
    score, weight, meta = row["score"], row.get("weight", 1.0), row.get("meta") or {}
    question, response, description = row.get("question"), row.get("response"), row.get("description")
    if not isinstance(question, str) or not isinstance(response, str):
        return None
    if not isinstance(description or "", str) or not isinstance(meta, dict):
        return None
    if not _is_number(weight) or not (score is None or _is_number(score)):
        return None
    unit = str(meta.get("unit", row["id"]))
    return _Answer(
        question, row["target"], row.get("images"), unit, _share(score, weight), response, description
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def check_same_rows(records: PairedRecords) -> list[str]:
    """Checks that two runs mean the same rows by the same ids, and says where that cannot be told.

    An image alone may differ, for it is named by its encoding, and a target alone, where a label was put
    right; both together are another row.
    """
    a, b, benchmark = records.a, records.b, records.benchmark
    mine, theirs = (answers[0] for answers in records.answers)
    title = a.columns[benchmark].title
    if not mine or not theirs:
        run = a.run if not mine else b.run
        return [f"{title}: {run} has no records, so no rows are shown."]
    changed = [id_ for id_, row in mine.items() if id_ in theirs and row.target != theirs[id_].target]
    for id_ in changed:
        if mine[id_].images != theirs[id_].images:
            raise UserError(
                f"{a.run} and {b.run} were asked different rows: {benchmark} {id_} has another image and "
                "another target; compare runs of the same rows"
            )
    return [f"{title}: {len(changed)} rows have another target in A than in B."] if changed else []
