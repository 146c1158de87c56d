"""The side-by-side table: built once from summaries, then written in any format (`report.table_formats`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from stic_eval.report import multiple_testing, score_guards
from stic_eval.report.paired_comparison import DESCRIPTION, SEED, Difference, compare
from stic_eval.report.table_notes import describe
from stic_eval.report.table_rows import (
    AVERAGE,
    Cell,
    Column,
    EvaluatedVariant,
    PlannedRow,
    TableRow,
    check,
)
from stic_eval.types import Summary


@dataclass(frozen=True, slots=True)
class Table:
    r"""Everything that any format prints.

    Attributes:
        averaged: Names of the columns that the average is taken over.
        rows: In the order printed.
        average: Whether the last column is the average.
        name: Short name, e.g. for LaTeX's `\label{tab:...}`.
        comparisons: How many averages are tested: the family that Holm's correction is over.
        hints: What command or flag shows more; for a terminal, not for a paper.
        benchmark: Of a breakdown: the benchmark whose parts the columns are.
        group: Of a breakdown: the group of labels, e.g. `capability`.
    """

    columns: tuple[Column, ...]
    averaged: tuple[str, ...]
    rows: tuple[TableRow, ...]
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
        """(name, title) of the columns with cells in them, guarded ones marked, the average's included."""
        guarded = {column.name for column in self.columns if score_guards.reasons(column.name, self.rows)}
        found = [
            (column.name, f"{column.title} {score_guards.SIGN}" if column.name in guarded else column.title)
            for column in self.columns
        ]
        return [*found, (AVERAGE, "Average")] if self.average else found


# Comparisons that have been made: summaries by identity -> these summaries, and what came out.
Known = dict[tuple[object, ...], tuple[object, tuple[dict[str, Difference], Difference | None]]]


def baseline(variant: EvaluatedVariant, variants: Sequence[EvaluatedVariant]) -> EvaluatedVariant | None:
    """The baseline that a variant is compared with: of its model, without DaR, and of no ablation's cell.

    Where there are baselines in cells alone, it is the one with most settings in common with the variant.
    """
    found = [v for v in variants if v.method == "baseline" and v.solver.plain and v.model == variant.model]

    def similarity(base: EvaluatedVariant) -> tuple[bool, int]:
        same = sum(variant.settings.get(axis) == value for axis, value in base.settings.items())
        return not base.settings, same

    return max(found, key=similarity) if found else None


def build(
    columns: Sequence[Column],
    variants: Sequence[EvaluatedVariant],
    notes: Sequence[str] = (),
    known: Known | None = None,
) -> Table:
    """Builds the plain table: a row for each variant, compared with its baseline, if there is one."""
    lines = [PlannedRow(v, (v.label,), baseline(v, variants), v.label) for v in variants]
    return assemble(columns, lines, notes, known=known)


def assemble(
    columns: Sequence[Column],
    lines: Sequence[PlannedRow],
    notes: Sequence[str] = (),
    *,
    heads: Sequence[str] = ("Method",),
    caption: str = "",
    name: str = "scores",
    known: Known | None = None,
) -> Table:
    """Computes a table.

    The average is taken over the columns in which every row has a score, so that rows stay comparable; it
    is marked where that leaves a column out or a unit is unscored. P-values are corrected as
    `stic_eval.report.multiple_testing` says: averages first, a row's benchmarks behind its average.

    Args:
        columns: Its benchmarks.
        lines: Its rows.
        notes: What is said below it beside what it says of itself.
        heads: Of the leading columns.
        caption: Empty: one that says no more than that these are scores.
        name: Of the table.
        known: Comparisons of tables before, of the same results, are taken from there, and others added.

    Raises:
        UserError: A benchmark's score is not what its units come to.
    """
    variants = [line.variant for line in lines]
    for variant in variants:
        for column in columns:
            check(column.title, variant.summaries.get(column.name, ()))
    averaged = tuple(
        column.name
        for column in columns
        if all(v.summaries.get(column.name) for v in variants)
        and all(s.score is not None for v in variants for s in v.summaries[column.name])
    )
    known = {} if known is None else known
    computed = [_row(line, columns, averaged, known) for line in lines]
    rows, comparisons = _correct_for_tests(computed, averaged)
    return Table(
        columns=tuple(columns),
        averaged=averaged,
        rows=rows,
        notes=(*describe(columns, averaged, rows, lines, comparisons), *notes),
        heads=tuple(heads),
        caption=caption or "Scores in percent.",
        name=name,
        comparisons=comparisons,
        hints=("`stic-eval compare` tests two rows by themselves.",) if comparisons > 1 else (),
    )


def lacking(base: EvaluatedVariant, method: EvaluatedVariant) -> str:
    """What a comparison of two variants has one of, of a kind that luck decides; see `Difference.lacks`."""
    sides = base, method
    # An adapter without a seed was given, and is one training as well.
    if any(len(side.seeds) == 1 or (side.has_adapter and not side.seeds) for side in sides):
        return SEED

    def blind(side: EvaluatedVariant) -> bool:
        runs = [summary for summaries in side.summaries.values() for summary in summaries]
        return len(side.seeds) < 2 and any(run.descriptions == 1 < run.n for run in runs)

    return DESCRIPTION if any(blind(side) for side in sides) else ""


def _row(line: PlannedRow, columns: Sequence[Column], averaged: Sequence[str], known: Known) -> TableRow:
    variant = line.variant
    names = [column.name for column in columns]
    differences, average = _differences(line.reference, variant, names, averaged, known)
    cells = {name: _cell(variant.summaries.get(name, ()), differences.get(name)) for name in names}
    by_seed = [
        mean(float(variant.summaries[name][i].score or 0.0) for name in averaged)  # none is None: `averaged`
        for i in range(max(1, len(variant.seeds)))
        if averaged
    ]
    cells[AVERAGE] = Cell(
        score=mean(by_seed) if by_seed else None,
        sd=stdev(by_seed) if len(by_seed) > 1 else None,
        n=sum(cells[name].n or 0 for name in averaged),
        clusters=sum(cells[name].clusters or 0 for name in averaged),
        unscored=sum(cells[name].unscored for name in averaged),
        difference=average,
        complete=len(averaged) == len(columns) and all(cells[name].complete for name in averaged),
    )
    return TableRow(variant, cells, line.heads, line.label)


def _differences(
    reference: EvaluatedVariant | None,
    variant: EvaluatedVariant,
    names: Sequence[str],
    averaged: Sequence[str],
    known: Known,
) -> tuple[dict[str, Difference], Difference | None]:
    """The differences of a row by benchmark, and its average's; none for the reference itself."""
    if reference is None or variant is reference:
        return {}, None
    found, average = _compare(reference, variant, names, known)
    if list(averaged) != list(names):
        average = _compare(reference, variant, averaged, known)[1]
    differences = {
        name: score_guards.without_test(one, reference.summaries[name], variant.summaries[name])
        for name, one in found.items()
    }
    if average is None or not set(averaged) <= set(differences):
        return differences, None  # over fewer benchmarks than the average itself it would mislead
    return differences, score_guards.untested_average(average, [differences[name] for name in averaged])


def _cell(runs: Sequence[Summary], difference: Difference | None) -> Cell:
    scores = [s.score for s in runs if s.score is not None]
    unscored = max((s.unscored for s in runs), default=0)
    return Cell(
        score=mean(scores) if scores and len(scores) == len(runs) else None,
        sd=stdev(scores) if len(scores) > 1 and len(scores) == len(runs) else None,
        n=max((s.n for s in runs), default=None),
        clusters=max((n_clusters(s) for s in runs), default=None),
        unscored=unscored,
        difference=difference,
        complete=unscored == 0 and bool(scores),
        guard=score_guards.guard(runs),
    )


def _compare(
    reference: EvaluatedVariant, variant: EvaluatedVariant, names: Sequence[str], known: Known
) -> tuple[dict[str, Difference], Difference | None]:
    theirs = {name: list(reference.summaries.get(name, ())) for name in names}
    mine = {name: list(variant.summaries.get(name, ())) for name in names}
    if set(reference.seeds) == set(variant.seeds):
        # Runs of one seed are paired, in whatever order they were made.
        order = [reference.seeds.index(seed) for seed in variant.seeds] or [0]
        theirs = {name: [runs[i] for i in order] for name, runs in theirs.items() if runs}
    sides = [{name: runs for name, runs in side.items() if runs} for side in (theirs, mine)]
    lacks = lacking(reference, variant)
    key = lacks, *(tuple((name, *map(id, runs)) for name, runs in side.items()) for side in sides)
    if key not in known:  # with the summaries, so that no other ones ever have their identities
        known[key] = sides, compare(sides[0], sides[1], lacks=lacks)
    return known[key][1]


def n_clusters(summary: Summary) -> int:
    """In how many clusters a benchmark's units lie."""
    if summary.resampled is not None:
        return summary.resampled.clusters
    shared = summary.clusters or {}
    return summary.n - len(shared) + len(set(shared.values()))


def _correct_for_tests(rows: Sequence[TableRow], averaged: Sequence[str]) -> tuple[tuple[TableRow, ...], int]:
    """Rows with `p_holm` in their differences, and how many averages are tested."""
    # The average over one benchmark is that benchmark's comparison, which counts once.
    alone = averaged[0] if len(averaged) == 1 else ""

    def p(difference: Difference | None) -> float:
        return float("nan") if difference is None or difference.lacks else difference.p

    tested = [
        multiple_testing.PValues(
            p(row.average.difference) if row.average and row.average.difference else None,
            {name: p(cell.difference) for name, cell in row.cells.items() if name not in (AVERAGE, alone)},
        )
        for row in rows
    ]
    found = []
    for row, adjusted in zip(rows, multiple_testing.correct(tested), strict=True):
        by_name = {**adjusted.benchmarks, AVERAGE: adjusted.average, alone: adjusted.average}
        by_name = {name: None if p != p else p for name, p in by_name.items()}  # of NaN there is none
        cells = {
            name: replace(cell, difference=replace(cell.difference, p_holm=by_name[name]))
            if cell.difference is not None
            else cell
            for name, cell in row.cells.items()
        }
        found.append(replace(row, cells=cells))
    return tuple(found), sum(row.gate == row.gate for row in tested)
