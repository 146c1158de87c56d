"""A `Table` as Markdown, CSV and JSON, and into files; see also `terminal_table`, `latex`, `html_table`.

Titles and notes may come from plug-ins and files: each format escapes them.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stic_eval.printable import csv_cell
from stic_eval.report.cell_text import delta_text, interval_text, markdown, one_line, score_text
from stic_eval.report.html_table import to_html
from stic_eval.report.latex import to_latex
from stic_eval.report.table_rows import TableRow, setting
from stic_eval.report.tables import Table
from stic_eval.types import DESCRIBED


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown, notes as a list below."""
    titles = [markdown(text) for text in [*table.heads, *(title for _, title in table.fields)]]
    lines = [
        "| " + " | ".join(titles) + " |",
        "|" + " --- |" * len(table.heads) + " ---: |" * len(table.fields),
    ]
    for row in table.rows:
        cells = []
        for name, _ in table.fields:
            cell = row.cells[name]
            parts = [score_text(cell), delta_text(cell), interval_text(cell)]
            cells.append("<br>".join(part.replace("*", r"\*") for part in parts if part))
        lines.append("| " + " | ".join([*(markdown(head) for head in row.heads), *cells]) + " |")
    notes = [f"- {markdown(note)}" for note in table.notes]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def to_csv(tables: Table | Sequence[Table]) -> str:
    """One line per row and column, for spreadsheets and data frames; several tables below one head.

    Settings of an ablation's cells have columns of their own, `settings.<axis>`. Breakdowns have `group` and
    `part`, beside the benchmark that these are of.
    """
    several = [tables] if isinstance(tables, Table) else list(tables)
    axes = dict.fromkeys(axis for table in several for row in table.rows for axis in row.variant.settings)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = any(table.benchmark for table in several)
    head = [
        "model", "method", "label", "dar", "seeds", "benchmark", *(["group", "part"] if parts else []),
        "n", "clusters", "unscored", "score", "sd_seeds", "delta", "low95", "high95", "mark", "paired_n",
        "paired_clusters", "complete", "p", "p_holm", "test", "better", "worse", "detectable", "published",
        "guard", "unseen95",
    ]  # fmt: skip
    writer.writerow([*head, *(_csv_text(f"settings.{axis}") for axis in axes)])
    for table in several:
        for row in table.rows:
            settings = [
                _csv_text(setting(row.variant.settings[axis])) if axis in row.variant.settings else ""
                for axis in axes
            ]
            for name, _ in table.fields:
                of = (table.benchmark, table.group, name) if table.benchmark else (name, "", "")
                writer.writerow([*_fields(row, name, of if parts else (name,)), *settings])
    return out.getvalue()


def _csv_text(text: str) -> str:
    return csv_cell(one_line(text))


def _fields(row: TableRow, name: str, measured: Sequence[str]) -> list[object]:
    variant, cell = row.variant, row.cells[name]
    d = cell.difference
    return [
        _csv_text(variant.model), _csv_text(variant.method), _csv_text(row.label),
        int(variant.solver == DESCRIBED), " ".join(map(str, variant.seeds)), *map(_csv_text, measured),
        cell.n, cell.clusters, cell.unscored, cell.score, cell.sd,
        *([d.delta, finite(d.low), finite(d.high), d.mark, d.n, d.clusters] if d else [None] * 6),
        int(cell.complete),
        *([finite(d.p), d.p_holm, d.test, d.better, d.worse, finite(d.detectable)] if d else [None] * 6),
        int(row.published), _csv_text(cell.guard), d.unseen if d and d.unmoved else None,
    ]  # fmt: skip


def finite(value: Any) -> Any:
    """A value in which NaN, which JSON and spreadsheets do not know, is None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(tables: Table | Sequence[Table]) -> str:
    """A table as data: columns, rows with their cells, notes. A list of several."""
    data = _data(tables) if isinstance(tables, Table) else [_data(table) for table in tables]
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _data(table: Table) -> Mapping[str, Any]:
    def cells(row: TableRow) -> Mapping[str, Any]:
        found = {name: finite(asdict(row.cells[name])) for name, _ in table.fields}
        for name, data in found.items():
            difference = row.cells[name].difference
            if difference is not None:
                data["difference"]["mark"] = difference.mark
                data["difference"]["unseen95"] = difference.unseen if difference.unmoved else None
        return found

    return {
        "name": table.name,
        "caption": table.caption,
        **({"benchmark": table.benchmark, "group": table.group} if table.benchmark else {}),
        "columns": [asdict(column) for column in table.columns],
        "averaged": list(table.averaged),
        "heads": list(table.heads),
        "comparisons": table.comparisons,
        "rows": [
            {
                "model": row.variant.model,
                "method": row.variant.method,
                "label": row.label,
                "heads": list(row.heads),
                "dar": row.variant.solver == DESCRIBED,
                "seeds": list(row.variant.seeds),
                "settings": dict(row.variant.settings),
                "published": row.published,
                "cells": cells(row),
            }
            for row in table.rows
        ],
        "notes": list(table.notes),
    }


def write(table: Table, folder: Path) -> list[Path]:
    """Writes table.md, .tex, .html, .csv and .json into `folder`, each atomically."""
    from stic_eval.store import atomic_write

    texts = {
        "md": to_markdown(table),
        "tex": to_latex(table),
        "html": to_html(table),
        "csv": to_csv(table),
        "json": to_json(table),
    }
    written = []
    for suffix, text in texts.items():
        path = folder / f"table.{suffix}"
        atomic_write(path, text)
        written.append(path)
    return written
