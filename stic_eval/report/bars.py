"""Differences to the baseline as bars (the paper's figures 1 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from stic_eval.report import canvas
from stic_eval.report.canvas import COLOURS, HATCHES, INK, LINE, MUTED, Look, needs, tall, value_text
from stic_eval.report.paired_comparison import Difference
from stic_eval.report.table_rows import AVERAGE, Cell, TableRow
from stic_eval.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_SERIES = 5  # bars side by side; with more, each benchmark gets a panel with a line for each method
_MOST_LINES = 12  # in such a panel; with more, the average has the only one


def rows_of(table: Table, methods: Sequence[str]) -> list[TableRow]:
    """The rows of some methods, or all of them. `stic+dar` is the row with describe-and-respond alone."""
    return [
        row
        for row in table.rows
        if not methods
        or row.variant.method in methods
        or row.variant.solver.of(row.variant.method) in methods
    ]


def row_label(row: TableRow, without: Sequence[str] = ()) -> str:
    """A row's name, without the axes that the figure shows otherwise."""
    variant = row.variant
    name = variant.title if "dar" in without else variant.name
    settings = {axis: value for axis, value in variant.settings.items() if axis not in {"dar", *without}}
    if settings.get("method") == variant.method:
        del settings["method"]  # which the title says
    parts = [name, *(f"{axis}={value_text(value)}" for axis, value in settings.items())]
    return canvas.plain_line(", ".join(parts))


def row_key(row: TableRow, without: Sequence[str] = ()) -> str:
    """What rows of one line or panel have in common. Names that look alike do not make them one."""
    variant = row.variant
    settings = sorted((a, canvas.key(v)) for a, v in variant.settings.items() if a not in {"dar", *without})
    return repr((variant.model, variant.method, "dar" not in without and variant.solver.suffix, settings))


def column_title(table: Table, name: str) -> str:
    """A column's printed name."""
    titles = (canvas.plain_line(column.title) for column in table.columns if column.name == name)
    return next(titles, "Average")


def mark_of(cell: Cell) -> str:
    """What stands beside a number: stars, and a ring where something is left out."""
    return (cell.difference.mark if cell.difference else "") + ("" if cell.complete else "°")


def reach(difference: Difference) -> tuple[float, float]:
    """How far the interval reaches below and above the difference, in points."""
    # A percentile interval may leave out its own estimate by a hair; a bar has no negative length.
    delta = difference.delta
    return max(0.0, delta - difference.low), max(0.0, difference.high - delta)


def notes_of(cells: Sequence[Cell], *, stars: bool = True, filled: bool = False) -> list[str]:
    """What the marks beside these cells mean, for under a figure."""
    marks = [cell.difference.mark for cell in cells if cell.difference and stars]
    return canvas.marks_note(marks, any(not cell.complete for cell in cells), filled=filled)


def gains(table: Table, look: Look, notes: Sequence[str] = ()) -> Figure:
    """Bars of the difference to the baseline with 95 % intervals, for each benchmark and the average.

    Few methods stand side by side over each benchmark; many get a line in a panel for each benchmark, and
    a whole grid of an ablation a line in one panel for the average. Panels have a scale each: a difference
    in the average is small beside those of single benchmarks.

    Raises:
        UserError: Nothing is compared with a baseline.
    """
    names = [look.benchmark] if look.benchmark else [*(column.name for column in table.columns), AVERAGE]
    names = [name for name in names if name != AVERAGE or len(table.columns) > 1 or look.benchmark]
    rows = [r for r in rows_of(table, look.methods) if any(r.cells[name].difference for name in names)]
    if not rows:
        raise needs("gains", "nothing of this run is compared with a baseline")
    names = [name for name in names if any(row.cells[name].difference for row in rows)]
    if len(rows) > _MOST_LINES and AVERAGE in names:
        names = [AVERAGE]
    titles = [column_title(table, name) for name in names]
    slot = (look.width - 0.6) / len(names)
    words = max(len(word) for title in titles for word in title.replace("-", "- ").split())
    side_by_side = len(names) > 1 and len(rows) <= _MOST_SERIES
    if side_by_side and slot / (len(rows) + 1) >= 0.12 and words * canvas.LETTER <= slot:
        return _grouped_bars(rows, names, titles, look.width, slot, notes)
    return _panels(rows, names, titles, look.width, notes)


def _colours(keys: Sequence[str]) -> list[str]:
    """A colour for each row; rows of one key have the same."""
    order = list(dict.fromkeys(keys))
    return [canvas.pale(COLOURS[order.index(key) % len(COLOURS)]) for key in keys]


def _deltas(row: TableRow, names: Sequence[str]) -> list[tuple[int, float, tuple[float, float], str]]:
    """(position, delta, distances to the interval's ends, mark) of the cells that have a difference."""
    cells = ((i, row.cells[name], row.cells[name].difference) for i, name in enumerate(names))
    return [(i, d.delta, reach(d), mark_of(cell)) for i, cell, d in cells if d is not None]


def _grouped_bars(
    rows: Sequence[TableRow],
    names: Sequence[str],
    titles: Sequence[str],
    width: float,
    slot: float,
    notes: Sequence[str],
) -> Figure:
    figure = canvas.new(width, 3.0, "Difference to the baseline by benchmark")
    axes = figure.add_subplot()
    thickness = 0.8 / len(rows)
    bars = []
    for k, (row, colour) in enumerate(
        zip(rows, _colours([row_key(row, ("dar",)) for row in rows]), strict=True)
    ):
        cells = _deltas(row, names)
        at = [i + (k - (len(rows) - 1) / 2) * thickness for i, *_ in cells]
        deltas = [delta for _, delta, *_ in cells]
        ends = [[low for *_, (low, _), _ in cells], [high for *_, (_, high), _ in cells]]
        bars.append(
            axes.bar(at, deltas, thickness, yerr=ends, color=colour, edgecolor="black", linewidth=0.6,
                     hatch=HATCHES[k % len(HATCHES)], hatchcolor=INK,
                     error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": INK}, label=row_label(row))
        )  # fmt: skip
        for x, (_, delta, (low, high), mark) in zip(at, cells, strict=True):
            up = delta >= 0
            axes.annotate(mark, (x, delta + high if up else delta - low), (0, 1 if up else -2),
                          textcoords="offset points", ha="center", va="bottom" if up else "top")  # fmt: skip
    canvas.zero_line(axes)
    axes.margins(y=0.12)
    axes.set_xlim(-0.55, len(names) - 0.45)
    axes.set_xticks(range(len(names)), [_wrap_title(title, slot) for title in titles])
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_formatter(signed)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    if names[-1] == AVERAGE and len(names) > 1:
        axes.axvline(len(names) - 1.5, color=MUTED, linewidth=0.7, linestyle=(0, (1, 2)))
    axes.set_ylabel("Difference to the baseline (points)")
    extra = canvas.legend(figure, bars, [row_label(row) for row in rows], width)
    extra += canvas.footnote(figure, [*_notes(rows, names), *notes])
    return canvas.resize(figure, 2.6 + extra)


def _panels(
    rows: Sequence[TableRow], names: Sequence[str], titles: Sequence[str], width: float, notes: Sequence[str]
) -> Figure:
    figure = canvas.new(width, 3.0, "Difference to the baseline by method")
    narrow = width < 4.5
    raw = [row_label(row) for row in rows]
    room = min(2.2, (0.35 if narrow else 0.4) * width, 0.1 + max(len(label) for label in raw) * canvas.LETTER)
    labels = [canvas.wrap(label, room) for label in raw]
    across = max(1, min(len(names), int((width - room) / (0.65 if narrow else 0.92))))
    across = math.ceil(len(names) / math.ceil(len(names) / across))  # rows of panels of even length
    down = math.ceil(len(names) / across)
    titles = [_wrap_title(title, (width - room) / across - 0.1) for title in titles]
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    at = [0.0]
    for above, below in pairwise(labels):
        at.append(at[-1] + (0.03 if narrow else 0.06) + (tall(above) + tall(below)) / 2)
    colours = _colours([row.variant.method for row in rows])
    last = len(names) - 1
    for i, axes in enumerate(grid.flat):
        if i > last:
            axes.set_axis_off()
            continue
        axes.set_title(titles[i])
        axes.tick_params(axis="y", length=0)
        if not any(_differs(row, names[i]) for row in rows):
            axes.text(
                0.5, 0.5, "no\ndifference", transform=axes.transAxes, ha="center", va="center", color=MUTED
            )
            axes.spines[:].set_visible(False)
            axes.set_xticks([])
            continue
        for k, row in enumerate(rows):
            for _, delta, (low, high), mark in _deltas(row, [names[i]]):
                axes.barh(
                    at[k], delta, LINE * 0.9, xerr=[[low], [high]], color=colours[k], edgecolor="black",
                    linewidth=0.6, hatch="////" if row.variant.solver.suffix else "", hatchcolor=INK,
                    error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": INK},
                )  # fmt: skip
                text = f"{delta:+.1f}{mark}".replace("-", "−") if across == 1 else mark
                right = delta >= 0 or across == 1
                axes.annotate(text, (max(0.0, delta + high) if right else delta - low, at[k]),
                              (2 if right else -2, -1), textcoords="offset points",
                              ha="left" if right else "right", va="center")  # fmt: skip
        canvas.zero_line(axes, upright=True)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(signed)
        axes.locator_params(axis="x", nbins=5 if across == 1 else 3)
        axes.margins(x=0.18 if across == 1 else 0.14)
    first = grid[0][0]
    first.set_yticks(at, labels)
    ends = (tall(labels[0]) / 2 + 0.05, tall(labels[-1]) / 2 + 0.05)
    first.set_ylim(at[-1] + ends[1], -ends[0])
    scales = ["Each panel has its own scale."] if len(names) > 1 else []
    texts = ["Difference to the baseline in points.", *scales, *_notes(rows, names), *notes]
    extra = canvas.footnote(figure, texts)
    heading = max(map(tall, titles))
    return canvas.resize(figure, down * (at[-1] + sum(ends) + 0.33 + heading) + 0.1 + extra)


def _wrap_title(title: str, inches: float) -> str:
    """A benchmark's name in lines that fit into so many inches; hyphens are where it breaks best."""
    if len(title) * canvas.LETTER <= inches:
        return title
    return canvas.wrap(title.replace("-", "- "), inches).replace("- ", "-")


def _differs(row: TableRow, name: str) -> bool:
    """Whether anything of a difference is seen on a scale."""
    d = row.cells[name].difference
    return d is not None and any((d.delta, d.low, d.high))


def signed(value: float, _: float | None = None) -> str:
    return f"{value:+g}".replace("-", "−") if abs(value) > 1e-9 else "0"


def _notes(rows: Sequence[TableRow], names: Sequence[str]) -> list[str]:
    cells = [row.cells[name] for row in rows for name in names if row.cells[name].difference]
    return ["Error bars: 95 % interval.", *notes_of(cells)]
