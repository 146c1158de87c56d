"""A `Table` as an HTML fragment without style or script: the page around it has both."""

from __future__ import annotations

from html import escape

from stic_eval.report.cell_text import Rank, delta_text, interval_text, one_line, ranks, score_text
from stic_eval.report.table_rows import Cell
from stic_eval.report.tables import Table


def to_html(table: Table) -> str:
    """The table as `<table class="scores">`, and its notes as `<ul class="notes">`.

    Classes of a row: `published`. Of a cell: `best`, `second`, `sig` (a mark), `better` or `worse` beside
    it, `incomplete`. In a cell lie `<span>`s `score`, `spread`, `delta` and
    `interval`.
    """
    heads = "".join(f'<th scope="col" class="head">{_text(head)}</th>' for head in table.heads)
    fields = "".join(f'<th scope="col">{_text(title)}</th>' for _, title in table.fields)
    rank = ranks(table)
    lines = [
        '<table class="scores">',
        f"<caption>{_text(table.caption)}</caption>",
        f"<thead><tr>{heads}{fields}</tr></thead>",
        "<tbody>",
    ]
    for at, row in enumerate(table.rows):
        first = "".join(f'<th scope="row">{_text(head)}</th>' for head in row.heads)
        cells = "".join(_cell(row.cells[name], rank.get((at, name))) for name, _ in table.fields)
        lines.append(f"<tr{_classes(['published'] if row.published else [])}>{first}{cells}</tr>")
    lines += ["</tbody>", "</table>"]
    if table.notes:
        lines += ['<ul class="notes">', *(f"<li>{_text(note)}</li>" for note in table.notes), "</ul>"]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell, rank: Rank | None) -> str:
    names: list[str] = [rank] if rank else []
    if cell.difference and cell.difference.significant:
        names += ["sig", "better" if cell.difference.delta > 0 else "worse"]
    if not cell.complete:
        names.append("incomplete")
    score, _, spread = score_text(cell).partition(" ")
    texts = {"score": score, "spread": spread, "delta": delta_text(cell), "interval": interval_text(cell)}
    spans = [f'<span class="{name}">{_text(text)}</span>' for name, text in texts.items() if text]
    return f"<td{_classes(names)}>{' '.join(spans)}</td>"


def _classes(names: list[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


def _text(text: str) -> str:
    return escape(one_line(text))
