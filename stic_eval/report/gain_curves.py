"""What is gained step by step (the paper's figure 5) and with more data (figure 6)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from stic_eval.errors import UserError
from stic_eval.report import canvas, paper_scores
from stic_eval.report.bars import column_title, mark_of, notes_of, reach, row_key, row_label, rows_of, signed
from stic_eval.report.canvas import COLOURS, DASHES, INK, MARKERS, Look, needs, plain_line, value_text
from stic_eval.report.table_rows import AVERAGE, Cell, TableRow
from stic_eval.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS = ("base", "stage1", "stage2", "stage2+dar")
_STEP_TITLES = {"base": "Base", "stage1": "Stage 1", "stage2": "Stage 2", "stage2+dar": "Stage 2\n+ DaR"}
_STAGE_AXES = {"stage1.use", "stage2.use", "dar"}
_LOG_FROM = 8.0  # the largest value over the smallest from which on an axis is logarithmic
_MOST_LINES = 14
_MOST_STARRED = 3  # lines that leave room for stars; where there are more, filled markers have to do


def progression(table: Table, look: Look, notes: Sequence[str] = ()) -> Figure:
    """The score after each step of STIC: base, stage 1, stage 2, describe-and-respond.

    Steps come from the rows `baseline`, `stic_stage1`, `stic` of a run, or from an ablation over
    `stage1.use`, `stage2.use` and `dar`. Published scores get a panel of their own: they are of another
    model, and mostly far away on the scale. A step without a score breaks the line.

    Raises:
        UserError: There are fewer than two steps.
    """
    name = look.benchmark or AVERAGE
    rows = {step: row for step, row in _steps(table).items() if row.cells[name].score is not None}
    if "base" not in rows or len(rows) < 2:
        raise needs("progression", "needs the baseline and at least one of the methods stic_stage1 and stic")
    title = column_title(table, name)
    label = f"{title} after each step"
    figure = canvas.new(look.width, 3.0, label)
    stacked = look.published and look.width < 4.5
    n = 1 + look.published
    panels: Sequence[Axes] = list(
        figure.subplots(n if stacked else 1, 1 if stacked else n, squeeze=False).flat
    )
    room = look.width / (1 if stacked else n) - 0.6
    first = panels[0]
    model = plain_line(rows["base"].variant.model)
    heading = f"{title}: {model}" if model else title
    first.set_title(canvas.wrap(heading, room))
    points = {}
    for step, row in rows.items():
        d, score = row.cells[name].difference, float(row.cells[name].score or 0.0)
        points[step] = (score, *(reach(d) if d else (0.0, 0.0)))
    _seeds(first, {step: _scores_by_seed(row, name, table.averaged) for step, row in rows.items()}, points)
    texts = {step: f"{points[step][0]:.1f}" + _gain(row, name) for step, row in rows.items()}
    _stairs(first, points, texts, (COLOURS[0], MARKERS[0], "-"))
    if look.published:
        paper = _published_scores(name, table.averaged, title)
        panels[1].set_title(canvas.wrap(f"{title}: {paper_scores.MODEL} (published)", room))
        texts = {step: f"{value:.1f}" for step, value in paper.items()}
        points = {step: (value, 0.0, 0.0) for step, value in paper.items()}
        _stairs(panels[1], points, texts, (COLOURS[4], MARKERS[1], DASHES[1]), "no figure")
    first.set_ylabel("Score (%)")
    cells = [row.cells[name] for row in rows.values()]
    said = ["Error bars: 95 % interval of the difference to the base.", *notes_of(cells), *notes]
    if any(len(row.variant.seeds) > 1 for row in rows.values()):
        said.insert(1, "Dashes: training seeds, equal ones side by side.")
    return canvas.resize(figure, (4.6 if stacked else 2.5) + canvas.footnote(figure, said))


def _steps(table: Table) -> dict[str, TableRow]:
    """The rows that are steps. A cell with any other setting is not one."""
    found: dict[str, TableRow] = {}
    for row in table.rows:
        settings = row.variant.settings
        if set(settings) - _STAGE_AXES:
            continue
        step = {"baseline": "base", "stic_stage1": "stage1"}.get(row.variant.method, "")
        if row.variant.method == "stic" and settings.get("stage1.use", True):
            step = "stage2" if settings.get("stage2.use", True) else "stage1"
        if (step := row.variant.solver.of(step)) in STEPS:
            found.setdefault(step, row)
    return {step: found[step] for step in STEPS if step in found}


def _published_scores(name: str, averaged: Sequence[str], title: str) -> dict[str, float]:
    """Step -> the paper's score, from its table 2, and for ScienceQA figure 5.

    The average is over the benchmarks that the run averages.
    """
    rows = {(row.method, bool(row.dar)): row.scores for row in paper_scores.describe_and_respond()}
    steps = {"base": ("", False), "stage2": ("STIC", False), "stage2+dar": ("STIC", True)}
    found = {}
    for step, which in steps.items():
        scores = [rows[which].get(column) for column in (averaged if name == AVERAGE else [name])]
        known = [score for score in scores if score is not None]
        if known and len(known) == len(scores):
            found[step] = mean(known)
    if name == "scienceqa":
        found["stage1"] = float(paper_scores.paper()["figure5"]["stage1"])
    if not found:
        raise UserError(f"--published: the paper has no scores of {title}")
    return {step: found[step] for step in STEPS if step in found}


def _stairs(
    axes: Axes,
    points: Mapping[str, tuple[float, float, float]],
    texts: Mapping[str, str],
    look: tuple[str, str, Any],
    absent: str = "not evaluated",
) -> None:
    """Draws steps as points on a line.

    Args:
        points: Step -> score, and how far its interval reaches down and up.
        texts: Step -> what is written beside it.
        absent: What is said of a step without a score.
    """
    colour, marker, dashes = look
    found = [points.get(step, (math.nan,) * 3) for step in STEPS]  # what is not there breaks the line
    ends = [[low for _, low, _ in found], [high for *_, high in found]]
    bars = any(low > 0 or high > 0 for _, low, high in found)
    axes.errorbar(
        range(len(STEPS)), [score for score, *_ in found], yerr=ends, color=colour, marker=marker,
        linestyle=dashes, linewidth=1.4, ecolor=INK, elinewidth=0.9, capsize=2.5 if bars else 0,
    )  # fmt: skip
    for step, (score, _, high) in points.items():
        # Above the interval and leaning left: the line mostly rises to the right.
        axes.annotate(texts[step], (STEPS.index(step), score + high), (8 if high else -3, 3),
                      textcoords="offset points", ha="right", va="bottom")  # fmt: skip
    titles = [title if step in points else f"{title}\n({absent})" for step, title in _STEP_TITLES.items()]
    axes.set_xticks(range(len(STEPS)), titles)
    axes.set_xlim(-0.7, len(STEPS) - 0.3)
    axes.margins(y=0.22)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _seeds(
    axes: Axes, seeds: Mapping[str, Sequence[float]], points: Mapping[str, tuple[float, float, float]]
) -> None:
    """A dash for each training seed beside its step's point; what would lie on another goes beside it."""
    from matplotlib.transforms import ScaledTranslation

    shown = [value for values in seeds.values() for value in values]
    shown += [end for score, low, high in points.values() for end in (score - low, score + high)]
    thickness = 0.015 * (max(shown) - min(shown))
    for step, values in seeds.items():
        ends: list[float] = []  # for each place, the highest dash in it
        for value in sorted(values if len(values) > 1 else ()):
            place = next((k for k, end in enumerate(ends) if value - end > thickness), len(ends))
            ends[place : place + 1] = [value]
            aside = ScaledTranslation((9 + 6.5 * place) / 72, 0, axes.figure.dpi_scale_trans)
            axes.plot(
                [STEPS.index(step)], [value], "_", markersize=5, color=INK, transform=axes.transData + aside
            )
            axes.update_datalim([(STEPS.index(step), value)])


def _gain(row: TableRow, name: str) -> str:
    cell = row.cells[name]
    if cell.difference is None:
        return "" if cell.complete else "°"
    return f"\n({cell.difference.delta:+.1f}{mark_of(cell)})".replace("-", "−")


def _scores_by_seed(row: TableRow, name: str, averaged: Sequence[str]) -> list[float]:
    """A row's score for each training seed, in percent."""
    names = averaged if name == AVERAGE else [name]
    runs = zip(*(row.variant.summaries.get(column, ()) for column in names), strict=False)
    return [
        mean(s.score for s in run if s.score is not None)
        for run in runs
        if all(s.score is not None for s in run)
    ]


# ---------------------------------------------------------------- scaling


def quantities(ablated: Mapping[str, Sequence[Any]]) -> list[str]:
    """Axes of numbers, which something can be drawn over."""
    return [axis for axis, values in ablated.items() if canvas.numeric(values)]


def scaling(
    table: Table, ablated: Mapping[str, Sequence[Any]], look: Look, notes: Sequence[str] = ()
) -> Figure:
    """The difference to the baseline over an axis of numbers, a line for each method and other setting.

    Where there is no baseline, the score. A line breaks at a value that it has no score for.

    Args:
        look: What is chosen about it; without an axis, the first one of numbers.

    Raises:
        UserError: The axis is not one of numbers, or there are too many lines.
    """
    axis = _number_axis(ablated, look)
    name = look.benchmark or AVERAGE
    rows: dict[str, list[TableRow]] = {}
    for row in rows_of(table, look.methods):
        if axis in row.variant.settings and row.cells[name].score is not None:
            rows.setdefault(row_key(row, (axis,)), []).append(row)
    compared = any(row.cells[name].difference for line in rows.values() for row in line)
    places = sorted({float(value) for value in ablated[axis]})
    lines = {key: _points(line, axis, name, places, compared) for key, line in rows.items()}
    lines = {key: points for key, points in lines.items() if points}
    # What departs from the default in another axis alone has one place on this one: no line.
    several = {key: points for key, points in lines.items() if len(points) > 1}
    single = len(lines) - len(several) if several else 0
    lines = several or lines
    drawn = {point[0] for points in lines.values() for point in points if not math.isnan(point[1])}
    if len(drawn) < 2:
        raise needs(
            "scaling", f"needs scores at two values of {plain_line(axis)}; this run has {len(drawn)} so far"
        )
    if len(lines) > _MOST_LINES:
        raise needs("scaling", f"would have {len(lines)} lines; choose with --method, or another --x")
    title = column_title(table, name)
    figure = canvas.new(look.width, 3.0, f"{title} over {plain_line(axis)}")
    axes = figure.add_subplot()
    for k, points in enumerate(lines.values()):
        _line(axes, points, k, len(lines), compared)
    if compared:
        canvas.zero_line(axes)
        axes.yaxis.set_major_formatter(signed)
    axes.margins(y=0.12)
    _ticks(axes, [v for v in canvas.in_order(ablated[axis]) if float(v) in drawn], look.width, len(lines))
    axes.set_xlabel(plain_line(axis))
    axes.set_ylabel(f"{title}: " + ("difference to\nthe baseline (points)" if compared else "score (%)"))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    cells = [row.cells[name] for key in lines for row in rows[key]]
    remarks = _remarks(cells, lines.values(), compared)
    if single:
        remarks.append(
            f"Not drawn: {single} setting{'s' * (single > 1)} with a single value of {plain_line(axis)}."
        )
    extra = canvas.footnote(figure, [*remarks, *notes])
    labels = [row_label(rows[key][0], (axis,)) for key in lines]
    extra += canvas.legend(figure, axes.get_legend_handles_labels()[0], labels, look.width)
    return canvas.resize(figure, 2.5 + extra)


def _number_axis(ablated: Mapping[str, Sequence[Any]], look: Look) -> str:
    """The axis that was chosen, or the first of numbers."""
    numbers = quantities(ablated)
    axis = look.x or (numbers[0] if numbers else "")
    if axis not in numbers:
        asked = "needs an ablation over an axis of numbers"
        what = f"{plain_line(axis)} is not an axis of numbers" if axis else asked
        raise needs("scaling", f"{what} (`stic-eval ablate --vary stage1.fraction=0.25,0.5,1`)")
    return axis


def _remarks(cells: Sequence[Cell], lines: Collection[Sequence[_Point]], compared: bool) -> list[str]:
    """What bars, stars and gaps mean."""
    bars = "95 % interval" if compared else "standard deviation over training seeds"
    remarks = [f"Error bars: {bars}."]
    remarks += notes_of(cells, stars=len(lines) <= _MOST_STARRED, filled=compared)
    if any(math.isnan(y) for points in lines for _, y, *_ in points):
        remarks.append("A line breaks where a value has no score.")
    return remarks


_Point = tuple[float, float, float, float, str]  # x, y, how far its bar reaches down and up, mark


def _points(
    rows: Sequence[TableRow], axis: str, name: str, places: Sequence[float], compared: bool
) -> list[_Point]:
    """A line's points, with NaN in between at values that were to be run and have no score here."""
    found: dict[float, _Point] = {}
    for row in rows:
        cell = row.cells[name]
        x, d = float(row.variant.settings[axis]), cell.difference
        if compared and d is not None:
            found[x] = (x, d.delta, *reach(d), mark_of(cell))
        elif not compared and cell.score is not None:
            found[x] = (x, cell.score, cell.sd or 0.0, cell.sd or 0.0, mark_of(cell))
    inside = [x for x in places if found and min(found) <= x <= max(found)]
    return [found.get(x, (x, math.nan, math.nan, math.nan, "")) for x in inside]


def _line(axes: Axes, points: Sequence[_Point], k: int, total: int, compared: bool) -> None:
    """Draws the k-th of so many lines.

    Markers of differences are filled where the corrected p is below 0.05; stars say more where there is room.
    """
    from matplotlib.transforms import ScaledTranslation

    # Lines stand a little beside each other, so that their intervals can be told apart.
    aside = _aside(k, total)
    shifted = axes.transData + ScaledTranslation(aside, 0, axes.figure.dpi_scale_trans)
    colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
    axes.errorbar(
        [p[0] for p in points], [p[1] for p in points], yerr=[[p[2] for p in points], [p[3] for p in points]],
        color=colour, marker=marker, markersize=4.5, linestyle=DASHES[k % len(DASHES)], linewidth=1.4,
        elinewidth=0.9, capsize=2.5, transform=shifted, label=str(k),
    )  # fmt: skip
    there = [p for p in points if not math.isnan(p[1])]
    if compared:
        hollow = [(x, y) for x, y, *_, mark in there if "*" not in mark]
        axes.plot(
            [x for x, _ in hollow], [y for _, y in hollow], linestyle="none", marker=marker, markersize=4.5,
            color=colour, markerfacecolor="white", transform=shifted, zorder=4,
        )  # fmt: skip
    axes.update_datalim([(x, end) for x, y, low, high, _ in there for end in (y - low, y + high)])
    for x, y, _, high, mark in there:
        text = mark if total <= _MOST_STARRED else mark.strip("*")
        axes.annotate(
            text, (x, y + high), (aside * 72, 0), textcoords="offset points", ha="center", va="bottom"
        )


def _aside(k: int, total: int) -> float:
    """Inches that the k-th of so many lines stands to the right of its place."""
    return (k - (total - 1) / 2) * min(5.0, 24.0 / total) / 72


def _ticks(axes: Axes, numbers: Sequence[float], width: float, lines: int) -> None:
    """A tick at each value that was run, and a number where there is room for it."""
    from matplotlib.ticker import NullFormatter, NullLocator

    values = [float(number) for number in numbers]
    smallest = min((abs(v) for v in values if v), default=1.0)
    if values[0] >= 0 and values[-1] / smallest >= _LOG_FROM:
        # Logarithmic, but for zero, which has its place to the left of the smallest.
        zero = {"linthresh": smallest, "linscale": 0.5} if values[0] == 0 else {}
        axes.set_xscale("symlog" if zero else "log", **zero)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    scale = axes.xaxis.get_transform()
    at = [float(x) for x in scale.transform(np.array(values))]
    span = at[-1] - at[0]
    inches = max(0.5, width - 0.9)
    margin = span * (_aside(lines - 1, lines) + 0.15) / (inches - 2 * (_aside(lines - 1, lines) + 0.15))
    axes.set_xlim(*scale.inverted().transform(np.array([at[0] - margin, at[-1] + margin])))
    per_inch = (span + 2 * margin) / inches
    labels, right = [], -math.inf
    for value, x in zip(numbers, at, strict=True):
        text = f"{value:,}" if isinstance(value, int) else value_text(value)
        half = (len(text) * canvas.LETTER / 2 + 0.04) * per_inch
        labels.append(text if x - half > right else "")
        right = x + half if labels[-1] else right
    axes.set_xticks(values, labels)
