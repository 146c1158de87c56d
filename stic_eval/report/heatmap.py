"""The difference to the baseline as a map over two axes of an ablation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from stic_eval.report import canvas
from stic_eval.report.bars import chosen, column_title, mark_of, notes_of, row_key, row_label, signed
from stic_eval.report.canvas import Look, needs, plain, tall, value_text
from stic_eval.report.tables import AVERAGE, Cell, Row, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

_MOST_PANELS = 12


def heatmap(table: Table, ablated: Mapping[str, Sequence[Any]], look: Look) -> Figure:
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
        raise needs("heatmap", f"--x and --y are both {plain(x)}; give two axes")
    name = look.benchmark or AVERAGE
    panels = _by_panel(table, x, y, name, look.methods)
    if not panels:
        raise needs("heatmap", "no cell of this run is compared with a baseline")
    cells = len(ablated[x]) * len(ablated[y])
    panels = [panel for panel in panels if 2 * len(panel[1]) > cells]
    if not panels:
        raise needs("heatmap", f"most combinations of {plain(x)} and {plain(y)} were not run")
    if len(panels) > _MOST_PANELS:
        raise needs("heatmap", f"would have {len(panels)} panels; choose with --method, or other axes")
    along = {canvas.key(value): value_text(value) for value in canvas.in_order(ablated[x])}
    down = {canvas.key(value): value_text(value) for value in canvas.in_order(ablated[y])}
    return _maps(panels, (plain(x), plain(y)), along, down, column_title(table, name), look.width)


Panel = tuple[str, dict[tuple[str, str], Cell]]


def _by_panel(table: Table, x: str, y: str, name: str, methods: Sequence[str]) -> list[Panel]:
    """Panels: a heading, and (value of x, value of y) -> cell.

    The baseline is what a method comes to where all of its parts are off: in such a grid its cells stand
    in the method's panels.
    """
    panels: dict[str, Panel] = {}
    places: dict[str, tuple[object, ...]] = {}
    rows = [row for row in table.rows if x in row.variant.settings and y in row.variant.settings]
    compared_with = [
        r.cells[name] for r in table.rows if r.variant.method == "baseline" and not r.variant.dar
    ]
    reference = next((cell for cell in compared_with if cell.difference is None), None)
    for row in sorted(rows, key=lambda row: row.variant.method == "baseline"):  # the baseline's last
        settings, cell = row.variant.settings, row.cells[name]
        place = canvas.key(settings[x]), canvas.key(settings[y])
        if row.variant.method == "baseline":
            others = {key: rest for key, rest in places.items() if rest[1:] == _rest(row, x, y)[1:]}
            for key, rest in others.items():
                same = rest[0] == row.variant.dar or "dar" in (x, y)
                found = cell if same else reference if not rest[0] else None
                if found is not None:
                    panels[key][1].setdefault(place, found)
            if others:
                continue
        if cell.difference and row in chosen(table, methods):
            key = row_key(row, (x, y))
            places.setdefault(key, _rest(row, x, y))
            panels.setdefault(key, (row_label(row, (x, y)), {}))[1][place] = cell
    return list(panels.values())


def _rest(row: Row, x: str, y: str) -> tuple[object, ...]:
    """Whether a row describes and responds, and its settings on other axes."""
    settings = row.variant.settings.items()
    others = sorted((axis, canvas.key(value)) for axis, value in settings if axis not in (x, y, "dar"))
    return row.variant.dar, *others


def _maps(
    panels: Sequence[Panel],
    axes_names: tuple[str, str],
    xs: Mapping[str, str],
    ys: Mapping[str, str],
    title: str,
    width: float,
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
    cells = [cell for _, panel in panels for cell in panel.values()]
    limit = max([abs(cell.difference.delta) for cell in cells if cell.difference] + [0.1])
    colours = _diverging()
    longest = max(len(_interval(cell)) for cell in cells)
    intervals = longest * canvas.LETTER < cell_width - 0.04
    image = None
    ylabels = [canvas.wrapped(value, room - 0.4) for value in ys.values()]
    xlabels = [canvas.wrapped(value, cell_width) for value in xs.values()]
    for i, axes in enumerate(grid.flat):
        if i >= len(panels):
            axes.set_axis_off()
            continue
        heading, panel = panels[i]
        values = [[_delta(panel.get((x, y))) for x in xs] for y in ys]
        # Rectangles rather than a picture: sharp at any size, and no picture inside of the SVG.
        edges = np.arange(len(xs) + 1) - 0.5, np.arange(len(ys) + 1) - 0.5
        image = axes.pcolormesh(*edges, np.array(values), cmap=colours, vmin=-limit, vmax=limit,
                                edgecolors="white", linewidth=1.0)  # fmt: skip
        axes.invert_yaxis()
        for (r, y), (c, x) in product(enumerate(ys), enumerate(xs)):
            _write(axes, c, r, panel.get((x, y)), colours, limit, intervals)
        axes.set_xticks(range(len(xs)), xlabels)
        axes.set_yticks(range(len(ys)), ylabels)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(canvas.wrapped(heading, width / across - 0.2))
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
        [f"{title}: difference to the baseline in points{said}.", *notes_of(cells)],
    )
    heading_height = max(tall(canvas.wrapped(name, width / across - 0.2)) for name, _ in panels)
    tall_rows = max(tall(label) for label in ylabels) + 0.08
    labels_height = max(tall(label) for label in xlabels)
    return canvas.resize(
        figure, down * (max(0.42, tall_rows) * len(ys) + 0.4 + heading_height + labels_height) + 0.1 + extra
    )


def _delta(cell: Cell | None) -> float:
    if cell is None:
        return math.nan
    return cell.difference.delta if cell.difference else 0.0


def _interval(cell: Cell) -> str:
    return f"[{cell.difference.low:.1f}, {cell.difference.high:.1f}]" if cell.difference else ""


def _write(
    axes: Axes, column: int, row: int, cell: Cell | None, colours: Colormap, limit: float, interval: bool
) -> None:
    """Writes a cell's number into it; hatches one that has none."""
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
        axes.text(column, row, "baseline", ha="center", va="center", color="black")
        return
    delta = cell.difference.delta
    text = f"{delta:+.1f}{mark_of(cell)}" + (f"\n{_interval(cell)}" if interval else "")
    behind = colours((delta / limit + 1) / 2)
    # Relative luminance (WCAG 2): below 0.18 white has more contrast than black.
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in behind[:3]]
    dark = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.18
    axes.text(
        column, row, text.replace("-", "−"), ha="center", va="center", color="white" if dark else "black"
    )


def _diverging() -> Colormap:
    """Vermilion over white to blue: each side darkens steadily, and both equally, away from zero."""
    from matplotlib.colors import LinearSegmentedColormap

    low, high = ("#6B2A00", "#C85A12", "#F3B27A"), ("#8CC4EA", "#1F7DBB", "#003A66")
    return LinearSegmentedColormap.from_list("differences", [*low, "#FFFFFF", *high])
