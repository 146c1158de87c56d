"""The side-by-side table: built once from summaries, then written as text, md, tex, csv, json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from stic_eval.report.compare import N_RESAMPLES, Difference, compare
from stic_eval.types import Summary

AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Column:
    """A benchmark as a column: registry name, printed title, protocol, and who grades it."""

    name: str
    title: str
    protocol: str = ""
    grader: str = ""


@dataclass(frozen=True, slots=True)
class Variant:
    """One evaluated row of the table.

    Attributes:
        method: Registry name.
        title: Printed name.
        dar: Whether answers came from describe-and-respond.
        seeds: Training seeds in the order of the summaries; empty for what is not trained.
        summaries: Benchmark -> one summary per seed (one in all for what is not trained).
        settings: Of an ablation's cell: axis -> value.
        model: What was evaluated; variants are compared with the baseline of their own model.
    """

    method: str
    title: str
    dar: bool
    seeds: tuple[int, ...]
    summaries: Mapping[str, Sequence[Summary]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""

    @property
    def label(self) -> str:
        """As printed, e.g. `STIC + DaR`, of a cell `STIC + DaR, corruption=blur`."""
        parts = [f"{self.title} + DaR" if self.dar else self.title]
        return ", ".join([*parts, *(f"{axis}={value}" for axis, value in self.settings.items())])


@dataclass(frozen=True, slots=True)
class Cell:
    """A score in percent: mean over seeds, spread, and distance to the baseline.

    Attributes:
        score: None if nothing is scored.
        sd: Sample standard deviation over seeds; None with one.
        n: Units.
        unscored: Units without a verdict, in the seed with most.
        difference: To the baseline; None for the baseline itself and where no pair is left.
        complete: False marks a score over fewer units, or an average over fewer columns, than there are.
    """

    score: float | None
    sd: float | None
    n: int
    unscored: int
    difference: Difference | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A method with or without DaR, and its cells by column name (`average` is the last)."""

    variant: Variant
    cells: Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that any format prints."""

    columns: tuple[Column, ...]
    averaged: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def unscored(self) -> int:
        """Units without a verdict, over all cells but the average's."""
        return sum(cell.unscored for row in self.rows for name, cell in row.cells.items() if name != AVERAGE)


def build(columns: Sequence[Column], variants: Sequence[Variant], notes: Sequence[str] = ()) -> Table:
    """Builds the table. The baseline is the variant called `baseline` without DaR, if there is one.

    The average is taken over the columns in which every row has a score, so that rows stay
    comparable; it is marked where that leaves a column out or a unit is unscored.
    """
    base = next((v for v in variants if v.method == "baseline" and not v.dar), None)
    scored = {
        column.name
        for column in columns
        if all(s.score is not None for v in variants for s in v.summaries.get(column.name, ()))
        and all(v.summaries.get(column.name) for v in variants)
    }
    averaged = tuple(column.name for column in columns if column.name in scored)
    rows = tuple(_row(variant, base, columns, averaged) for variant in variants)
    return Table(tuple(columns), averaged, rows, (*_notes(columns, averaged, rows, base), *notes))


def _row(variant: Variant, base: Variant | None, columns: Sequence[Column], averaged: Sequence[str]) -> Row:
    differences: dict[str, Difference] = {}
    average_difference = None
    if base is not None and variant is not base:
        names = [column.name for column in columns]
        differences, average_difference = _compare(base, variant, names)
        if list(averaged) != names:
            average_difference = _compare(base, variant, averaged)[1]
    cells: dict[str, Cell] = {}
    for column in columns:
        runs = variant.summaries.get(column.name, ())
        scores = [s.score for s in runs if s.score is not None]
        unscored = max((s.unscored for s in runs), default=0)
        cells[column.name] = Cell(
            score=mean(scores) if scores and len(scores) == len(runs) else None,
            sd=stdev(scores) if len(scores) > 1 else None,
            n=max((s.n for s in runs), default=0),
            unscored=unscored,
            difference=differences.get(column.name),
            complete=unscored == 0,
        )
    by_seed = [
        mean(float(variant.summaries[name][i].score or 0.0) for name in averaged)
        for i in range(max(1, len(variant.seeds)))
        if averaged
    ]
    cells[AVERAGE] = Cell(
        score=mean(by_seed) if by_seed else None,
        sd=stdev(by_seed) if len(by_seed) > 1 else None,
        n=sum(cells[name].n for name in averaged),
        unscored=sum(cells[name].unscored for name in averaged),
        difference=average_difference,
        complete=len(averaged) == len(columns) and all(cells[name].complete for name in averaged),
    )
    return Row(variant, cells)


def _compare(
    base: Variant, variant: Variant, names: Sequence[str]
) -> tuple[dict[str, Difference], Difference | None]:
    mine = {name: [s.units for s in variant.summaries[name]] for name in names if variant.summaries.get(name)}
    theirs = {name: base.summaries[name][0].units for name in names if base.summaries.get(name)}
    return compare(theirs, mine)


def _notes(
    columns: Sequence[Column], averaged: Sequence[str], rows: Sequence[Row], base: Variant | None
) -> list[str]:
    notes = ["Scores in percent."]
    if base is not None and len(rows) > 1:
        notes.append(
            f"Below a score: difference to {base.label} in points, and its 95 % interval (paired bootstrap "
            f"over test rows, {N_RESAMPLES:,} resamples, stratified by benchmark for the average); "
            "* the 95 % interval leaves out zero, ** the 99 % interval does."
        )
    seeds = sorted({seed for row in rows for seed in row.variant.seeds})
    if len(seeds) > 1:
        notes.append(
            f"Trained methods: mean over training seeds {', '.join(map(str, seeds))}, (±) standard deviation "
            "over them; intervals add the seeds' standard error as a Student t draw to every resample."
        )
    elif seeds:
        notes.append(f"One training seed ({seeds[0]}): intervals cover test rows, not training luck.")
    left_out = [column.title for column in columns if column.name not in averaged]
    average = f"Average: mean of the {len(averaged)} benchmarks' percentages"
    notes.append(
        average + (f", without {', '.join(left_out)} (not scored in every row)." if left_out else ".")
    )
    if any(not cell.complete for row in rows for cell in row.cells.values()):
        notes.append("† incomplete: unscored rows or columns are left out, never counted as 0.")
    for column in columns:
        counts = sorted({row.cells[column.name].n for row in rows})
        unscored = max((row.cells[column.name].unscored for row in rows), default=0)
        parts = [f"n = {'/'.join(map(str, counts))}"]
        parts += [f"{unscored} unscored"] if unscored else []
        parts += [column.protocol] if column.protocol else []
        parts += [column.grader] if column.grader else []
        parts += _share_judged(column.name, rows)
        notes.append(f"{column.title}: {'; '.join(parts)}.")
    return notes


def _share_judged(column: str, rows: Sequence[Row]) -> list[str]:
    """What share of the answers a judge decided, as part of a note; nothing where none did."""
    summaries = [summary for row in rows for summary in row.variant.summaries.get(column, ())]
    if not any(summary.judged for summary in summaries):
        return []
    shares = sorted({f"{100 * s.judged / s.answers:.1f}" for s in summaries if s.answers}, key=float)
    span = shares[0] if len(shares) == 1 else f"{shares[0]} to {shares[-1]}"
    said = [f"the judge decided {span} % of the answers"]
    spreads = [stdev(summary.gradings) for summary in summaries if len(summary.gradings) > 1]
    if spreads:
        said.append(f"its repeated gradings differ by a standard deviation of up to {max(spreads):.1f}")
    return said
