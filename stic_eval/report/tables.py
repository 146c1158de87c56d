"""The side-by-side table: built once from summaries, then written in any format (`report.render`)."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any

from stic_eval.report.compare import Difference, compare, holm
from stic_eval.report.notes import describe
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
    def name(self) -> str:
        """Method and solver as printed, e.g. `STIC + DaR`."""
        return f"{self.title} + DaR" if self.dar else self.title

    @property
    def label(self) -> str:
        """As printed, e.g. `STIC + DaR`, of a cell `STIC + DaR, corruption=blur`."""
        return ", ".join([self.name, *self.settings_text(without=self._said())])

    def settings_text(self, without: Collection[str] = ()) -> list[str]:
        """An ablation's settings as `axis=value`, without those of some axes."""
        return [f"{axis}={setting(v)}" for axis, v in self.settings.items() if axis not in without]

    def _said(self) -> tuple[str, ...]:
        """Axes whose value the name says already: `+ DaR` is the axis dar."""
        return ("dar",) if self.settings.get("dar") == ("on" if self.dar else "off") else ()

    def average(self, columns: Sequence[Column]) -> float | None:
        """Mean over benchmarks and seeds, in percent; None unless every one of them has a score."""
        found = [s.score for column in columns for s in self.summaries.get(column.name, ())]
        whole = all(self.summaries.get(column.name) for column in columns) and None not in found
        return mean(score for score in found if score is not None) if found and whole else None


@dataclass(frozen=True, slots=True)
class Cell:
    """A score in percent: mean over seeds, spread, and distance to the reference.

    Attributes:
        score: None if nothing is scored.
        sd: Sample standard deviation over seeds; None with one.
        n: Units; None where that is not known (published figures, parts of a benchmark).
        unscored: Units without a verdict, in the seed with most.
        difference: To the reference; None for the reference itself and where no pair is left.
        complete: False marks a score over fewer units, or an average over fewer columns, than there are.
    """

    score: float | None
    sd: float | None = None
    n: int | None = None
    unscored: int = 0
    difference: Difference | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """A method with or without DaR, a cell of an ablation, or a published row.

    Attributes:
        variant: What was evaluated.
        cells: By column name; `average` is the last.
        heads: Texts of the leading columns.
        label: The row in one text, unique where rows are.
        published: Taken from a paper and not measured here: no units, no seeds, no differences.
    """

    variant: Variant
    cells: Mapping[str, Cell]
    heads: tuple[str, ...]
    label: str
    published: bool = False

    @property
    def average(self) -> Cell | None:
        """The average's cell; None in a table without one."""
        return self.cells.get(AVERAGE)


@dataclass(frozen=True, slots=True)
class Table:
    r"""Everything that any format prints.

    Attributes:
        columns: What is measured.
        averaged: Names of the columns that the average is taken over.
        rows: In the order printed.
        notes: For below the table.
        heads: Titles of the leading columns.
        average: Whether the last column is the average.
        caption: What the table shows, in a sentence.
        name: Short name, e.g. for LaTeX's `\label{tab:...}`.
        comparisons: How many p-values Holm's correction was over.
        hints: What command or flag shows more; for a terminal, not for a paper.
        benchmark: Of a breakdown: the benchmark whose parts the columns are.
        group: Of a breakdown: the group of labels, e.g. `capability`.
    """

    columns: tuple[Column, ...]
    averaged: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    heads: tuple[str, ...] = ("Method",)
    average: bool = True
    caption: str = ""
    name: str = "scores"
    comparisons: int = 0
    hints: tuple[str, ...] = ()
    benchmark: str = ""
    group: str = ""

    @property
    def unscored(self) -> int:
        """Units without a verdict, over all cells but the average's."""
        return sum(cell.unscored for row in self.rows for name, cell in row.cells.items() if name != AVERAGE)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """(name, title) of the columns with cells in them, the average's included."""
        found = [(column.name, column.title) for column in self.columns]
        return [*found, (AVERAGE, "Average")] if self.average else found


@dataclass(frozen=True, slots=True)
class Line:
    """A row before it is computed: a variant, what it is called, and what it is compared with."""

    variant: Variant
    heads: tuple[str, ...]
    reference: Variant | None
    label: str


def setting(value: Any) -> str:
    """A value as YAML and the command line write it: `true`, `0.5`, `blur`; in quotes where it must be."""
    plain = isinstance(value, str) and value.isprintable() and value == value.strip() != ""
    return str(value) if plain else json.dumps(value, ensure_ascii=False, default=str)


def baseline(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """The baseline that a variant is compared with: of its model, without DaR, and of no ablation's cell.

    Where there are baselines in cells alone, it is the one with most settings in common with the variant.
    """
    found = [v for v in variants if v.method == "baseline" and not v.dar and v.model == variant.model]

    def shared(base: Variant) -> tuple[bool, int]:
        same = sum(variant.settings.get(axis) == value for axis, value in base.settings.items())
        return not base.settings, same

    return max(found, key=shared) if found else None


def build(columns: Sequence[Column], variants: Sequence[Variant], notes: Sequence[str] = ()) -> Table:
    """Builds the plain table: a row for each variant, compared with its baseline, if there is one."""
    lines = [Line(v, (v.label,), baseline(v, variants), v.label) for v in variants]
    return assemble(columns, lines, notes)


def assemble(
    columns: Sequence[Column],
    lines: Sequence[Line],
    notes: Sequence[str] = (),
    *,
    heads: Sequence[str] = ("Method",),
    caption: str = "",
    name: str = "scores",
) -> Table:
    """Computes a table.

    The average is taken over the columns in which every row has a score, so that rows stay comparable; it
    is marked where that leaves a column out or a unit is unscored. P-values are corrected by Holm's
    procedure over all comparisons of the table, the average's included.
    """
    variants = [line.variant for line in lines]
    averaged = tuple(
        column.name
        for column in columns
        if all(v.summaries.get(column.name) for v in variants)
        and all(s.score is not None for v in variants for s in v.summaries[column.name])
    )
    rows, comparisons = _corrected([_row(line, columns, averaged) for line in lines], averaged)
    return Table(
        columns=tuple(columns),
        averaged=averaged,
        rows=rows,
        notes=(*describe(columns, averaged, rows, lines, comparisons), *notes),
        heads=tuple(heads),
        caption=caption or "Scores in percent.",
        name=name,
        comparisons=comparisons,
        hints=("`stic-eval compare` tests two rows by themselves, over fewer comparisons.",)
        if comparisons > 1
        else (),
    )


def _row(line: Line, columns: Sequence[Column], averaged: Sequence[str]) -> Row:
    variant, reference = line.variant, line.reference
    differences: dict[str, Difference] = {}
    average = None
    if reference is not None and variant is not reference:
        names = [column.name for column in columns]
        differences, average = _compare(reference, variant, names)
        if list(averaged) != names:
            average = _compare(reference, variant, averaged)[1]
        if not set(averaged) <= set(differences):
            average = None  # a difference over fewer benchmarks than the average itself would mislead
    cells: dict[str, Cell] = {}
    for column in columns:
        runs = variant.summaries.get(column.name, ())
        scores = [s.score for s in runs if s.score is not None]
        unscored = max((s.unscored for s in runs), default=0)
        cells[column.name] = Cell(
            score=mean(scores) if scores and len(scores) == len(runs) else None,
            sd=stdev(scores) if len(scores) > 1 and len(scores) == len(runs) else None,
            n=max((s.n for s in runs), default=None),
            unscored=unscored,
            difference=differences.get(column.name),
            complete=unscored == 0 and bool(scores),
        )
    by_seed = [
        mean(float(variant.summaries[name][i].score or 0.0) for name in averaged)  # none is None: `averaged`
        for i in range(max(1, len(variant.seeds)))
        if averaged
    ]
    cells[AVERAGE] = Cell(
        score=mean(by_seed) if by_seed else None,
        sd=stdev(by_seed) if len(by_seed) > 1 else None,
        n=sum(cells[name].n or 0 for name in averaged),
        unscored=sum(cells[name].unscored for name in averaged),
        difference=average,
        complete=len(averaged) == len(columns) and all(cells[name].complete for name in averaged),
    )
    return Row(variant, cells, line.heads, line.label)


def _compare(
    reference: Variant, variant: Variant, names: Sequence[str]
) -> tuple[dict[str, Difference], Difference | None]:
    theirs = {name: [s.units for s in reference.summaries.get(name, ())] for name in names}
    mine = {name: [s.units for s in variant.summaries.get(name, ())] for name in names}
    if set(reference.seeds) == set(variant.seeds):
        # Runs of one seed are paired, in whatever order they were made.
        order = [reference.seeds.index(seed) for seed in variant.seeds] or [0]
        theirs = {name: [units[i] for i in order] for name, units in theirs.items() if units}
    return compare(
        {name: units for name, units in theirs.items() if units},
        {name: units for name, units in mine.items() if units},
    )


def _corrected(rows: Sequence[Row], averaged: Sequence[str]) -> tuple[tuple[Row, ...], int]:
    """Rows with `p_holm` in their differences, and the size of the family."""

    def what(name: str) -> str:
        # The average over one benchmark is that benchmark's comparison, which counts once.
        return averaged[0] if name == AVERAGE and len(averaged) == 1 else name

    ps = {
        (at, what(name)): cell.difference.p
        for at, row in enumerate(rows)
        for name, cell in row.cells.items()
        if cell.difference is not None and not math.isnan(cell.difference.p)
    }
    adjusted = dict(zip(ps, holm(list(ps.values())), strict=True))

    def cell_of(at: int, name: str, cell: Cell) -> Cell:
        if cell.difference is None:
            return cell
        return replace(cell, difference=replace(cell.difference, p_holm=adjusted.get((at, what(name)))))

    found = [
        replace(row, cells={name: cell_of(at, name, cell) for name, cell in row.cells.items()})
        for at, row in enumerate(rows)
    ]
    return tuple(found), len(ps)
