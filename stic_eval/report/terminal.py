"""A `Table` in a terminal, as wide as that is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from stic_eval.report.cells import delta_text, interval_text, one_line, score_text
from stic_eval.report.tables import AVERAGE, Cell, Table

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

# What a cell holds: everything on three lines; score and difference on one; on two, the average's interval
# beside its difference; on two, without.
Mode = Literal["full", "line", "average", "short"]
_LINES: dict[Mode, int] = {"full": 3, "line": 1, "average": 2, "short": 2}
_MANY_ROWS = 8  # above, three lines a row no longer fit on a screen
_WIDEST_HEAD = 28


def to_rich(table: Table, width: int, *, titled: bool = False) -> RenderableType:
    """The table for a terminal of `width` columns.

    Where it is too narrow for intervals in every cell, the average alone keeps its own, or has them
    below; where it is too narrow for the columns, benchmarks become rows; at last the table is cut into
    several. A table of many rows does without the benchmarks' intervals at once. `titled` puts the caption
    above.
    """
    from rich.console import Group
    from rich.text import Text

    compared = any(cell.difference for row in table.rows for cell in row.cells.values())
    many = compared and len(table.rows) > _MANY_ROWS
    modes: tuple[Mode, ...] = ("line", "average", "short") if many else ("full", "average", "short")
    names = [name for name, _ in table.fields]
    grids: list[RichTable] = []
    mode: Mode = "short"
    for mode in modes:
        if _fits(grid := _grid(table, names, mode), width):
            grids = [grid]
            break
    if not grids:
        sideways = _sideways(table)
        grids = [sideways] if _fits(sideways, width) else _cut(table, names, width)
    lines: list[RenderableType] = [Text(one_line(table.caption), style="bold")] if titled else []
    lines += grids
    if mode == "short" and compared and table.average:
        lines += [Text(""), _averages(table)]
    lines.append(Text(""))
    lines += [Text(one_line(note), style="dim") for note in table.notes]
    return Group(*lines)


def _fits(grid: RichTable, width: int) -> bool:
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(width=10_000)
    return Measurement.get(console, console.options, grid).minimum <= width


def _cut(table: Table, names: Sequence[str], width: int) -> list[RichTable]:
    """As many tables below each other as it takes, each with all rows."""
    at, found = 0, []
    while at < len(names):
        end = at + 1
        while end < len(names) and _fits(_grid(table, names[at : end + 1], "short"), width):
            end += 1
        found.append(_grid(table, names[at:end], "short"))
        at = end
    return found


def _averages(table: Table) -> RichTable:
    """The average's differences, a line each."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("Average", "difference", "95 % interval", "seeds"):
        grid.add_column(Text(title, style="bold"), justify="left" if title == "Average" else "right")
    for row in table.rows:
        cell = row.average
        if cell is not None and cell.difference is not None:
            spread = f"±{cell.sd:.1f}" if cell.sd is not None else ""
            heads = ", ".join(one_line(head) for head in row.heads if head)
            texts = (heads, _padded([delta_text(cell)], "*", 2)[0], interval_text(cell), spread)
            grid.add_row(*map(Text, texts))
    return grid


def _new() -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    return RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)


def _grid(table: Table, names: Sequence[str], mode: Mode) -> RichTable:
    from rich.text import Text

    grid = _new()
    for at, title in enumerate(table.heads):
        width = _head_width([one_line(row.heads[at]) for row in table.rows], _LINES[mode])
        # A head that says nothing but that the rows are methods is left to the reader.
        shown = "" if table.heads == ("Method",) else one_line(title)
        shown = re.sub(r"(?<=[._])(?=\w)", "\n", shown) if mode != "full" else shown
        grid.add_column(Text(shown, style="bold"), min_width=width, overflow="fold")
    titles = dict(table.fields)
    columns = [_texts([row.cells[name] for row in table.rows], mode, name == AVERAGE) for name in names]
    for name, texts in zip(names, columns, strict=True):
        _add_numbers(grid, _head(one_line(titles[name]), broken=mode != "full"), texts)
    for at, row in enumerate(table.rows):
        style = "italic" if row.published else ""
        heads = [Text(one_line(text), style=style) for text in row.heads]
        grid.add_row(*heads, *(column[at] for column in columns))
    return grid


def _sideways(table: Table) -> RichTable:
    from rich.text import Text

    grid = _new()
    grid.add_column("", min_width=_head_width([title for _, title in table.fields], 2), overflow="fold")
    columns = [_texts([row.cells[name] for name, _ in table.fields], "short", False) for row in table.rows]
    for row, texts in zip(table.rows, columns, strict=True):
        _add_numbers(grid, _head(one_line(row.label), broken=True), texts)
    for at, (_, title) in enumerate(table.fields):
        grid.add_row(Text(one_line(title)), *(column[at] for column in columns))
    return grid


def _add_numbers(grid: RichTable, head: Text, texts: Sequence[Text]) -> None:
    # Else a cell with a blank in it would count as narrow enough where half of it fits.
    widest = max((line.cell_len for text in texts for line in text.split()), default=0)
    grid.add_column(head, justify="right", no_wrap=True, min_width=widest)


def _head_width(texts: Sequence[str], lines: int) -> int:
    """The width in which each text takes no more than `lines` lines, within limits."""
    widest = min(max(map(len, texts), default=0), _WIDEST_HEAD)
    word = max((len(word) for text in texts for word in text.split()), default=0)
    for width in range(min(max(8, word), widest), widest):
        if all(len(textwrap.wrap(text, max(1, width))) <= lines for text in texts):
            return width
    return widest


def _head(title: str, broken: bool) -> Text:
    from rich.text import Text

    # Long names are broken where a reader would: at a blank, a hyphen or a capital.
    at = r"\s|(?<=-)(?=[A-Z][a-z]{3})|(?<=[a-z]{3})(?=[A-Z])|(?<=[._])(?=\w{4})"
    return Text(re.sub(at, "\n", title) if broken else title, style="bold")


def _texts(cells: Sequence[Cell], mode: Mode, is_average: bool) -> list[Text]:
    """The cells of a column."""
    scores = [score_text(cell) for cell in cells]
    if mode != "full" and not (mode == "average" and is_average):
        scores = [score.split(" ")[0] for score in scores]
    deltas = [delta_text(cell) for cell in cells]
    intervals = [interval_text(cell).replace(" ", "") for cell in cells]
    if mode == "line":
        # Numbers stand below each other, whatever marks follow them.
        scores = _padded(scores, "°")
        deltas = _padded(deltas, "*")
        intervals = [text.ljust(max(map(len, intervals))) for text in intervals]
    return [
        _text(cell, score, delta, interval if mode == "full" or is_average else "", mode)
        for cell, score, delta, interval in zip(cells, scores, deltas, intervals, strict=True)
    ]


def _padded(texts: Sequence[str], mark: str, least: int = 0) -> list[str]:
    """Texts of one width in which numbers end at the same place, before room for the most marks."""
    marks = max(least, *(text.count(mark) for text in texts))
    width = max(len(text.rstrip(mark)) for text in texts) + marks
    return [(text + " " * (marks - text.count(mark))).rjust(width) for text in texts]


def _text(cell: Cell, score: str, delta: str, interval: str, mode: Mode) -> Text:
    from rich.text import Text

    text = Text(score, style="bold")
    style = "dim"
    if cell.difference and cell.difference.mark:
        style = "green" if cell.difference.delta > 0 else "red"
    if delta.strip() or (mode == "line" and delta):
        text.append((" " if mode == "line" else "\n") + delta, style=style)
        if interval and mode != "short":
            text.append(("\n" if mode == "full" else " ") + interval, style="dim")
    return text
