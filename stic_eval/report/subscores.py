"""A benchmark by its parts: MMBench's abilities, MM-Vet's capabilities, MathVista's tasks, ..."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, stdev

from stic_eval.errors import UserError
from stic_eval.registry import suggest
from stic_eval.report import paper_scores, table_notes
from stic_eval.report.run_merge import MergedRuns, merge
from stic_eval.report.runs import Scores
from stic_eval.report.table_layouts import to_lines
from stic_eval.report.table_rows import Cell, Column, EvaluatedVariant, TableRow
from stic_eval.report.tables import Table

# The parts that benchmarks are reported by (the paper's tables 7 and 8; the benchmarks' own papers).
# Of others it is the first that their summaries have.
_USUAL = {"mmbench": "ability", "mmvet": "capability", "mathvista": "task", "scienceqa": "subject"}


def detail(
    found: Sequence[Scores],
    benchmark: str | None = None,
    groups: Sequence[str] = (),
    with_published: bool = False,
) -> list[Table]:
    """A table for each benchmark and group of labels: methods by labels, without differences.

    Args:
        benchmark: By its name; None: all that are broken down.
        groups: Groups of labels, e.g. `capability`; empty: the one that the benchmark is usually
            reported by.
        with_published: Add the paper's tables 7 and 8.

    Raises:
        UserError: The runs cannot stand side by side, or have no such benchmark or group.
    """
    merged = merge(found)
    names = [column.name for column in merged.columns]
    if benchmark is not None and benchmark not in names:
        known = ", ".join(names)
        raise UserError(
            f'--benchmark: "{benchmark}" is not one of the run\'s ({known}){suggest(benchmark, names)}'
        )
    tables = []
    seen: set[str] = set()
    for column in merged.columns:
        if benchmark in (None, column.name):
            labels = _labels(merged, column.name)
            seen.update(labels)
            usual = _USUAL.get(column.name, "")
            chosen = groups or [usual if usual in labels else next(iter(labels), "")]
            tables += [
                _table(merged, column, group, labels, with_published) for group in chosen if group in labels
            ]
    unknown = [group for group in groups if group not in seen]
    if unknown:
        known = ", ".join(sorted(seen)) or "it has none"
        raise UserError(
            f'--by: "{unknown[0]}" is not a group of labels ({known}){suggest(unknown[0], sorted(seen))}'
        )
    if not tables:
        raise UserError(f"--layout detail: {benchmark or 'no benchmark'} of the run is not broken down")
    return tables


def _labels(merged: MergedRuns, benchmark: str) -> dict[str, list[str]]:
    """Group -> its labels, as the summaries have them; what is no group (`vanilla`) is left out."""
    found: dict[str, dict[str, None]] = {}
    for placed in merged.placed:
        for summary in placed.variant.summaries.get(benchmark, ()):
            for name in summary.breakdown:
                group, slash, label = name.partition("/")
                if slash:
                    found.setdefault(group, {})[label] = None
    return {group: list(labels) for group, labels in found.items()}


def _table(
    merged: MergedRuns, column: Column, group: str, labels: dict[str, list[str]], with_published: bool
) -> Table:
    order = paper_scores.labels(column.name, group)
    own = sorted(
        labels[group], key=lambda label: (label not in order, order.index(label) if label in order else 0)
    )
    placed = [item for item in merged.placed if item.variant.summaries.get(column.name)]
    heads, lines = to_lines(merged, placed, ("Method",), [(item.variant.label,) for item in placed])
    rows = [
        TableRow(line.variant, {label: _cell(line.variant, column.name, f"{group}/{label}") for label in own},
            line.heads, line.label)
        for line in lines
    ]  # fmt: skip
    facts = [f"{column.title} by {group}, {_unit(group)}", column.protocol, column.grader]
    notes = [
        "; ".join(fact for fact in facts if fact) + ".",
        "Parts are small and may overlap: no difference is tested here.",
        *table_notes.seeds(rows, tested=False),
    ]
    others = [name for name in labels if name != group]
    if any(not cell.complete for row in rows for cell in row.cells.values()):
        notes.append(table_notes.INCOMPLETE)
    if with_published and (paper := paper_scores.breakdown(column.name, group)):
        for item in paper:
            texts = [{"Model": item.model}.get(head, "") for head in heads[:-1]]
            name = item.name if "Model" in heads else item.label
            added = paper_scores.row(item, own, (), (*texts, name))
            rows.append(replace(added, cells={label: added.cells[label] for label in own}))
        notes += [*paper_scores.notes(), *paper_scores.judge_note([column])]
    return Table(
        columns=tuple(Column(label, label) for label in own),
        averaged=(),
        rows=tuple(rows),
        notes=tuple(notes),
        heads=heads,
        average=False,
        caption=f"{column.title}{merged.of_models} by {group}, {_unit(group)}.",
        name=f"detail-{column.name}-{group}",
        hints=(f"`--by` shows it by {' or '.join(others)}.",) if others else (),
        benchmark=column.name,
        group=group,
    )


def _unit(group: str) -> str:
    """What a group's numbers are in; the names of those that are no percentages end in `-points`."""
    return "in the metric's own points" if group.endswith("-points") else "in percent"


def _cell(variant: EvaluatedVariant, benchmark: str, label: str) -> Cell:
    runs = variant.summaries[benchmark]
    scores = [run.breakdown[label] for run in runs if label in run.breakdown]
    whole = len(scores) == len(runs)
    return Cell(
        score=mean(scores) if whole else None,
        sd=stdev(scores) if whole and len(scores) > 1 else None,
        complete=whole and not any(run.unscored for run in runs),
    )
