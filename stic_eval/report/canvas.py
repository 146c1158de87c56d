"""What all figures share: type, colours, hatches, harmless text, and how tall things have to be.

Colours are those of Okabe and Ito (2008), which the colour-blind tell apart. Hatches, markers and dashes
say the same again, for print without colour.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from stic_eval.errors import UserError
from stic_eval.printable import printable
from stic_eval.report.table_rows import setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

WIDTH = 6.9  # inches: both columns of a two-column page; one of them is 3.3
POINTS = 8.0  # the smallest type that is used
LINE = 0.15  # inches that a line of it takes
LETTER = 0.058  # and a letter, on average

# Blue, orange, green, purple, vermilion, sky, grey: neighbours differ in lightness too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#777777")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----", "++++")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)), (0, (8, 2)))
INK, MUTED = "#222222", "#767676"

_STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": POINTS,
    "axes.titlesize": POINTS + 0.5,
    "axes.labelsize": POINTS,
    "xtick.labelsize": POINTS,
    "ytick.labelsize": POINTS,
    "legend.fontsize": POINTS,
    "legend.frameon": False,
    "legend.title_fontsize": POINTS + 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.unicode_minus": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "hatch.linewidth": 0.7,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "text.parse_math": False,  # names of models, methods and benchmarks are no formulas
    "text.usetex": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "stic-eval",
    "pdf.fonttype": 42,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What is chosen about a figure.

    Attributes:
        benchmark: Registry name of a column, or `average`; None leaves it to the kind of figure.
        x: Axis of an ablation that runs to the right.
        y: Axis of an ablation that runs upwards.
        methods: Only these; `stic` is both of its rows, `stic+dar` the one with describe-and-respond.
        published: Whether the progression shows the paper's scores too.
    """

    benchmark: str | None = None
    x: str | None = None
    y: str | None = None
    methods: tuple[str, ...] = ()
    published: bool = False
    width: float = WIDTH


def check_installed(what: str) -> None:
    """Checks that figures can be drawn.

    Raises:
        UserError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UserError(f"{what}: figures are drawn with matplotlib: pip install 'stic-eval[figures]'")


@contextmanager
def style() -> Iterator[None]:
    """Our type and lines, whatever a `matplotlibrc` says; as before afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def new(width: float, height: float, label: str) -> Figure:
    """An empty figure of a size in inches that lays itself out. The label says in words what it shows."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", label=label)


def pale(colour: str) -> str:
    """A colour that black lines and hatches can be seen on."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = (1 - 0.62 * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def plain_line(text: object) -> str:
    """Text as one line that every format can hold: no control characters, no turning of the direction."""
    line = printable(" ".join(str(text).split()))
    return re.sub("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]", "", line)


def value_text(value: object) -> str:
    """An axis's value as tables print it, e.g. `0.25`, `true`; what is long without its middle."""
    text = plain_line(setting(value))
    # The end of a path says more than its start.
    return text if len(text) <= 36 else f"{text[:12]}…{text[-23:]}"


def key(value: object) -> str:
    """What tells one value of an axis from another; 1 and 1.0 are the same, 1 and on are not."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return repr(float(value)) if number else json.dumps(value, sort_keys=True)  # type: ignore[arg-type]


def in_order(values: Sequence[Any]) -> list[Any]:
    """Numbers by size; anything else in the order that it was given in."""
    return sorted(values) if numeric(values) else list(values)


def numeric(values: Sequence[Any]) -> bool:
    """Whether an axis of an ablation is a quantity: numbers, and two of them at least."""
    return len(values) > 1 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def wrap(text: str, inches: float) -> str:
    """Text broken into lines that fit in so many inches at the smallest size."""
    columns = max(8, int(inches / LETTER))
    return "\n".join(textwrap.wrap(text, columns)) or text


def tall(text: str) -> float:
    """Inches that lines of text take."""
    return LINE * (text.count("\n") + 1) if text else 0.0


def footnote(figure: Figure, sentences: Sequence[str]) -> float:
    """Writes below everything what bars and marks mean; returns the inches that it takes."""
    text = wrap(" ".join(sentences), figure.get_figwidth() - 0.15)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=POINTS, color=MUTED)
    return tall(text)


def legend(
    figure: Figure | SubFigure, handles: Sequence[Any], labels: Sequence[str], width: float, title: str = ""
) -> float:
    """Puts a legend above everything; returns the inches that it takes."""
    columns = _legend_columns(labels, width)
    labels = [wrap(label, width - 0.5) for label in labels]
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, columnspacing=1.2, handlelength=2.4,
        handleheight=1.1, borderaxespad=0.2, title=title or None, alignment="left",
    )  # fmt: skip
    return legend_height(labels, width) + tall(title)


def legend_height(labels: Sequence[str], width: float) -> float:
    """Inches that a legend without a title takes in a figure of that width."""
    columns = _legend_columns(labels, width)
    heights = [tall(wrap(label, width - 0.5)) for label in labels]
    return 1.15 * sum(max(heights[i : i + columns]) for i in range(0, len(labels), columns)) + 0.1


def _legend_columns(labels: Sequence[str], width: float) -> int:
    longest = max((len(label) for label in labels), default=0)
    return max(1, min(len(labels), int((width - 0.1) / (longest * LETTER + 0.5))))


def resize(figure: Figure, height: float) -> Figure:
    """Sets the height in inches."""
    figure.set_figheight(height)
    return figure


def zero_line(axes: Axes, *, upright: bool = False) -> None:
    """Marks where there is no difference."""
    draw = axes.axvline if upright else axes.axhline
    draw(0, color=INK, linewidth=0.8, zorder=3)


def marks_note(marks: Sequence[str], incomplete: bool, *, filled: bool = False) -> list[str]:
    """Sentences that explain the marks that a figure shows.

    Args:
        marks: Stars that it shows.
        incomplete: Whether it shows a ring.
        filled: Whether its markers are filled or not by significance.
    """
    starred = "*" in marks or "**" in marks
    parts = []
    if "§" in marks:
        parts.append("§ one training seed, or one description: not tested.")
    if filled and starred:
        parts.append("Filled: * p < 0.05, ** p < 0.01 (corrected); unfilled: neither.")
    elif filled:
        parts.append("Filled: p < 0.05 (corrected); unfilled: not.")
    elif starred:
        parts.append("* p < 0.05, ** p < 0.01 (corrected).")
    if incomplete:
        parts.append("° incomplete: unscored rows or columns are left out.")
    return parts


def needs(kind: str, what: str) -> UserError:
    """That a kind of figure cannot be drawn of this run, and what it would take."""
    return UserError(f"--kind {kind}: {what}")
