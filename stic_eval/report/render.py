"""A `Table` as terminal output, Markdown, LaTeX, CSV and JSON.

Titles and notes may come from plug-ins and files: each format escapes them.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.printable import printable
from stic_eval.report.tables import AVERAGE, Cell, Table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable

_TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "†": r"$\dagger$", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "Δ": r"$\Delta$",
}  # fmt: skip


def score_text(cell: Cell) -> str:
    """A score as printed: `51.5`, `51.5 ±0.8` over seeds, `51.5†` if incomplete, `-` without one."""
    if cell.score is None:
        return "-†"
    spread = f" ±{cell.sd:.1f}" if cell.sd is not None else ""
    return f"{cell.score:.1f}{'' if cell.complete else '†'}{spread}"


def delta_text(cell: Cell) -> str:
    """A difference as printed, e.g. `+3.0*`; empty for the baseline."""
    return f"{cell.difference.delta:+.1f}{cell.difference.mark}" if cell.difference else ""


def interval_text(cell: Cell) -> str:
    """A 95 % interval as printed, e.g. `[0.5, 5.5]`; empty for the baseline."""
    return f"[{cell.difference.low:.1f}, {cell.difference.high:.1f}]" if cell.difference else ""


def _line(text: str) -> str:
    """A title or note as one line without control characters."""
    return printable(" ".join(text.split()))


def _columns(table: Table) -> list[tuple[str, str]]:
    return [(column.name, _line(column.title)) for column in table.columns] + [(AVERAGE, "Average")]


def to_rich(table: Table, width: int) -> RenderableType:
    """The table for a terminal of `width` columns.

    Where it is too narrow for an interval in every cell, intervals of the average follow below;
    where it is too narrow for the columns, benchmarks become rows.
    """
    from rich.console import Console, Group
    from rich.measure import Measurement
    from rich.text import Text

    console = Console(width=10_000)
    layouts = [(True, False), (False, False), (False, True)]  # (intervals, on its side)
    for intervals, sideways in layouts:
        grid = _grid(table, intervals, sideways)
        if Measurement.get(console, console.options, grid).minimum <= width:
            break
    lines: list[RenderableType] = [grid]
    if not intervals:
        for row in table.rows:
            cell = row.cells[AVERAGE]
            if cell.difference:
                spread = f", seeds ±{cell.sd:.1f}" if cell.sd is not None else ""
                text = f"{_line(row.variant.label)}: average {delta_text(cell)} {interval_text(cell)}{spread}"
                lines.append(Text(text))
    lines.append(Text(""))
    lines += [Text(_line(note), style="dim") for note in table.notes]
    return Group(*lines)


def _grid(table: Table, intervals: bool, sideways: bool) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    def cell_text(cell: Cell) -> Text:
        score = score_text(cell) if intervals else score_text(cell).split(" ")[0]
        text = Text(score, style="bold")
        if cell.difference:
            style = "green" if cell.difference.low > 0 else "red" if cell.difference.high < 0 else "dim"
            text.append("\n" + delta_text(cell), style=style)
            if intervals:
                text.append("\n" + interval_text(cell).replace(" ", ""), style="dim")
        return text

    def head(title: str) -> Text:
        # Long names are broken where a reader would: at a blank, a hyphen or a capital.
        broken = re.sub(r"\s|(?<=-)(?=[A-Z][a-z]{3})|(?<=[a-z]{3})(?=[A-Z])", "\n", title)
        return Text(title if intervals else broken, style="bold")

    grid = RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    grid.add_column("", min_width=8)
    cells = [[cell_text(row.cells[name]) for name, _ in _columns(table)] for row in table.rows]
    across = [title for _, title in _columns(table)]
    down = [_line(row.variant.label) for row in table.rows]
    if sideways:
        across, down, cells = down, across, [list(column) for column in zip(*cells, strict=True)]
    for title in across:
        grid.add_column(head(title), justify="right", no_wrap=True)
    for label, line in zip(down, cells, strict=True):
        grid.add_row(Text(label), *line)
    return grid


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown, notes as a list below."""

    def escape(text: str) -> str:
        return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", _line(text))

    head = ["Method", *(escape(title) for _, title in _columns(table))]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" + " ---: |" * (len(head) - 1)]
    for row in table.rows:
        cells = []
        for name, _ in _columns(table):
            cell = row.cells[name]
            parts = [score_text(cell), delta_text(cell), interval_text(cell)]
            cells.append("<br>".join(part.replace("*", r"\*") for part in parts if part))
        lines.append("| " + " | ".join([escape(row.variant.label), *cells]) + " |")
    return "\n".join([*lines, "", *(f"- {escape(note)}" for note in table.notes), ""])


def tex_escape(text: str) -> str:
    """Escapes a string for LaTeX text."""
    return "".join(_TEX.get(char, char) for char in text)


def to_latex(table: Table) -> str:
    """The table as a LaTeX `tabular` with booktabs rules; notes follow as comments."""
    columns = _columns(table)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{l" + "r" * len(columns) + "}",
        r"\toprule",
        " & ".join(["Method", *(tex_escape(title) for _, title in columns)]) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [row.cells[name] for name, _ in columns]
        lines.append(
            " & ".join([tex_escape(_line(row.variant.label)), *(tex_escape(score_text(c)) for c in cells)])
            + r" \\"
        )
        if any(c.difference for c in cells):
            deltas = [tex_escape(f"{delta_text(c)} {interval_text(c)}".strip()) for c in cells]
            small = [rf"{{\scriptsize {delta}}}" if delta else "" for delta in deltas]
            lines.append(" & ".join(["", *small]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += ["% " + _line(note) for note in table.notes]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """One line per method and benchmark, for spreadsheets and data frames."""

    def text(value: str) -> str:
        value = _line(value)
        # A spreadsheet runs a cell that starts like a formula.
        return "'" + value if value[:1] in ("=", "+", "-", "@") else value

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["method", "dar", "seeds", "benchmark", "n", "unscored", "score", "sd_seeds", "delta", "low95",
         "high95", "mark", "paired_n", "complete"]
    )  # fmt: skip
    for row in table.rows:
        for name, _ in _columns(table):
            cell, d = row.cells[name], row.cells[name].difference
            numbers = [d.delta, d.low, d.high] if d else [None] * 3
            writer.writerow(
                [text(row.variant.method), int(row.variant.dar), " ".join(map(str, row.variant.seeds)),
                 text(name), cell.n, cell.unscored, cell.score, cell.sd, *numbers,
                 d.mark if d else "", d.n if d else "", int(cell.complete)]
            )  # fmt: skip
    return out.getvalue()


def to_json(table: Table) -> str:
    """The table as data: columns, rows with their cells, notes."""
    rows: list[Mapping[str, Any]] = [
        {
            "method": row.variant.method,
            "label": row.variant.label,
            "dar": row.variant.dar,
            "seeds": list(row.variant.seeds),
            "cells": {name: asdict(cell) for name, cell in row.cells.items()},
        }
        for row in table.rows
    ]
    data = {
        "columns": [asdict(column) for column in table.columns],
        "averaged": list(table.averaged),
        "rows": rows,
        "notes": list(table.notes),
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def write(table: Table, folder: Path) -> list[Path]:
    """Writes table.md, table.tex, table.csv and table.json into `folder`, each atomically."""
    from stic_eval.store import atomic_write

    written = []
    texts = {"md": to_markdown(table), "tex": to_latex(table), "csv": to_csv(table), "json": to_json(table)}
    for suffix, text in texts.items():
        path = folder / f"table.{suffix}"
        atomic_write(path, text)
        written.append(path)
    return written
