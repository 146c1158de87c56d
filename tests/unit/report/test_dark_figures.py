"""Figures for dark pages: colours are turned round, and nothing else."""

from __future__ import annotations

import re

from stic_eval.report import canvas, figures
from stic_eval.report.dark_figures import darken


def test_lightness_is_turned_and_texts_stay() -> None:
    with canvas.style():
        figure = canvas.new(3, 2, "A figure")
        axes = figure.add_subplot()
        axes.bar([0, 1], [1, 2], color=canvas.pale(canvas.COLOURS[0]), hatch="//", edgecolor=canvas.INK)
        axes.plot([0, 1], [2, 1], color=canvas.COLOURS[1], marker="o")
        axes.set_title("model #ffffff <b>")
    light = figures.to_svg(figure)
    dark = darken(light)
    assert "model #ffffff &lt;b&gt;" in dark
    assert "#222222" in light and "#222222" not in dark
    colours = re.compile(r"#[0-9a-f]{6}|url\(#[^)]*\)")
    # The same drawing: without colours nothing differs but the colour of what has none.
    assert colours.sub("", dark).replace(' fill="', "", 1).count("<") == light.count("<")
    references = re.findall(r"(?:url\(|href=\")(#[^)\"]*)", dark)
    assert references and all(f'id="{name[1:]}"' in dark for name in references)
    assert darken(light) == dark
