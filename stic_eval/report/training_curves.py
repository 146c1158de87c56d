"""Training curves: loss, reward margin and accuracy, from the logs that a run keeps."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.curves import Curves
from stic_eval.report import canvas
from stic_eval.report.canvas import COLOURS, DASHES, Look, needs, plain_line, value_text
from stic_eval.store import read_jsonl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from stic_eval.report.runs import Entry, Scores

_LOSS_ALONE = Curves("Training", {"loss": "Loss"})
_MOST_LINES = 14


@dataclass(frozen=True, slots=True)
class Curve:
    """The log of one training with one seed.

    Attributes:
        group: Tells trainings apart; the curves of one training's seeds share it.
        stage: Name of the stage, e.g. `infused_sft`.
        rows: Lines of the log: step, loss, and what the trainer measured beside it.
    """

    group: str
    label: str
    stage: str
    drawn: Curves
    rows: Sequence[Mapping[str, Any]]


def read(scores: Scores, folder: Path, methods: Sequence[str] = ()) -> list[Curve]:
    """The training logs kept with a run, in the order of its methods.

    A training that several methods or cells share is labelled by all of their titles and by the
    settings that they agree in.

    Raises:
        UserError: A log is damaged.
    """
    owners: dict[str, list[tuple[Entry, str]]] = {}  # name of the file -> who was trained by it
    drawn: dict[str, Curves] = {}
    for entry in scores.entries:
        if methods and not {entry.method, entry.solver.of(entry.method)} & set(methods):
            continue
        seen: Counter[str] = Counter()
        for stage in entry.stages:
            seen[stage.name] += 1
            again = f", round {seen[stage.name]}" if seen[stage.name] > 1 else ""
            file = f"{stage.name}-{stage.key[:16]}"
            owners.setdefault(file, []).append((entry, again))
            drawn[file] = stage.curves or _LOSS_ALONE
    logs = folder / "training"
    files = [name for name in owners if (logs / f"{name}.jsonl").is_file()]
    found = []
    for name in files:
        rows = list(read_jsonl(logs / f"{name}.jsonl"))
        label, what = plain_line(_label(owners[name])), name.rpartition("-")[0]
        # What the same training with another seed has in common with this one, and no other has.
        whose = sorted({(e.method, json.dumps(e.settings, sort_keys=True), n) for e, n in owners[name]})
        found.append(Curve(repr((what, whose)), label, what, drawn[name], rows))
    return found


def _label(owners: Sequence[tuple[Entry, str]]) -> str:
    titles = list(dict.fromkeys(entry.title for entry, _ in owners))
    first, again = owners[0]
    shared = [
        f"{axis}={value_text(value)}"
        for axis, value in first.settings.items()
        if axis != "dar"
        and (axis, value) != ("method", first.method)
        and all(entry.settings.get(axis) == value for entry, _ in owners)
    ]
    return ", ".join([" / ".join(titles), *shared]) + again


def training(curves: Sequence[Curve], look: Look) -> Figure:
    """What stages say is drawn of them against the optimiser step; a part for each kind of training.

    A thin line for each seed and a thick one for their mean, at the steps that all of them have.
    Nothing is smoothed.

    Raises:
        UserError: No log has been kept, or there are too many lines.
    """
    drawn = [curve for curve in curves if len(_series(curve, "loss")) > 1]
    if not drawn:
        raise needs(
            "training", "this run kept no training curves (nothing was trained, or by an older version)"
        )
    parts = [(what, [curve for curve in drawn if curve.drawn == what]) for what in _kinds(drawn)]
    labels_of = [_labels(of_kind) for _, of_kind in parts]
    most = max(map(len, labels_of))
    if most > _MOST_LINES:
        raise needs("training", f"would have {most} lines in a panel; choose with --method")
    across = 3 if look.width >= 5.5 else 2
    figure = canvas.new(look.width, 3.0, "Training curves")
    several = len(drawn) > len({curve.group for curve in drawn})
    legend = "Thin: a training seed; thick: the mean over seeds." if several else "One training seed."
    note = canvas.footnote(figure, [f"{legend} Not smoothed."])
    # Heights first: parts are laid out when they are made.
    heights = [
        1.6 * math.ceil(len(what.measures) / across)
        + canvas.legend_height(list(labels.values()), look.width)
        + canvas.LINE
        for (what, _), labels in zip(parts, labels_of, strict=True)
    ]
    areas = figure.subfigures(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for area, (what, of_kind), labels in zip(areas, parts, labels_of, strict=True):
        measures = what.measures
        grid = list(area.subplots(math.ceil(len(measures) / across), across, squeeze=False).flat)
        for axes, (measure, title) in zip(grid, measures.items(), strict=False):
            axes.set_title(title)
            axes.set_xlabel("Optimiser step")
            axes.grid(axis="y")
            axes.set_axisbelow(True)
            for k, group in enumerate(labels):
                _draw_seeds(axes, [curve for curve in of_kind if curve.group == group], measure, k)
        for axes in grid[len(measures) :]:
            axes.set_axis_off()
        canvas.legend(
            area, grid[0].get_legend_handles_labels()[0], list(labels.values()), look.width, what.title
        )
    return canvas.resize(figure, sum(heights) + note)


def _kinds(drawn: Sequence[Curve]) -> list[Curves]:
    """What is drawn, each once: what has most panels first, as comes first in training."""
    found: list[Curves] = []
    for curve in drawn:
        if curve.drawn not in found:
            found.append(curve.drawn)
    return sorted(found, key=lambda curves: -len(curves.measures))


def _labels(curves: Sequence[Curve]) -> dict[str, str]:
    """Group -> label; with the stage where one method trains twice in this way."""
    first = {curve.group: curve for curve in reversed(curves)}
    count = Counter(curve.label for curve in first.values())
    return {
        curve.group: curve.label
        if count[curve.label] == 1
        else f"{curve.label} ({curve.stage.replace('_', ' ')})"
        for curve in curves
    }


def _series(curve: Curve, measure: str) -> dict[float, float]:
    """Step -> finite value."""
    found = {}
    for row in curve.rows:
        step, value = row.get("step"), row.get(measure)
        if isinstance(step, (int, float)) and isinstance(value, (int, float)) and math.isfinite(value):
            found[float(step)] = float(value)
    return found


def _draw_seeds(axes: Axes, curves: Sequence[Curve], measure: str, k: int) -> None:
    runs = [series for series in (_series(curve, measure) for curve in curves) if series]
    colour, dashes = COLOURS[k % len(COLOURS)], DASHES[k % len(DASHES)]
    if len(runs) > 1:
        for series in runs:
            axes.plot(list(series), list(series.values()), color=colour, linewidth=0.5, alpha=0.45)
    common = sorted(set(runs[0]).intersection(*runs)) if runs else []
    means = [mean(series[step] for series in runs) for step in common]
    axes.plot(common, means, color=colour, linestyle=dashes, linewidth=1.5, label=str(k))
