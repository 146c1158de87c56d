"""A `Table` in a terminal, as wide as that is."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from stic_eval.report import shown_notes
from stic_eval.report.cell_text import UNMOVED, delta_text, interval_text, one_line, score_text
from stic_eval.report.table_rows import AVERAGE, Cell, TableRow
from stic_eval.report.tables import Table

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
_NARROW_HEAD = 8  # words are cut where leading columns would leave no room for a number


def to_rich(table: Table, width: int, *, titled: bool = False, more: str | None = None) -> RenderableType:
    """The table for a terminal of `width` columns.

    Where it is too narrow for intervals in every cell, the average alone keeps its own, or moves with them
    into a table below; where it is too narrow for the columns, benchmarks become rows if rows are few, else
    the table is cut into several, each with its leading columns. A table of many rows does without the
    benchmarks' intervals at once.

    Args:
        table: What is shown.
        width: Columns of the terminal.
        titled: Whether the caption stands above.
        more: What shows all notes, where only some are shown (`shown_notes`); None: all are.
    """
    from rich.console import Group
    from rich.text import Text

    compared = any(cell.difference for row in table.rows for cell in row.cells.values())
    many = compared and len(table.rows) > _MANY_ROWS
    modes: tuple[Mode, ...] = ("line", "average") if many else ("full", "average")
    names = [name for name, _ in table.fields]
    grids = next(([g] for mode in modes if _fits(g := _grid(table, names, mode), width)), None)
    if grids is None:
        below = [_averages(table, width)] if compared and table.average else []
        if below:
            names.remove(AVERAGE)
        grids = [*_narrow(table, names, width), *below]
    lines: list[RenderableType] = [Text(one_line(table.caption), style="bold")] if titled else []
    for at, grid in enumerate(grids):
        lines += [Text(""), grid] if at else [grid]
    notes = [one_line(note) for note in table.notes]
    hints = [one_line(hint) for hint in table.hints]
    notes = [*notes, *hints] if more is None else shown_notes.lines(notes, width, one_line(more))
    lines += [Text("")] if notes else []
    lines += [Text(note, style="dim") for note in notes]
    return Group(*lines)


def _narrow(table: Table, names: Sequence[str], width: int) -> list[RichTable]:
    """Scores and differences without intervals: in one table, on its side, or in several."""
    if names and _fits(grid := _grid(table, names, "short"), width):
        return [grid]
    if len(table.heads) == 1 and len(table.rows) < len(names):
        sideways = _sideways(table, names)
        if _fits(sideways, width):
            return [sideways]
    return _split_columns(table, names, width)


def _fits(grid: RichTable, width: int) -> bool:
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(width=10_000)
    return Measurement.get(console, console.options, grid).minimum <= width


def _split_columns(table: Table, names: Sequence[str], width: int) -> list[RichTable]:
    """Splits the columns over as many tables as the width takes, each with all rows."""
    folded = not all(_fits(_grid(table, [name], "short"), width) for name in names)
    at, found = 0, []
    while at < len(names):
        end = at + 1
        while end < len(names) and _fits(_grid(table, names[at : end + 1], "short", folded=folded), width):
            end += 1
        found.append(_grid(table, names[at:end], "short", folded=folded))
        at = end
    return found


def _averages(table: Table, width: int) -> RichTable:
    """The average with its difference and interval: a line a row, else heads broken, else less of it."""
    tries = [(1, 4), (2, 4), (3, 4), (0, 4), (0, 3)]
    grids = (_average_grid(table, lines, columns) for lines, columns in tries)
    return next((grid for grid in grids if _fits(grid, width)), _average_grid(table, 0, 2))


def _average_grid(table: Table, lines: int, most: int) -> RichTable:
    """As `_averages`, with leading columns of so many lines and the first so many of the others."""
    from rich.text import Text

    grid = _new()
    _add_heads(grid, table, lines, broken=True)
    cells = [row.cells[AVERAGE] for row in table.rows]
    scores = [score_text(cell).partition(" ") for cell in cells]
    columns = {
        "Average": _pad([score for score, _, _ in scores], "°"),
        "difference": _pad([delta_text(cell) for cell in cells], "*§"),
        "95 %\ninterval": [interval_text(cell).replace(" ", "") for cell in cells],
        "over\nseeds": [spread for _, _, spread in scores],
    }
    shown = {title: texts for title, texts in list(columns.items())[:most] if any(texts)}
    for title in shown:
        grid.add_column(Text(title, style="bold"), justify="right", no_wrap=True)
    for at, row in enumerate(table.rows):
        grid.add_row(*_row_heads(row), *(Text(texts[at]) for texts in shown.values()))
    return grid


def _add_heads(grid: RichTable, table: Table, lines: int, broken: bool) -> None:
    """The leading columns, their texts on no more than so many lines; 0: on as many as it takes."""
    from rich.text import Text

    for at, head in enumerate(table.heads):
        # A head that says nothing but that the rows are methods is left to the reader.
        title = "" if table.heads == ("Method",) else one_line(head)
        title = re.sub(r"(?<=[._])(?=\w)|\s", "\n", title) if broken else title
        width = _head_width([one_line(row.heads[at]) for row in table.rows], lines)
        width = width if lines else min(width, _NARROW_HEAD)
        grid.add_column(Text(title, style="bold"), min_width=width, overflow="fold")


def _row_heads(row: TableRow) -> list[Text]:
    from rich.text import Text

    return [Text(one_line(text), style="italic" if row.published else "") for text in row.heads]


def _new() -> RichTable:
    from rich import box
    from rich.table import Table as RichTable

    return RichTable(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)


def _grid(table: Table, names: Sequence[str], mode: Mode, *, folded: bool = False) -> RichTable:
    grid = _new()
    _add_heads(grid, table, 0 if folded else _LINES[mode], broken=mode != "full")
    titles = dict(table.fields)
    columns = [_texts([row.cells[name] for row in table.rows], mode, name == AVERAGE) for name in names]
    for name, texts in zip(names, columns, strict=True):
        _add_numbers(grid, _head(one_line(titles[name]), broken=mode != "full"), texts)
    for at, row in enumerate(table.rows):
        grid.add_row(*_row_heads(row), *(column[at] for column in columns))
    return grid


def _sideways(table: Table, names: Sequence[str]) -> RichTable:
    """Benchmarks as rows, and rows as columns."""
    from rich.text import Text

    grid = _new()
    titles = [one_line(title) for name, title in table.fields if name in names]
    grid.add_column("", min_width=_head_width(titles, 2), overflow="fold")
    columns = [_texts([row.cells[name] for name in names], "short", False) for row in table.rows]
    for row, texts in zip(table.rows, columns, strict=True):
        _add_numbers(grid, _head(one_line(row.label), broken=True), texts)
    for at, title in enumerate(titles):
        grid.add_row(Text(title), *(column[at] for column in columns))
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

    # Long names are broken where a reader would: at a blank, a hyphen, or a dot of a path.
    at = r"\s|(?<=-)(?=[A-Z][a-z]{3})|(?<=[._])(?=\w{4})"
    return Text(re.sub(at, "\n", title) if broken else title, style="bold")


def _texts(cells: Sequence[Cell], mode: Mode, is_average: bool) -> list[Text]:
    """The cells of a column."""
    scores = [score_text(cell) for cell in cells]
    if mode != "full" and not (mode == "average" and is_average):
        scores = [score.split(" ")[0] for score in scores]
    deltas = [delta_text(cell) for cell in cells]
    intervals = [interval_text(cell).replace(" ", "") for cell in cells]
    if mode == "short" or (mode == "average" and not is_average):  # the sign stands for an interval
        deltas = [d + (UNMOVED if i == UNMOVED else "") for d, i in zip(deltas, intervals, strict=True)]
    if mode == "line":
        # Numbers stand below each other, whatever marks follow them.
        scores = _pad(scores, "°")
        deltas = _pad(deltas, "*§")
        intervals = [text.ljust(max(map(len, intervals))) for text in intervals]
    return [
        _text(cell, score, delta, interval if mode == "full" or is_average else "", mode)
        for cell, score, delta, interval in zip(cells, scores, deltas, intervals, strict=True)
    ]


def _pad(texts: Sequence[str], marks: str, least: int = 0) -> list[str]:
    """Texts of one width in which numbers end at the same place, before room for the most marks."""
    counts = [len(text) - len(text.rstrip(marks)) for text in texts]
    most = max(least, *counts)
    width = max(len(text.rstrip(marks)) for text in texts) + most
    return [(text + " " * (most - n)).rjust(width) for text, n in zip(texts, counts, strict=True)]


def _text(cell: Cell, score: str, delta: str, interval: str, mode: Mode) -> Text:
    from rich.text import Text

    text = Text(score, style="bold")
    style = "dim"
    if cell.difference and cell.difference.significant:
        style = "green" if cell.difference.delta > 0 else "red"
    if delta.strip() or (mode == "line" and delta):
        text.append((" " if mode == "line" else "\n") + delta, style=style)
        if interval and mode != "short":
            text.append(("\n" if mode == "full" else " ") + interval, style="dim")
    return text
