"""The difference to the baseline as a map over two axes of an ablation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from stic_eval.report import canvas
from stic_eval.report.bars import column_title, mark_of, notes_of, row_key, row_label, rows_of, signed
from stic_eval.report.canvas import Look, needs, plain_line, tall, value_text
from stic_eval.report.cell_text import interval_text
from stic_eval.report.table_rows import AVERAGE, Cell, TableRow
from stic_eval.report.tables import Table
from stic_eval.types import SolverLabel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_MOST_PANELS = 12


def heatmap(
    table: Table, ablated: Mapping[str, Sequence[Any]], look: Look, notes: Sequence[str] = ()
) -> Figure:
    """The difference to the baseline over two axes of an ablation, a panel for each method and third axis.

    Raises:
        UserError: The run has fewer than two axes, or leaves too many panels.
    """
    open_axes = [axis for axis, values in ablated.items() if len(values) > 1]
    wanted = [axis for axis in (look.y, look.x) if axis]
    rest = [axis for axis in open_axes if axis not in wanted]
    if len(wanted) + len(rest) < 2:
        raise needs("heatmap", "needs an ablation over two axes or more (`stic-eval ablate --vary`)")
    y = look.y or rest.pop(0)
    x = look.x or rest.pop(0)
    if x == y:
        raise needs("heatmap", f"--x and --y are both {plain_line(x)}; give two axes")
    name = look.benchmark or AVERAGE
    panels = _by_panel(table, ablated, (x, y), name, look.methods)
    if not panels:
        raise needs("heatmap", "no cell of this run is compared with a baseline")
    cells = len(ablated[x]) * len(ablated[y])
    panels = [panel for panel in panels if 2 * len(panel.cells) > cells]
    if not panels:
        raise needs("heatmap", f"most combinations of {plain_line(x)} and {plain_line(y)} were not run")
    if len(panels) > _MOST_PANELS:
        raise needs("heatmap", f"would have {len(panels)} panels; choose with --method, or other axes")
    along = {canvas.key(value): value_text(value) for value in canvas.in_order(ablated[x])}
    down = {canvas.key(value): value_text(value) for value in canvas.in_order(ablated[y])}
    return _maps(
        panels, (plain_line(x), plain_line(y)), along, down, column_title(table, name), look.width, notes
    )


@dataclass(frozen=True, slots=True)
class _Panel:
    """A map.

    Attributes:
        heading: What its cells have in common.
        solver: How they answer, where no axis of the map says so.
        others: Axis -> value (as keys) of the settings that the map has no axis for.
        cells: (value of x, value of y) -> the cell there, and its name where it is not of the heading's
            method.
    """

    heading: str
    solver: SolverLabel
    others: Mapping[str, str]
    cells: dict[tuple[str, str], tuple[Cell, str]]


def _by_panel(
    table: Table,
    ablated: Mapping[str, Sequence[Any]],
    shown: tuple[str, str],
    name: str,
    methods: Sequence[str],
) -> list[_Panel]:
    """The maps of a table.

    The baseline is what a method comes to where all of its parts are off: in such a grid its cells stand
    in the method's maps.
    """
    bases = [
        r for r in table.rows if r.variant.method == "baseline" and set(shown) <= set(r.variant.settings)
    ]
    wanted = [row for row in rows_of(table, methods) if set(shown) <= set(row.variant.settings)]
    panels: dict[str, _Panel] = {}
    _add(panels, [row for row in wanted if row.variant.method != "baseline"], shown, name)
    homeless = []
    for row in bases:
        hosts = [panel for panel in panels.values() if panel.others == _others(row, shown)]
        for panel in hosts:
            scored = row.cells[name].score is not None
            if scored and ("dar" in shown or panel.solver == row.variant.solver):
                panel.cells.setdefault(_place(row, shown), (row.cells[name], row.variant.name))
        homeless += [] if hosts else [id(row)]
    bare = [{a: canvas.key(v) for a, v in row.variant.settings.items() if a != "dar"} for row in bases]
    for row in table.rows:
        variant = row.variant
        if variant.method == "baseline" and variant.solver.plain and row.cells[name].difference is None:
            for panel in panels.values():
                _place_reference(panel, ablated, shown, bare, (row.cells[name], variant.name))
            break
    _add(panels, [row for row in wanted if id(row) in homeless], shown, name)
    return list(panels.values())


def _add(panels: dict[str, _Panel], rows: Sequence[TableRow], shown: tuple[str, str], name: str) -> None:
    for row in rows:
        if row.cells[name].difference:
            new = _Panel(row_label(row, shown), row.variant.solver, _others(row, shown), {})
            panel = panels.setdefault(row_key(row, shown), new)
            panel.cells[_place(row, shown)] = row.cells[name], ""


def _place_reference(
    panel: _Panel,
    ablated: Mapping[str, Sequence[Any]],
    shown: tuple[str, str],
    bare: Sequence[Mapping[str, str]],
    cell: tuple[Cell, str],
) -> None:
    """Puts the baseline where nothing is trained and nothing described.

    No row of the table stands there: such a cell is the baseline itself, which is evaluated once.
    """
    off = canvas.key(False)
    for place in product(*([canvas.key(value) for value in ablated[axis]] for axis in shown)):
        settings = {**panel.others, **dict(zip(shown, place, strict=True))}
        dar = settings.pop("dar", None)
        plain = panel.solver.plain if dar is None else dar not in (canvas.key("on"), canvas.key(True))
        untrained = settings.get("stage1.use") == off == settings.get("stage2.use") or settings in bare
        if untrained and plain:
            panel.cells.setdefault((place[0], place[1]), cell)


def _place(row: TableRow, shown: tuple[str, str]) -> tuple[str, str]:
    x, y = (canvas.key(row.variant.settings[axis]) for axis in shown)
    return x, y


def _others(row: TableRow, shown: tuple[str, str]) -> dict[str, str]:
    settings = row.variant.settings.items()
    return {axis: canvas.key(value) for axis, value in settings if axis not in (*shown, "dar")}


def _maps(
    panels: Sequence[_Panel],
    axes_names: tuple[str, str],
    xs: Mapping[str, str],
    ys: Mapping[str, str],
    title: str,
    width: float,
    notes: Sequence[str],
) -> Figure:
    longest = max(len(value) for value in ys.values()) * canvas.LETTER + 0.05
    room = 0.4 + min(longest, 0.28 * width)
    across = max(1, min(len(panels), int((width - 0.6) / (room + len(xs) * 0.62))))
    across = math.ceil(len(panels) / math.ceil(len(panels) / across))
    down = math.ceil(len(panels) / across)
    cell_width = (width - 0.75 - across * room) / across / len(xs)
    if cell_width < 0.36:
        raise needs("heatmap", f"{len(xs)} columns do not fit in {width:g} inches; give a larger --width")
    figure = canvas.new(width, 3.0, f"Difference to the baseline over {axes_names[0]} and "
                                    f"{axes_names[1]}: {title}")  # fmt: skip
    grid = figure.subplots(down, across, squeeze=False)
    cells = [cell for panel in panels for cell, _ in panel.cells.values()]
    limit = max([abs(cell.difference.delta) for cell in cells if cell.difference] + [0.1])
    colours = _diverging()
    longest = max(len(interval_text(cell)) for cell in cells)
    intervals = longest * canvas.LETTER < cell_width - 0.04
    image = None
    ylabels = [canvas.wrap(value, room - 0.4) for value in ys.values()]
    xlabels = [canvas.wrap(value, cell_width) for value in xs.values()]
    for i, axes in enumerate(grid.flat):
        if i >= len(panels):
            axes.set_axis_off()
            continue
        panel = panels[i].cells
        values = [[_delta(panel.get((x, y), (None, ""))[0]) for x in xs] for y in ys]
        # Rectangles rather than a picture: sharp at any size, and no picture inside of the SVG.
        edges = np.arange(len(xs) + 1) - 0.5, np.arange(len(ys) + 1) - 0.5
        image = axes.pcolormesh(*edges, np.array(values), cmap=colours, vmin=-limit, vmax=limit,
                                edgecolors="white", linewidth=1.0)  # fmt: skip
        axes.invert_yaxis()
        for (r, y), (c, x) in product(enumerate(ys), enumerate(xs)):
            cell, whose = panel.get((x, y), (None, ""))
            _write(axes, c, r, cell, colours, limit, intervals, canvas.wrap(whose, cell_width))
        axes.set_xticks(range(len(xs)), xlabels)
        axes.set_yticks(range(len(ys)), ylabels)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(canvas.wrap(panels[i].heading, width / across - 0.2))
        axes.set_xlabel(axes_names[0])
        axes.set_ylabel(axes_names[1])
    if image is not None:
        bar = figure.colorbar(image, ax=list(grid.flat), shrink=1.0, aspect=18, pad=0.02, format=signed)
        bar.set_label("points")
        bar.outline.set_visible(False)
        if bar.solids is not None:
            bar.solids.set(rasterized=False, edgecolor="face")  # edges close the seams between colours
    said = " and its 95 % interval" if intervals else ""
    extra = canvas.footnote(
        figure,
        [f"{title}: difference to the baseline in points{said}.", *notes_of(cells), *notes],
    )
    heading_height = max(tall(canvas.wrap(panel.heading, width / across - 0.2)) for panel in panels)
    names = [canvas.wrap(whose, cell_width) for panel in panels for _, whose in panel.cells.values()]
    lines = 1 + intervals + max(len(name.splitlines()) for name in names)
    tall_rows = max(*(tall(label) for label in ylabels), canvas.LINE * lines) + 0.08
    labels_height = max(tall(label) for label in xlabels)
    return canvas.resize(
        figure, down * (max(0.42, tall_rows) * len(ys) + 0.4 + heading_height + labels_height) + 0.1 + extra
    )


def _delta(cell: Cell | None) -> float:
    if cell is None:
        return math.nan
    return cell.difference.delta if cell.difference else 0.0


def _write(
    axes: Axes,
    column: int,
    row: int,
    cell: Cell | None,
    colours: Colormap,
    limit: float,
    interval: bool,
    whose: str,
) -> None:
    """Writes a cell's number into it, and whose it is; hatches one that has none."""
    from matplotlib.patches import Rectangle

    if cell is None:
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#F2F2F2", edgecolor="#B5B5B5", hatch="///",
                      linewidth=0)
        )  # fmt: skip
        axes.text(column, row, "not\nrun", ha="center", va="center", linespacing=0.9,
                  bbox={"facecolor": "#F2F2F2", "edgecolor": "none", "pad": 1})  # fmt: skip
        return
    if cell.difference is None:
        axes.text(column, row, whose, ha="center", va="center", color="black")
        return
    delta = cell.difference.delta
    text = f"{delta:+.1f}{mark_of(cell)}" + (f"\n{interval_text(cell)}" if interval else "")
    text = text.replace("-", "−") + f"\n{whose}" * bool(whose)
    behind = colours((delta / limit + 1) / 2)
    # Relative luminance (WCAG 2): below 0.18 white has more contrast than black.
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in behind[:3]]
    dark = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.18
    axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")


def _diverging() -> Colormap:
    """Vermilion over white to blue: each side darkens steadily, and both equally, away from zero."""
    from matplotlib.colors import LinearSegmentedColormap

    low, high = ("#6B2A00", "#C85A12", "#F3B27A"), ("#8CC4EA", "#1F7DBB", "#003A66")
    return LinearSegmentedColormap.from_list("differences", [*low, "#FFFFFF", *high])
