"""Figures for dark pages: the same drawing, its colours as light as they were dark.

A page shows figures as images, which do not take its colours; so it holds each of them twice.
"""

from __future__ import annotations

import colorsys
import re
from xml.etree import ElementTree

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
_COLOURED = ("style", "fill", "stroke", "stop-color")  # attributes; texts may hold what looks like a colour
_DARKEST, _LIGHTEST = 0.13, 0.9  # lightness of what was white, and of what was black
_GROUND = "#1e2125"  # what was white: the page's cards
_INK = "#e4e5e7"  # of what has no colour of its own, which is black


def darken(svg: str) -> str:
    """An SVG of `figures.to_svg` with its lightness turned round; hues stay."""
    root = ElementTree.fromstring(svg)
    # As `to_svg` writes it: without a prefix, and `xlink` under its name.
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            if name.startswith("{"):
                element.set(f"xlink:{name.rpartition('}')[2]}", element.attrib.pop(name))
        for name in _COLOURED:
            if name in element.attrib:
                element.set(name, _COLOUR.sub(lambda found: _turned(found[0]), element.attrib[name]))
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("xmlns:xlink", "http://www.w3.org/1999/xlink")
    root.set("fill", _INK)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _turned(colour: str) -> str:
    """A colour `#rrggbb` with the lightness that it lacked; white is the page's ground."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if lightness > 0.999:
        return _GROUND
    turned = _LIGHTEST - (_LIGHTEST - _DARKEST) * lightness
    parts = colorsys.hls_to_rgb(hue, turned, min(saturation, 0.85))
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
