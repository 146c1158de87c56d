"""Figures: what is drawn is what the table says, in every format, whatever names hold."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from stic_eval.contracts.curves import Curves
from stic_eval.errors import UserError
from stic_eval.report import canvas, figures, runs
from stic_eval.report.canvas import Look
from stic_eval.report.runs import Entry, Scores, TrainedStage
from stic_eval.report.table_rows import AVERAGE, Column
from stic_eval.report.tables import Table
from stic_eval.types import DESCRIBED, DIRECT, Summary

COLUMNS = [Column("one", "One"), Column("two", "Two")]
SVG = "{http://www.w3.org/2000/svg}"


def summary(right: int, n: int = 60, unscored: int = 0) -> Summary:
    right = min(right, n - unscored)
    units = {str(i): (float(i < right), 1.0) for i in range(n - unscored)}
    return Summary(100 * right / (n - unscored), n, unscored, units, {})


def entry(
    method: str,
    right: int,
    *,
    dar: bool = False,
    seed: int | None = 0,
    title: str = "",
    cell: Mapping[str, Any] | None = None,
    stages: tuple[TrainedStage, ...] = (),
) -> Entry:
    found = {"one": summary(right), "two": summary(right + 5)}
    name = f"{method}{'+dar' * dar}@{seed}{json.dumps(dict(cell or {}))}"
    return Entry(
        name,
        method,
        title or method,
        DESCRIBED if dar else DIRECT,
        seed,
        {},
        found,
        dict(cell or {}),
        list(stages),
    )


BASE = entry("baseline", 20, seed=None, title="Baseline")


def run(*entries: Entry, axes: dict[str, list[Any]] | None = None) -> Scores:
    base = replace(BASE, summaries=dict(BASE.summaries))
    return Scores("run", list(COLUMNS), [base, *entries], [], "a model", axes or {})


def draw(kind: Any, scores: Scores, folder: Path = Path("nowhere"), **look: Any) -> Figure:
    return figures.draw(kind, scores, scores.table(), folder, Look(**look))


def methods(count: int) -> Scores:
    return run(*(entry(f"m{i}", 18 + 4 * i, seed=s, title=f"M{i}") for i in range(count) for s in (0, 1)))


def grid(**axes: list[Any]) -> Scores:
    cells: list[dict[str, Any]] = [{}]
    for axis, values in axes.items():
        cells = [{**cell, axis: value} for cell in cells for value in values]
    rows = [entry("stic", 16 + 3 * i, seed=None, cell=cell, title="STIC") for i, cell in enumerate(cells)]
    return run(*rows, axes=dict(axes))


def texts(figure: Figure) -> list[str]:
    """Whatever a figure says, in the order of its SVG."""
    root = ElementTree.fromstring(figures.to_svg(figure))
    return ["".join(found.itertext()).strip() for found in root.iter(f"{SVG}text")]


def delta(table: Table, row: int, column: str) -> float:
    difference = table.rows[row].cells[column].difference
    assert difference is not None
    return difference.delta


# ---------------------------------------------------------------- gains


def test_bars_and_their_error_bars_are_the_tables_differences_and_intervals() -> None:
    scores = run(entry("a", 48, seed=None), entry("b", 16, seed=None))
    table = scores.table()
    (axes,) = draw("gains", scores).axes
    found: list[tuple[float, ...]] = []
    for bars in axes.containers:
        if hasattr(bars, "errorbar"):
            ends = [segment[:, 1] for segment in bars.errorbar.lines[2][0].get_segments()]
            found += [(bar.get_height(), *end) for bar, end in zip(bars, ends, strict=True)]
    expected = [row.cells[c].difference for row in table.rows[1:] for c in ("one", "two", AVERAGE)]
    assert np.array(found) == pytest.approx(np.array([(d.delta, d.low, d.high) for d in expected if d]))
    assert len(found) == 6
    shown = texts(draw("gains", scores))
    assert {"One", "Two", "Average", "a", "b"} <= set(shown)
    assert shown.count("**") == sum(d.mark == "**" for d in expected if d) == 4
    assert "** p < 0.01 (corrected)" in " ".join(shown)


def test_many_methods_get_a_panel_for_each_benchmark() -> None:
    scores = methods(8)
    figure = draw("gains", scores)
    table = scores.table()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["One", "Two", "Average"]
    for axes, column in zip(figure.axes, ("one", "two", AVERAGE), strict=True):
        widths = [bar.get_width() for bar in axes.patches]
        assert widths == pytest.approx([delta(table, i, column) for i in range(1, 9)])


def test_panels_have_a_scale_each_and_say_so_and_no_difference_is_said_in_words() -> None:
    scores = methods(8)
    scores.columns.append(Column("same", "Same"))
    for i, e in enumerate(scores.entries):
        e.summaries.update(same=summary(30), two=summary(30 + i % 3))
    figure = draw("gains", scores)
    one, two, same, average = figure.axes
    assert "Each panel has its own scale." in " ".join(texts(figure))
    table = scores.table()
    for axes, column in ((one, "one"), (two, "two"), (average, AVERAGE)):
        differences = [row.cells[column].difference for row in table.rows[1:]]
        ends = [end for d in differences if d for end in (d.low, d.high)] + [0]
        left, right = axes.get_xlim()
        assert left < min(ends) and max(ends) < right
        assert right - left < 1.4 * (max(ends) - min(ends))
    assert [text.get_text() for text in same.texts] == ["no\ndifference"]
    assert not same.patches and not same.get_xticks().size
    assert len(two.patches) == 8


def test_a_column_wide_figure_fits_on_a_page_and_titles_do_not_meet() -> None:
    scores = methods(8)
    for name, title in (("a", "ScienceQA"), ("b", "LLaVA-Bench"), ("c", "MathVista"), ("d", "ChartQA")):
        scores.columns.append(Column(name, title))
        for e in scores.entries:
            e.summaries[name] = e.summaries["one"]
    figure = draw("gains", scores, width=3.3)
    assert figure.get_figheight() < 8
    figure.draw_without_rendering()
    boxes = [axes._left_title.get_window_extent() for axes in figure.axes if axes.axison]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_grid_of_cells_is_drawn_for_the_average_and_one_benchmark_on_request() -> None:
    scores = grid(a=list(range(5)), b=list("xyz"))
    for column, title in ((None, "Average"), ("two", "Two")):
        (axes,) = draw("gains", scores, benchmark=column).axes
        assert axes.get_title(loc="left") == title
        assert len(axes.patches) == 15


def test_methods_are_chosen_by_name_with_or_without_describe_and_respond() -> None:
    scores = run(entry("stic", 25), entry("stic", 27, dar=True), entry("sft", 22))
    for asked, labels in (("stic", {"stic", "stic + DaR"}), ("stic+dar", {"stic + DaR"})):
        shown = set(texts(draw("gains", scores, methods=(asked,))))
        assert shown & {"stic", "stic + DaR", "sft"} == labels


def test_an_incomplete_score_is_marked_and_explained() -> None:
    part = entry("stic", 30)
    part.summaries["one"] = summary(30, unscored=2)
    shown = texts(draw("gains", run(part)))
    assert sum(text.endswith("°") for text in shown) == 2  # the benchmark and the average
    assert any("unscored" in text for text in shown)
    assert not any("°" in text for text in texts(draw("gains", run(entry("stic", 30)))))


# ---------------------------------------------------------------- greyscale


def test_without_colour_neighbouring_bars_differ_by_hatch() -> None:
    (axes,) = draw("gains", methods(4)).axes
    hatches = [bars[0].get_hatch() for bars in axes.containers if hasattr(bars, "errorbar")]
    assert len(hatches) == len(set(hatches)) == 4


def test_without_colour_lines_differ_by_marker_and_dashes() -> None:
    scores = grid(x=[1, 2, 3], which=list("abcd"))
    (axes,) = draw("scaling", scores).axes
    lines = [bars.lines[0] for bars in axes.containers]
    assert len({(line.get_marker(), str(line.get_linestyle())) for line in lines}) == 4
    # linestyle names all custom dashes alike; the pattern itself is private to matplotlib
    assert len({line.get_marker() for line in lines}) == 4


def test_neighbouring_colours_differ_in_lightness() -> None:
    def grey(colour: str) -> float:
        red, green, blue = to_rgb(colour)
        return 255 * (0.299 * red + 0.587 * green + 0.114 * blue)

    first = [grey(colour) for colour in canvas.COLOURS[:4]]
    assert min(abs(a - b) for a, b in pairwise(first)) > 25


def test_the_maps_colours_darken_steadily_and_equally_on_both_sides_of_white() -> None:
    figure = draw("heatmap", grid(a=[1, 2], b=[1, 2]))
    (image,) = figure.axes[0].collections
    low, high = image.get_clim()
    assert low == -high
    ramp = image.cmap(np.linspace(0, 1, 101))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(ramp[:51]) > 0).all() and (np.diff(ramp[50:]) < 0).all()
    assert np.abs(ramp - ramp[::-1]).max() < 0.12
    assert ramp[50] == pytest.approx(1, abs=0.01)


# ---------------------------------------------------------------- heat map


def test_the_map_shows_each_cell_in_its_place_and_says_what_was_not_run() -> None:
    scores = grid(kind=["blur", "noise"], p=[0.5, 0.25, 1.0])
    missing = scores.entries.pop()
    assert missing.settings == {"kind": "noise", "p": 1.0}
    figure = draw("heatmap", scores)
    axes = figure.axes[0]
    (image,) = axes.collections
    values = np.ma.filled(image.get_array(), np.nan)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.25", "0.5", "1.0"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["blur", "noise"]
    table = scores.table()
    for number, row in enumerate(table.rows[1:], start=1):
        place = (
            ["blur", "noise"].index(row.variant.settings["kind"]),
            [0.25, 0.5, 1].index(row.variant.settings["p"]),
        )
        assert values[place] == pytest.approx(delta(table, number, AVERAGE))
        written = f"{delta(table, number, AVERAGE):+.1f}".replace("-", "−")
        assert any(t.get_text().startswith(written) and t.get_position() == place[::-1] for t in axes.texts)
    assert np.isnan(values[1, 2])
    assert [t.get_position() for t in axes.texts if t.get_text() == "not\nrun"] == [(2, 1)]
    assert len([patch for patch in axes.patches if patch.get_hatch()]) == 1


def test_a_list_of_single_changes_is_no_map() -> None:
    scores = grid(a=[1, 2, 3], b=[1, 2, 3])
    kept = [e for e in scores.entries if not e.settings or 1 in e.settings.values()]
    scores.entries[:] = kept
    assert draw("heatmap", scores).axes
    scores.entries[:] = kept[:-1]
    with pytest.raises(UserError, match="most combinations of b and a were not run"):
        draw("heatmap", scores)


def test_values_that_look_alike_are_not_taken_for_one() -> None:
    scores = grid(separator=["\n", "\n\n"], p=[0.5, 1.0])
    (axes,) = draw("scaling", scores).axes
    assert [len(line.lines[0].get_xdata()) for line in axes.containers] == [2, 2]
    assert len({text for text in texts(draw("scaling", scores)) if text.startswith("STIC")}) == 2


def test_long_names_of_values_stay_apart() -> None:
    names = [f"/a/very/long/folder/that/goes/on/and/on/{i}/and/ends/in/the/same/words.txt" for i in range(3)]
    scores = grid(images=names, p=[0.5, 1.0])
    values = draw("heatmap", scores).axes[0].collections[0].get_array()
    table = scores.table()
    assert sorted(values.ravel()) == pytest.approx(sorted(delta(table, i, AVERAGE) for i in range(1, 7)))


def test_a_third_axis_makes_panels_and_axes_are_chosen() -> None:
    scores = grid(a=[1, 2], b=[True, False], c=["u", "v", "w"])
    maps = [axes for axes in draw("heatmap", scores).axes if axes.get_xlabel()]
    assert len(maps) == 3
    maps = [axes for axes in draw("heatmap", scores, x="c", y="b").axes if axes.get_xlabel()]
    assert len(maps) == 2 and maps[0].get_xlabel() == "c" and maps[0].get_ylabel() == "b"
    assert [text.get_text() for text in maps[0].get_yticklabels()] == ["true", "false"]


@pytest.mark.parametrize("cell", [{}, {"one": False, "two": False}])
def test_the_baseline_stands_where_everything_is_off(cell: dict[str, bool]) -> None:
    scores = grid(one=[True, False], two=[True, False])
    off = {"one": False, "two": False}
    scores.entries[:] = [e for e in scores.entries[1:] if e.settings != off]
    scores.entries += [
        entry("baseline", 20, seed=None, cell=cell, title="Baseline"),
        entry("baseline", 15, seed=None, dar=True, cell=off, title="Baseline"),
        *(entry("stic", 30, dar=True, cell={"one": True, "two": on}, title="STIC") for on in (True, False)),
    ]  # fmt: skip
    figure = draw("heatmap", scores)
    maps = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_xlabel()}
    assert set(maps) == {"STIC", "STIC + DaR"}
    written = {name: {t.get_position(): t.get_text() for t in axes.texts} for name, axes in maps.items()}
    assert written["STIC"][1, 1] == "Baseline" and "not" not in " ".join(written["STIC"].values())
    assert written["STIC + DaR"][1, 1].startswith("−8.3")
    assert written["STIC + DaR"][1, 1].endswith("Baseline + DaR")


def components(*, dar: bool) -> Scores:
    """Stages and describe-and-respond on and off; the cell with all of it off is the baseline's only."""
    cells = [
        {"stage1.use": one, "stage2.use": two} | ({"dar": "on" if describes else "off"} if dar else {})
        for one in (True, False)
        for two in (True, False)
        for describes in ((True, False) if dar else (False,))
        if one or two or describes
    ]
    rows = []
    for i, cell in enumerate(cells):
        trained = cell["stage1.use"] or cell["stage2.use"]
        method, title = ("stic", "STIC") if trained else ("baseline", "Baseline")
        rows.append(entry(method, 22 + 3 * i, dar=cell.get("dar") == "on", cell=cell, title=title))
    axes: dict[str, list[Any]] = {"stage1.use": [True, False], "stage2.use": [True, False]}
    return run(*rows, axes=axes | ({"dar": ["on", "off"]} if dar else {}))


@pytest.mark.parametrize(
    ("dar", "look"),
    [
        (False, {}),
        (True, {}),
        (True, {"x": "dar", "y": "stage1.use"}),
        (True, {"x": "stage2.use", "y": "dar"}),
        (True, {"x": "dar", "y": "stage1.use", "methods": ("stic",)}),
    ],
)
def test_the_baseline_has_its_place_along_whatever_axes(dar: bool, look: dict[str, Any]) -> None:
    figure = draw("heatmap", components(dar=dar), **look)
    maps = [axes for axes in figure.axes if axes.get_xlabel()]
    written = [text.get_text() for axes in maps for text in axes.texts]
    assert len(written) == (8 if dar else 4)
    assert written.count("Baseline") == 1
    assert sum(text.endswith("\nBaseline + DaR") for text in written) == dar
    assert not any("not" in text for text in written)
    plain = next(axes for axes in maps if "Baseline" in [text.get_text() for text in axes.texts])
    where = next(text.get_position() for text in plain.texts if text.get_text() == "Baseline")
    labels = plain.get_xticklabels()[where[0]].get_text(), plain.get_yticklabels()[where[1]].get_text()
    assert set(labels) <= {"false", "off"}


# ---------------------------------------------------------------- scaling


def test_the_curve_goes_through_the_differences_in_order_of_the_numbers() -> None:
    scores = grid(**{"stage1.fraction": [1.0, 0.25, 0.5]})
    (axes,) = draw("scaling", scores).axes
    (bars,) = axes.containers
    table = scores.table()
    by_value = {row.variant.settings["stage1.fraction"]: i for i, row in enumerate(table.rows) if i}
    order = [by_value[value] for value in (0.25, 0.5, 1.0)]
    assert list(bars.lines[0].get_xdata()) == [0.25, 0.5, 1.0]
    assert list(bars.lines[0].get_ydata()) == pytest.approx([delta(table, i, AVERAGE) for i in order])
    low, high = axes.get_ylim()
    for i, (_, segment) in zip(order, enumerate(bars.lines[2][0].get_segments()), strict=True):
        d = table.rows[i].cells[AVERAGE].difference
        assert d is not None and list(segment[:, 1]) == pytest.approx([d.low, d.high])
        assert low < d.low and d.high < high
    assert axes.get_xlabel() == "stage1.fraction"


def test_each_setting_and_solver_is_a_line_and_no_baseline_means_scores() -> None:
    scores = grid(n=[1000, 30000], beta=[0.1, 0.5])
    shown = texts(draw("scaling", scores, x="n"))
    assert {"STIC, beta=0.1", "STIC, beta=0.5", "1,000", "30,000"} <= set(shown)
    scores.entries.pop(0)
    (axes,) = draw("scaling", scores, x="n").axes
    assert axes.get_ylabel().endswith("score (%)")


def test_zero_has_a_place_on_a_logarithmic_axis() -> None:
    (axes,) = draw("scaling", grid(alpha=[0.001, 0, 0.01, 0.1])).axes
    assert axes.get_xscale() == "symlog"
    places = axes.transData.transform([(x, 0) for x in (0, 0.001, 0.01, 0.1)])[:, 0]
    assert (np.diff(places) > 30).all()


def tick_labels(axes: Any) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def test_a_value_that_has_no_score_is_no_tick_and_breaks_the_line() -> None:
    scores = grid(n=[1, 2, 3, 4], k=["a", "b"])
    for at, e in enumerate(scores.entries):
        if e.settings.get("n") == 2 or e.settings == {"n": 3, "k": "b"}:
            scores.entries[at] = replace(e, seed=0, summaries={})
    figure = draw("scaling", scores)
    (axes,) = figure.axes
    assert tick_labels(axes) == ["1", "3", "4"]
    lines = [[math.isnan(y) for y in bars.lines[0].get_ydata()] for bars in axes.containers]
    assert lines == [[False, True, False, False], [False, True, True, False]]
    said = " ".join(texts(figure))
    assert "A line breaks where a value has no score." in said
    assert "Unfinished: STIC, n=2, k=a (seed 0); STIC, n=2, k=b (seed 0); STIC, n=3, k=b (seed 0)." in said
    whole = " ".join(texts(draw("scaling", grid(n=[1, 2, 3], k=["a", "b"]))))
    assert "Unfinished" not in whole and "breaks" not in whole


@pytest.mark.parametrize("kind", ["gains", "heatmap", "progression", "scaling"])
def test_whatever_is_drawn_of_an_unfinished_run_says_so_and_names_no_more_than_fits(kind: Any) -> None:
    scores = grid(n=[1, 2, 3], k=["a", "b"])
    scores.entries += [
        entry("stic", 30, seed=0),
        *(entry(f"m{i}", 30, seed=s) for i in range(5) for s in (0, 1)),
    ]
    for e in scores.entries[-10:]:
        e.summaries.pop("two")
    said = " ".join(texts(draw(kind, scores, benchmark="one")))
    assert "Unfinished: m0 (seeds 0, 1); m1 (seeds 0, 1); m2 (seeds 0, 1); and 2 more." in said


@pytest.mark.parametrize("others", [1, 3])
def test_markers_are_filled_where_the_difference_is_significant_and_the_key_says_so(others: int) -> None:
    scores = grid(n=[1, 2, 3], k=list("abcd"[: others + 1]))
    for e in scores.entries[1:]:
        if e.settings["k"] == "a":
            e.summaries.update(BASE.summaries)  # a difference of exactly zero
    figure = draw("scaling", scores)
    (axes,) = figure.axes
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    stars = [
        bool(row.cells[AVERAGE].difference and "*" in row.cells[AVERAGE].difference.mark)
        for row in scores.table().rows[1:]
    ]
    assert sum(len(line.get_xdata()) for line in hollow) == stars.count(False)
    assert list(hollow[0].get_ydata()) == [0, 0, 0] and any(stars)
    said = " ".join(texts(figure))
    assert ("unfilled: neither." in said) == (others == 1) and "Filled: " in said
    scores.entries.pop(0)
    assert "illed" not in " ".join(texts(draw("scaling", scores)))


def test_several_axes_of_numbers_are_a_figure_each_also_where_one_is_changed_at_a_time() -> None:
    scores = grid(n=[1, 2, 3], p=[0.5, 0.25], k=["a", "b"])
    default = {"n": 1, "p": 0.5, "k": "a"}
    for e in list(scores.entries[1:]):
        if sum(e.settings[axis] != value for axis, value in default.items()) > 1:
            scores.entries.remove(e)
    table = scores.table()

    def names(**look: Any) -> dict[str, Figure | UserError]:
        return dict(figures.drawable(scores, table, Path("nowhere"), Look(**look), ["scaling"]))

    drawn = names()
    assert list(drawn) == ["scaling-n", "scaling-p"]
    for name, figure, count in zip(drawn, drawn.values(), (3, 2), strict=True):
        assert isinstance(figure, Figure)
        (axes,) = figure.axes
        assert axes.get_xlabel() == name.removeprefix("scaling-")
        (line,) = axes.containers
        assert len(line.lines[0].get_xdata()) == count
        # A single line stands on its ticks, beside none of those that are left out.
        shown = line.lines[0].get_transform().transform([(1, 0)])
        assert shown == pytest.approx(axes.transData.transform([(1, 0)]))
        assert f"{5 - count} settings with a single value" in " ".join(texts(figure)).replace("\n", " ")
    assert list(names(x="p")) == ["scaling-p"]
    assert list(names(x="k")) == ["scaling"]


# ---------------------------------------------------------------- progression


def steps(scores: Scores, **look: Any) -> dict[str, float]:
    axes = draw("progression", scores, **look).axes[-1]
    ticks = [label.get_text().replace("\n", " ") for label in axes.get_xticklabels()]
    line = axes.containers[0].lines[0]
    points = zip(line.get_xdata(), line.get_ydata(), strict=True)
    return {ticks[round(x)]: y for x, y in points if not math.isnan(y)}


def test_a_run_and_an_ablation_over_stages_give_the_same_steps() -> None:
    rows = {"Stage 1": 24, "Stage 2": 30, "Stage 2 + DaR": 33}
    base = {"Base": 100 * 22.5 / 60}
    expected = base | {step: 100 * (right + 2.5) / 60 for step, right in rows.items()}
    plain = run(
        entry("baseline", 10, dar=True, seed=None), entry("stic_stage1", 24), entry("stic", 30),
        entry("stic_stage1", 1, dar=True), entry("stic", 33, dar=True), entry("sft", 40),
    )  # fmt: skip
    assert steps(plain) == pytest.approx(expected)

    def cell(one: bool, two: bool, dar: bool, right: int) -> Entry:
        settings = {"stage1.use": one, "stage2.use": two, "dar": "on" if dar else "off"}
        return entry("stic", right, dar=dar, cell=settings)

    ablation = run(
        cell(True, True, True, 33), cell(True, True, False, 30), cell(True, False, True, 5),
        cell(True, False, False, 24), cell(False, True, False, 7),
    )  # fmt: skip
    assert steps(ablation) == pytest.approx(expected)


def test_a_step_that_was_not_run_is_said_and_other_settings_are_no_step() -> None:
    assert set(steps(run(entry("stic", 30)))) == {"Base", "Stage 2"}
    figure = draw("progression", run(entry("stic", 30)))
    assert " ".join(texts(figure)).count("(not evaluated)") == 2
    line = figure.axes[0].containers[0].lines[0]
    assert [math.isnan(y) for y in line.get_ydata()] == [False, True, False, True]  # so nothing crosses it
    with pytest.raises(UserError, match="needs the baseline"):
        draw("progression", grid(beta=[0.1, 0.5]))


def test_seeds_that_score_the_same_are_seen_as_several() -> None:
    rights = (20, 20, 20, 21, 40)
    figure = draw("progression", run(*(entry("stic", right, seed=i) for i, right in enumerate(rights))))
    figure.draw_without_rendering()
    dashes = [
        line for line in figure.axes[0].lines if line.get_marker() == "_" and len(line.get_xdata()) == 1
    ]
    places = sorted(tuple(line.get_transform().transform(line.get_xydata())[0]) for line in dashes)
    assert len(places) == 5
    size = 5 * figure.dpi / 72
    for (x, y), (other_x, other_y) in combinations(places, 2):
        assert abs(x - other_x) > size or abs(y - other_y) > 1


def test_published_scores_stand_apart_and_are_the_papers() -> None:
    scores = run(entry("stic", 30))
    scores.columns = [Column("scienceqa", "ScienceQA"), Column("textvqa", "TextVQA")]
    for e in scores.entries:
        e.summaries.update(scienceqa=e.summaries["one"], textvqa=e.summaries["two"])
    shown = steps(scores, benchmark="scienceqa", published=True)
    assert list(shown.values()) == [68.9, 70.0, 72.5, 75.3]
    assert "published" in " ".join(texts(draw("progression", scores, benchmark="scienceqa", published=True)))
    assert list(steps(scores, published=True).values()) == pytest.approx([64.6, 67.95, 70.25])
    with pytest.raises(UserError, match="the paper has no scores"):
        draw("progression", run(entry("stic", 30)), published=True)


# ---------------------------------------------------------------- training


def log(folder: Path, name: str, losses: list[float], **more: float) -> None:
    (folder / "training").mkdir(exist_ok=True)
    rows = [{"step": i, "loss": loss, **more} for i, loss in enumerate(losses, start=1)]
    rows.append({"step": len(losses), "train_runtime": 1.0})
    (folder / "training" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_training_shows_every_seed_and_their_mean(tmp_path: Path) -> None:
    def trained(seed: int) -> Entry:
        stages = (
            TrainedStage("preference", f"{seed}" * 64, 1, 1, 3),
            TrainedStage("infused_sft", f"{seed + 5}" * 64, 1, 1, 3),
        )
        return entry("stic", 30, seed=seed, title="STIC", stages=stages)

    scores = run(trained(0), trained(1))
    pair = {"rewards/margins": 1.0, "rewards/accuracies": 0.5}
    log(tmp_path, "preference-" + "0" * 16, [3.0, 2.0, 1.0], **pair)
    log(tmp_path, "preference-" + "1" * 16, [5.0, 4.0, math.nan], **pair)
    log(tmp_path, "infused_sft-" + "5" * 16, [1.0, 1.0], mean_token_accuracy=0.5)
    log(tmp_path, "infused_sft-" + "6" * 16, [2.0, 1.0], mean_token_accuracy=0.7)
    log(tmp_path, "preference-" + "9" * 16, [9.0, 9.0], **pair)  # of nobody in this run
    figure = draw("training", scores, tmp_path)
    shown = [axes for axes in figure.axes if axes.axison]
    titles = [axes.get_title(loc="left") for axes in shown]
    assert titles == ["Loss", "Reward margin", "Reward accuracy", "Loss", "Token accuracy"]
    lines = {tuple(line.get_xdata()): list(line.get_ydata()) for line in shown[0].lines}
    assert len(shown[0].lines) == 3
    assert list(shown[0].lines[-1].get_ydata()) == [4.0, 3.0]  # of the steps that both seeds have
    assert max(max(values) for values in lines.values()) < 9
    assert "Thin: a training seed; thick: the mean over seeds. Not smoothed." in " ".join(texts(figure))


def test_a_training_that_is_shared_is_one_line_named_after_all_that_share_it(tmp_path: Path) -> None:
    stage = TrainedStage("preference", "a" * 64, 1, 1, 3)
    rows = [entry(m, 30, title=t, stages=(stage,)) for m, t in (("stic_stage1", "Stage 1"), ("stic", "STIC"))]
    log(tmp_path, "preference-" + "a" * 16, [2.0, 1.0])
    assert "Stage 1 / STIC" in texts(draw("training", run(*rows), tmp_path))
    assert "STIC" in texts(draw("training", run(*rows), tmp_path, methods=("stic",)))


def test_a_stage_says_itself_what_is_drawn_of_it_and_one_of_an_earlier_version_by_its_name(
    tmp_path: Path,
) -> None:
    own = Curves("Own training", {"loss": "Loss", "entropy": "Spread"})
    stage = TrainedStage("mine", "a" * 64, 1, 1, 3, kind="pair_training", curves=own)
    silent, former = TrainedStage("other", "b" * 64, 1, 1, 3), TrainedStage("preference", "c" * 64, 1, 1, 3)
    assert (silent.kind, former.kind) == ("", "pair_training")
    for made in (stage, silent, former):
        log(tmp_path, f"{made.name}-{made.key[:16]}", [2.0, 1.0])
    scores = run(entry("stic", 30, title="STIC", stages=(stage, silent, former)))
    runs.save(scores, tmp_path)
    figure = draw("training", runs.load(tmp_path), tmp_path)
    assert {"Own training", "Spread", "Training", "Preference training", "Reward margin"} <= set(
        texts(figure)
    )


def test_trainings_under_other_settings_are_never_averaged_as_if_they_were_seeds(tmp_path: Path) -> None:
    rows = []
    for i, beta in enumerate((0.1, 0.5)):
        stage = TrainedStage("preference", f"{i}" * 64, 1, 1, 2)
        rows += [entry("stic", 30, cell={"beta": beta, "n": n}, stages=(stage,)) for n in (1, 2)]
        log(tmp_path, f"preference-{i}" + f"{i}" * 15, [2.0 + i, 1.0 + i])
    axes = draw("training", run(*rows), tmp_path).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 1.0], [3.0, 2.0]]


def test_two_trainings_of_one_method_are_two_lines(tmp_path: Path) -> None:
    stages = (TrainedStage("positive_sft", "a" * 64, 1, 1, 2), TrainedStage("infused_sft", "b" * 64, 1, 1, 2))
    log(tmp_path, "positive_sft-" + "a" * 16, [2.0, 1.0])
    log(tmp_path, "infused_sft-" + "b" * 16, [4.0, 3.0])
    figure = draw("training", run(entry("positive_only", 30, title="P", stages=stages)), tmp_path)
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[2.0, 1.0], [4.0, 3.0]]
    assert {"P (positive sft)", "P (infused sft)"} <= set(texts(figure))


# ---------------------------------------------------------------- files


def every_kind(tmp_path: Path) -> list[Figure]:
    log(tmp_path, "preference-" + "a" * 16, [2.0, 1.0])
    scores = grid(n=[1, 2, 3], kind=["a", "b"])
    scores.entries.append(
        entry("stic", 30, title="STIC", stages=(TrainedStage("preference", "a" * 64, 1, 1, 2),))
    )
    drawn = [figure for _, figure in figures.drawable(scores, scores.table(), tmp_path, Look())]
    assert all(isinstance(figure, Figure) for figure in drawn) and len(drawn) == len(figures.KINDS)
    return [figure for figure in drawn if isinstance(figure, Figure)]


def test_files_are_what_they_are_called_and_the_same_every_time(tmp_path: Path) -> None:
    contents: list[list[bytes]] = []
    for again in ("a", "b"):
        files = []
        for i, figure in enumerate(every_kind(tmp_path)):
            files += figures.save(figure, tmp_path / again / f"{i}", dpi=60)
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    for file, content in zip(files, contents[0], strict=True):
        if file.suffix == ".pdf":
            assert content.startswith(b"%PDF") and b"CreationDate" not in content
        elif file.suffix == ".svg":
            assert ElementTree.fromstring(content).tag == f"{SVG}svg"
        else:
            Image.open(io.BytesIO(content)).verify()


def test_several_figures_get_along_in_one_page(tmp_path: Path) -> None:
    seen: set[str] = set()
    for svg in map(figures.to_svg, every_kind(tmp_path)):
        root = ElementTree.fromstring(svg)
        own = {found.get("id", "") for found in root.iter() if found.get("id")}
        assert own and not own & seen
        seen |= own
        refers = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert refers <= own
        assert not re.search(r"<(style|script|image|foreignObject|metadata)\b|<[?!]", svg)
        assert not re.search(r'href="(?!#)|\son[a-z]+=', svg)


def test_no_type_is_smaller_than_eight_points(tmp_path: Path) -> None:
    for figure in every_kind(tmp_path):
        sizes = re.findall(r"font-size: ([0-9.]+)px", figures.to_svg(figure))
        assert sizes and min(map(float, sizes)) >= 8  # one unit is one point


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=30))
def test_a_name_is_shown_as_it_is_and_does_nothing(name: str) -> None:
    figure = draw("gains", run(entry("stic", 30, title=f"[{name}]"), entry("sft", 25)))
    shown = "".join("".join(texts(figure)).split())
    assert "".join(canvas.plain_line(f"[{name}]").split()) in shown


def test_names_that_mean_something_elsewhere(tmp_path: Path) -> None:
    evil = '$\\frac{x}{y}$ <script>alert(1)</script> 漢字 \x1b[2J\x00\uffff\u202e &amp; id="q" url(#x)'
    scores = run(entry("stic", 30, title=evil), axes={})
    scores.columns[0] = Column("one", evil)
    figure = draw("gains", scores)
    svg = figures.to_svg(figure)
    assert "<script" not in svg and "\x1b" not in svg and "\u202e" not in svg
    assert "$\\frac{x}{y}$" in svg
    assert [file.suffix for file in figures.save(figure, tmp_path / "x")] == [".svg", ".pdf", ".png"]


def test_what_a_matplotlibrc_says_changes_nothing(tmp_path: Path) -> None:
    import matplotlib

    before = figures.to_svg(draw("gains", methods(2)))
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "svg.fonttype": "path"}):
        assert figures.to_svg(draw("gains", methods(2))) == before
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.skipif(not Path("results/pocket/scores.json").is_file(), reason="the run is not here")
def test_the_shipped_run_is_drawn_as_its_table_says() -> None:
    from stic_eval.report import runs

    scores = runs.load(Path("results/pocket"))
    table = scores.table()
    figure = figures.draw("gains", scores, table, Path("results/pocket"), Look())
    panels = [axes for axes in figure.axes if axes.axison]
    compared = [i for i, row in enumerate(table.rows) if row.cells[AVERAGE].difference]
    for axes, column in zip(panels, [*(c.name for c in table.columns), AVERAGE], strict=True):
        expected = [delta(table, i, column) for i in compared]
        said = [text.get_text() for text in axes.texts if text.get_text().startswith("no")]
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([] if said else expected)
        assert not said or not any(expected)
