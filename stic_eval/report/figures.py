"""A run's figures: which it allows, and their files.

The same bytes come out every time: no dates, fixed names inside of the SVG.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from xml.etree import ElementTree

from stic_eval.errors import UserError
from stic_eval.registry import suggest
from stic_eval.report import bars, canvas, gain_curves, heatmap, training_curves
from stic_eval.report.canvas import Look, plain_line
from stic_eval.report.runs import Entry, Scores
from stic_eval.report.table_rows import AVERAGE, EvaluatedVariant
from stic_eval.report.tables import Table
from stic_eval.store import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FigureKind = Literal["gains", "progression", "scaling", "heatmap", "training"]
KINDS: tuple[FigureKind, ...] = get_args(FigureKind)
FORMATS = ("svg", "pdf", "png")
_MOST_NAMED = 3  # unfinished variants that a footnote names

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# Dates would make the same figure another file; the rest names a library's version.
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": "stic-eval", "Producer": "matplotlib"},
    "png": {"Software": None},
}


def check(look: Look, scores: Scores) -> None:
    """Checks that what was chosen exists in the run.

    Raises:
        UserError: It names a benchmark, axis or method that the run does not have.
    """
    benchmarks = [*(column.name for column in scores.columns), AVERAGE]
    methods = sorted({name for e in scores.entries for name in (e.method, e.solver.of(e.method))})
    asked = [("--benchmark", "benchmark", look.benchmark, benchmarks)]
    asked += [("--x", "axis", look.x, list(scores.axes)), ("--y", "axis", look.y, list(scores.axes))]
    asked += [("--method", "method", method, methods) for method in look.methods]
    for flag, what, name, known in asked:
        if name is not None and name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise UserError(f"{flag} {name}: this run has no such {what}{suggest(name, known)} ({has})")


def draw(kind: FigureKind, scores: Scores, table: Table, folder: Path, look: Look) -> Figure:
    """Draws one kind of figure of a run.

    Args:
        kind: One of `KINDS`.
        table: `scores.table()`, which takes a while to build.
        folder: The run's folder, where training logs lie.

    Raises:
        UserError: The run does not have what this kind needs; the message says what.
    """
    notes = _unfinished_note(scores, look)
    with canvas.style():
        if kind == "gains":
            return bars.gains(table, look, notes)
        if kind == "heatmap":
            return heatmap.heatmap(table, scores.axes, look, notes)
        if kind == "progression":
            return gain_curves.progression(table, look, notes)
        if kind == "scaling":
            return gain_curves.scaling(table, scores.axes, look, notes)
        return training_curves.training(training_curves.read(scores, folder, look.methods), look)


def drawable(
    scores: Scores, table: Table, folder: Path, look: Look, kinds: Sequence[FigureKind] = KINDS
) -> Iterator[tuple[str, Figure | UserError]]:
    """Figures by name, or the reason why this run has none.

    Each kind is one figure of its own name, but there is a `scaling-<axis>` for each axis of numbers of an
    ablation that has several.
    """
    for kind in kinds:
        for name, what in _parts(kind, scores, look):
            try:
                yield name, draw(kind, scores, table, folder, what)
            except UserError as error:
                yield name, error


def _parts(kind: FigureKind, scores: Scores, look: Look) -> list[tuple[str, Look]]:
    axes = gain_curves.quantities(scores.axes) if kind == "scaling" else []
    if len(axes) < 2 or look.x not in (None, *axes):
        return [(kind, look)]
    return [(f"{kind}-{plain_line(axis)}", replace(look, x=axis)) for axis in axes if look.x in (None, axis)]


def _unfinished_note(scores: Scores, look: Look) -> list[str]:
    """A sentence on what is not evaluated in every benchmark yet, or failed; none if all is."""

    def changed(entry: Entry) -> dict[str, Any]:
        settings = entry.settings.items()
        return {
            axis: value
            for axis, value in settings
            if axis in scores.without_default or [value] != scores.axes.get(axis, [])[:1]
        }

    singly = all(len(changed(entry)) < 2 for entry in scores.entries)  # then the rest goes without saying
    seeds: dict[str, list[int]] = {}
    for entry in scores.entries:
        whole = all(column.name in entry.summaries for column in scores.columns)
        if whole or not (
            not look.methods or {entry.method, entry.solver.of(entry.method)} & set(look.methods)
        ):
            continue
        settings = changed(entry) if singly else {}
        label = EvaluatedVariant(
            entry.method, entry.title, entry.solver, (), {}, settings or entry.settings
        ).label
        seeds.setdefault(plain_line(label), []).extend([] if entry.seed is None else [entry.seed])
    parts = [
        f"{label} (seed{'s' * (len(of) > 1)} {', '.join(map(str, of))})" if of else label
        for label, of in seeds.items()
    ]
    more = f"; and {len(parts) - _MOST_NAMED} more" if len(parts) > _MOST_NAMED else ""
    return [f"Unfinished: {'; '.join(parts[:_MOST_NAMED])}{more}."] if parts else []


# ---------------------------------------------------------------- files


def save(figure: Figure, path: Path, formats: Sequence[str] = FORMATS, dpi: int = 200) -> list[Path]:
    """Writes a figure as `<path>.<format>` and returns the files.

    Raises:
        UserError: The folder cannot be written to.
    """
    written = []
    for form in formats:
        file = path.with_name(f"{path.name}.{form}")
        atomic_write(file, to_svg(figure) if form == "svg" else _render(figure, form, dpi))
        written.append(file)
    return written


def _render(figure: Figure, form: str, dpi: int) -> bytes:
    with canvas.style(), io.BytesIO() as out, warnings.catch_warnings():
        # The type has no glyph for every script; a box in a PNG is no reason to talk about it each time.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format=form, dpi=dpi, metadata=_METADATA[form])
        return out.getvalue()


def to_svg(figure: Figure) -> str:
    """A figure as SVG that can stand in a file or in a page.

    Text is text. Names inside are made of the content, so that several figures get along in one page;
    nothing is styled outside of it, nothing refers to anything outside, and nothing is executed.
    """
    drawn = _render(figure, "svg", 72)
    prefix = f"f{hashlib.sha256(drawn).hexdigest()[:10]}-"
    root = ElementTree.fromstring(drawn)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name, value in list(element.attrib.items()):
            if name == "id":
                element.set(name, prefix + value)
            elif name == f"{{{_XLINK}}}href":
                del element.attrib[name]
                element.set("xlink:href", re.sub("^#", f"#{prefix}", value))
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{prefix}"))
    # What matplotlib says in a style sheet for `*`, which would be the whole page's.
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    root.set("xmlns", _SVG)
    root.set("xmlns:xlink", _XLINK)
    root.set("role", "img")
    title = ElementTree.Element("title")
    title.text = canvas.plain_line(figure.get_label())
    root.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
