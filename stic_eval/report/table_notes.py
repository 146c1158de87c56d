"""What is written below a table: how its numbers came about, and what they leave out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import stdev
from typing import TYPE_CHECKING

from stic_eval import registry
from stic_eval.report import score_guards
from stic_eval.report.paired_comparison import DESCRIPTION, N_RESAMPLES, SEED, SEEDS, UNMARKED, Difference

if TYPE_CHECKING:
    from stic_eval.report.table_rows import Column, PlannedRow, TableRow
    from stic_eval.types import Summary

INCOMPLETE = "° incomplete: unscored rows or columns are left out, never counted as 0."
MEAN_OF_ROWS = "(mean of rows)"  # behind a title: the benchmark's own number is another
_NAMED = 3  # of a grid that is under way


def describe(
    columns: Sequence[Column],
    averaged: Sequence[str],
    rows: Sequence[TableRow],
    lines: Sequence[PlannedRow],
    comparisons: int,
) -> list[str]:
    """The notes of a table, one sentence or more each.

    Args:
        averaged: Those in the average.
        lines: What the rows are made of; says what they are compared with.
        comparisons: The size of the family of Holm's correction.
    """
    notes = _differences(rows, lines, comparisons)
    notes += seeds(rows, tested=not any(note.startswith(f"{UNMARKED} one training seed") for note in notes))
    notes += score_guards.unmoved_notes(
        [d for row in rows for column in columns if (d := row.cells[column.name].difference) is not None]
    )
    notes += cluster_notes(
        column.title
        for column in columns
        if any(
            row.cells[column.name].difference is not None and line.reference is not None
            and knows_no_clusters(line.reference.summaries[column.name], line.variant.summaries[column.name])
            for row, line in zip(rows, lines, strict=True)
        )
    )  # fmt: skip
    if any(column.title.endswith(MEAN_OF_ROWS) for column in columns):
        notes.append("Use the detail layout for metrics such as F1: the main table shows row means.")
    notes += _average(columns, averaged)
    notes += score_guards.notes(columns, averaged, rows)
    if any(not cell.complete for row in rows for cell in row.cells.values()):
        notes.append(INCOMPLETE)
    evaluated = [column for column in columns if any(row.cells[column.name].n for row in rows)]
    doubts = {column.title: _doubts(column, rows) for column in evaluated}
    notes += [f"{title}: {'; '.join(parts)}." for title, parts in doubts.items() if parts]
    return notes + [f"{column.title}: {'; '.join(_column(column, rows))}." for column in evaluated]


def knows_no_clusters(*sides: Sequence[Summary]) -> bool:
    """Whether it is unknown on either side which rows of a comparison share an image."""
    return all(run.clusters is None and run.resampled is None for runs in sides for run in runs)


def cluster_notes(titles: Iterable[str]) -> list[str]:
    """What it means for benchmarks that their clusters are unknown; nothing without any."""
    found = ", ".join(titles)
    if not found:
        return []
    return [
        f"{found}: an earlier version evaluated it and did not record which rows share an image. All "
        "count as independent, so intervals may be too narrow, and p too small. To have it looked up, remove "
        "scores.json and run it again; answers are kept."
    ]


def _average(columns: Sequence[Column], averaged: Sequence[str]) -> list[str]:
    titles = {column.name: column.title for column in columns}
    left_out = [title for name, title in titles.items() if name not in averaged]
    if not averaged:
        return ["Average: none, as no benchmark is scored in every row."]
    without = f", without {', '.join(left_out)} (not scored in every row)" if left_out else ""
    if len(averaged) > 1:
        return [f"Average: mean of the {len(averaged)} benchmarks' percentages{without}."]
    # The average of a table's only benchmark explains itself.
    return [f"Average: {titles[averaged[0]]} alone{without}."] if left_out else []


def _differences(rows: Sequence[TableRow], lines: Sequence[PlannedRow], comparisons: int) -> list[str]:
    found = [cell.difference for row in rows for cell in row.cells.values() if cell.difference is not None]
    if not found:
        return ["Scores in percent."]
    references = [line.reference for line in lines if line.reference is not None]
    labels = list(dict.fromkeys(variant.label for variant in references))
    own = " of the same model or run" if len({id(variant) for variant in references}) > len(labels) else ""
    tested = [difference for difference in found if not difference.lacks]
    several = max(sum(cell.difference is not None for cell in row.cells.values()) for row in rows) > 2
    notes = [f"Scores in percent; differences to {' or '.join(labels)}{own} in points, with 95 % intervals."]
    if tested:
        corrected = ", corrected for multiple comparisons" if comparisons > 1 or several else ""
        notes.append(f"* p < 0.05, ** p < 0.01{corrected}.")
    notes += unmarked_notes(found)
    if comparisons > 1 and tested:
        notes.append(
            "Only the stars are corrected for multiple comparisons; an interval can exclude 0 without a star."
        )
    notes.append(f"Intervals: {intervals(found)}.")
    if tested:
        tests = ", ".join(dict.fromkeys(difference.test for difference in tested if difference.test))
        notes.append(f"Stars: {tests or 'paired test'}{_correction(comparisons, several)}.")
    averages = [row.average.difference for row in rows if row.average and row.average.difference]
    span = _span([difference.detectable for difference in averages if not difference.lacks])
    if span:
        notes.append(
            f"Smallest difference of the average that such a comparison, uncorrected, finds with 80 % power: "
            f"{span} points."
        )
    return notes


def intervals(found: Sequence[Difference]) -> str:
    """How intervals were made: resampled, and with several seeds by a Student t."""
    clustered = any(difference.clusters < difference.n for difference in found)
    over = (
        "clusters of test rows (about one image, or what the benchmark names)" if clustered else "test rows"
    )
    resampled = any(difference.test != SEEDS for difference in found)
    bootstrap = (
        f"paired bootstrap over {over} ({N_RESAMPLES:,} resamples; widened for few rows), stratified by "
        "benchmark for the average"
    )
    student = "Student's t with the variance over " + ("them" if resampled else over) + " and over seeds"
    if not any(difference.test == SEEDS for difference in found):
        return bootstrap
    return f"{bootstrap}; with several seeds {student}" if resampled else student


def _correction(averages: int, several: bool) -> str:
    """The procedure of `stic_eval.report.multiple_testing`, as far as a table has use for it."""
    first = f"; Holm's correction over the table's {averages} averages" if averages > 1 else ""
    behind = "; a row's benchmarks have stars only where its average has, corrected within the row"
    return first + (behind if several else "")


def unmarked_notes(found: Sequence[Difference]) -> list[str]:
    """What the sign of untested differences means, and what would earn them a mark; none without any."""
    lacks = {difference.lacks for difference in found}
    notes = []
    if SEED in lacks:
        notes.append(
            f"{UNMARKED} one training seed, so no test: intervals cover test rows, not training luck."
        )
    if DESCRIPTION in lacks:
        notes.append(
            f"{UNMARKED} one description for all rows, so no test: the interval covers test rows, not the "
            "luck of that description; descriptions that see their image would be tested."
        )
    return notes


def _span(values: Sequence[float]) -> str:
    texts = [f"{value:.1f}" for value in sorted(filter(math.isfinite, values))]
    return "" if not texts else texts[0] if texts[0] == texts[-1] else f"{texts[0]} to {texts[-1]}"


def seeds(rows: Sequence[TableRow], tested: bool = True) -> list[str]:
    """How many training seeds there are, what is shown of them, and what intervals and tests make of them."""
    found = sorted({seed for row in rows for seed in row.variant.seeds})
    counts = sorted({len(row.variant.seeds) for row in rows if row.variant.seeds})
    if not found:
        return []
    if counts[-1] == 1:
        which = f"One training seed ({found[0]})" if len(found) == 1 else "One training seed a row"
        return [
            f"{which}: intervals cover test rows, not training luck."
            if tested
            else f"{which}; three would be tested."
        ]
    over, by_row = "training seeds", ""
    if counts[0] == counts[-1]:
        over = f"{counts[-1]} training seeds ({', '.join(map(str, found))})"
    else:
        per = ", ".join(f"{row.label} {len(row.variant.seeds)}" for row in rows if row.variant.seeds)
        by_row = f" Seeds by row: {per}."
    both = "; intervals and tests include the variance over seeds" if tested else ""
    return [f"Trained methods: mean over {over}, (±) standard deviation over them{both}.{by_row}"]


def _column(column: Column, rows: Sequence[TableRow]) -> list[str]:
    """How a column's numbers came about."""
    cells = [row.cells[column.name] for row in rows]
    counts = sorted({cell.n for cell in cells if cell.n is not None})
    lie = sorted({(cell.n, cell.clusters) for cell in cells if cell.n is not None and cell.clusters})
    groups = "/".join(str(clusters) for n, clusters in lie)
    parts = [f"n = {'/'.join(map(str, counts)) or '0'}"]
    parts[0] += f" in {groups} cluster{'' if groups == '1' else 's'}" if any(n != c for n, c in lie) else ""
    own = [s.resampled for row in rows for s in row.variant.summaries.get(column.name, ()) if s.resampled]
    if own:
        parts.append(f"differences by {len(own[0].draws):,} resamples of its own statistic")
        parts += ["none between runs over other rows"] if len({one.rows for one in own}) > 1 else []
    parts += [column.protocol] if column.protocol else []
    parts += [column.grader] if column.grader else []
    return [*parts, *_share_judged(column.name, rows)]


def _doubts(column: Column, rows: Sequence[TableRow]) -> list[str]:
    """What a reader has to know before a column's numbers are believed; nothing where nothing is wrong."""
    unscored = max((row.cells[column.name].unscored for row in rows), default=0)
    parts = [f"{unscored} unscored"] if unscored else []
    parts += _cut_thinking(column.name, rows)
    return [*parts, *score_guards.answers(column.name, rows), *_version(column)]


def _version(column: Column) -> list[str]:
    """Whether another version of a shipped benchmark asked and graded, as part of a note."""
    known = registry.benchmarks()
    if not column.version or column.name not in known.own():
        return []
    today = known.get(column.name).version
    return [f"graded by version {column.version} (today's is {today})"] if column.version != today else []


def _cut_thinking(column: str, rows: Sequence[TableRow]) -> list[str]:
    """How many answers were cut while the model was thinking, the most in a row; nothing where none was."""
    summaries = [summary for row in rows for summary in row.variant.summaries.get(column, ())]
    most = max((summary.unclosed for summary in summaries), default=0)
    return [f"{most} answers cut while the model was thinking"] if most else []


def _share_judged(column: str, rows: Sequence[TableRow]) -> list[str]:
    """What share of the answers a judge decided, as part of a note; nothing where none did."""
    summaries = [summary for row in rows for summary in row.variant.summaries.get(column, ())]
    if not any(summary.judged for summary in summaries):
        return []
    shares = sorted({f"{100 * s.judged / s.answers:.1f}" for s in summaries if s.answers}, key=float)
    span = shares[0] if len(shares) == 1 else f"{shares[0]} to {shares[-1]}"
    parts = [f"the judge decided {span} % of the answers"]
    spreads = [stdev(summary.gradings) for summary in summaries if len(summary.gradings) > 1]
    if spreads:
        parts.append(f"its repeated gradings differ by a standard deviation of up to {max(spreads):.1f}")
    return parts
