"""The shapes that a table of runs can have: by method, by component, by an ablation's axes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from stic_eval.errors import UserError
from stic_eval.registry import suggest
from stic_eval.report import paper_scores as paper
from stic_eval.report import training_costs
from stic_eval.report.cell_text import NONE
from stic_eval.report.run_merge import FoundVariant, MergedRuns, merge
from stic_eval.report.runs import Scores
from stic_eval.report.table_rows import EvaluatedVariant, PlannedRow, setting
from stic_eval.report.tables import Known, Table, assemble, baseline
from stic_eval.types import DESCRIBED, DIRECT

TableLayout = Literal["auto", "paper", "components", "ablation"]
YES, NO = "yes", NONE
# Axes that the components' columns show already.
_COMPONENT_AXES = ("stage1.use", "stage2.use", "dar", "method")
_COMPONENT_SOLVERS = (DIRECT, DESCRIBED)  # which are told apart by a column


def lay_out(
    found: Sequence[Scores],
    layout: TableLayout = "auto",
    *,
    by: Sequence[str] = (),
    reference: str | None = None,
    published: bool = False,
    known: Known | None = None,
) -> Table:
    """The table of one or several runs.

    Args:
        layout: `paper`: a row for each method; `components`: stage 1, stage 2 and DaR as leading columns;
            `ablation`: what varies as leading columns; `auto`: `ablation` if a run has axes, else `paper`.
        by: Axes of an ablation to show; the others stay at their default. Empty: all that vary.
        reference: What rows are compared with: a row's label, method or folder, or `default` for an
            ablation's default cell; a row's texts in the table, with commas between, name it too. None:
            the baseline of the row's model.
        published: Add the paper's rows, to `paper` (table 1) and `components` (table 2).
        known: Comparisons that have been made of these runs; see `assemble`.

    Raises:
        UserError: The runs cannot stand side by side, or have no such layout, axis or reference.
    """
    if layout == "auto":
        layout = "ablation" if any(scores.axes for scores in found) else "paper"
    merged = merge(found, cells=layout == "ablation" or reference == "default")
    if by and layout != "ablation":
        raise UserError(f"--by: is for an ablation's axes, not for the layout {layout}; leave it out")
    scores = f"Scores{merged.of_models}"
    placed: Sequence[FoundVariant] = merged.placed
    cells: dict[str, None] = {}
    if layout == "ablation":
        if published:
            raise UserError("--published: goes with --layout paper, components or detail, not ablation")
        placed, axes, heads, texts = _ablation(merged, by)
        cells = dict.fromkeys(item.variant.name for item in placed if item.variant.settings)
        of = f"{scores} with {next(iter(cells))}" if len(cells) == 1 else scores
        caption = f"{of} by {', '.join(axes)}, in percent."
        name = "-".join(["ablation", *axes])
    elif layout == "components":
        heads, texts = _components(placed, with_method=published)
        caption, name = f"{scores} by component, in percent.", "components"
    else:
        heads, texts = ("Method",), [(item.variant.label,) for item in placed]
        caption, name = f"{scores} by method, in percent.", "scores"
    heads, lines = to_lines(merged, placed, heads, texts)
    refer = _referrer(merged, placed, lines, reference)
    lines = [replace(line, reference=refer(item)) for line, item in zip(lines, placed, strict=True)]
    notes = [f"Cells: {next(iter(cells))}."] if len(cells) == 1 else []
    notes += _default_note(merged) if layout == "ablation" else []
    notes += merged.notes
    notes += training_costs.notes(found) if layout == "paper" else []
    table = assemble(merged.columns, lines, notes, heads=heads, caption=caption, name=name, known=known)
    return _with_published(table, layout) if published else table


def to_lines(
    merged: MergedRuns,
    placed: Sequence[FoundVariant],
    heads: Sequence[str],
    texts: Sequence[tuple[str, ...]],
) -> tuple[tuple[str, ...], list[PlannedRow]]:
    """Rows with what tells them apart: a column for the model and one for the run, where it takes them.

    They have no reference yet.
    """
    models = merged.models
    lead: list[str] = ["Model"] if len(models) > 1 else []
    rows = [
        ((models[p.variant.model],) if lead else ()) + text for p, text in zip(placed, texts, strict=True)
    ]
    runs = len(set(rows)) < len(rows)
    lines = []
    for item, row in zip(placed, rows, strict=True):
        run = (", ".join(item.runs),) if runs else ()
        before = (*((models[item.variant.model],) if lead else ()), *run)
        label = ": ".join((*before, item.variant.label))
        lines.append(PlannedRow(item.variant, (*row[: len(lead)], *run, *row[len(lead) :]), None, label))
    return (*lead, *(["Run"] if runs else []), *heads), lines


# ------------------------------------------------------------ leading columns


def _components(
    placed: Sequence[FoundVariant], with_method: bool
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Stage 1, stage 2, DaR; in front the method, with any other solver, where these tell no rows apart."""

    def says(value: bool) -> str:
        return YES if value else NO

    texts = []
    for item in placed:
        stages = item.stages
        if stages is None:
            raise UserError(
                f"--layout components: {item.runs[0]} was written by a version that did not record stages; "
                "run it again (finished work is only read)"
            )
        described = item.variant.solver == DESCRIBED
        with_method |= item.variant.solver not in _COMPONENT_SOLVERS
        texts.append((says("pair_training" in stages), says("item_training" in stages), says(described)))
    heads: tuple[str, ...] = ("Stage 1", "Stage 2", "DaR")
    both = list(zip(placed, texts, strict=True))
    if with_method or len({(item.variant.model, text) for item, text in both}) < len(both):
        return ("Method", *heads), [(_without_components(item.variant), *text) for item, text in both]
    return heads, list(texts)


def _without_components(variant: EvaluatedVariant) -> str:
    settings = {axis: value for axis, value in variant.settings.items() if axis not in _COMPONENT_AXES}
    solver = DIRECT if variant.solver in _COMPONENT_SOLVERS else variant.solver
    return replace(variant, solver=solver, settings=settings).label


def _ablation(
    merged: MergedRuns, by: Sequence[str]
) -> tuple[list[FoundVariant], list[str], tuple[str, ...], list[tuple[str, ...]]]:
    """What is shown of an ablation: variants in the grid's order, axes, heads and their texts."""
    axes = merged.axes
    if not axes:
        raise UserError("--layout ablation: the run is not an ablation; use --layout paper")
    for axis in by:
        if axis not in axes:
            raise UserError(f'--by: "{axis}" is not one of the axes ({", ".join(axes)}){suggest(axis, axes)}')
    order = [*by, *(axis for axis in axes if axis not in by)]
    cells = [item for item in merged.placed if item.variant.settings]
    rest = [item for item in merged.placed if not item.variant.settings]
    if by:
        open_ = sorted(merged.without_default - set(by))
        if open_:
            raise UserError(f"--by: {', '.join(open_)} has no default value in this grid; name it too")
        default = {axis: values[0] for axis, values in axes.items() if axis not in by}
        cells = [item for item in cells if _at(item.variant, default)]
        if not cells:
            raise UserError(f"--by {' --by '.join(by)}: no cell has the other axes at their default")

    def place(item: FoundVariant) -> list[int]:
        settings = item.variant.settings
        return [axes[a].index(settings[a]) if settings.get(a) in axes[a] else len(axes[a]) for a in order]

    cells.sort(key=place)
    shown = list(by) or [axis for axis in axes if len({_text(item.variant, axis) for item in cells}) > 1]
    shown = shown or list(axes)
    rows = [*rest, *cells]
    texts = [tuple(_text(item.variant, axis) for axis in shown) for item in rows]
    both = list(zip(rows, texts, strict=True))
    if len({(item.variant.model, item.runs, text) for item, text in both}) < len(rows):
        return rows, shown, ("Method", *shown), [(item.variant.name, *text) for item, text in both]
    # Where axes tell the cells apart, what is none is called by its name in the first axis' column.
    first = [text if item.variant.settings else (item.variant.name, *text[1:]) for item, text in both]
    return rows, shown, tuple(shown), first


def _default_note(merged: MergedRuns) -> list[str]:
    values = [
        f"{axis}={setting(values[0])}"
        for axis, values in merged.axes.items()
        if axis not in merged.without_default
    ]
    return [f"Default: {', '.join(values)}."] if values else []


def _text(variant: EvaluatedVariant, axis: str) -> str:
    return setting(variant.settings[axis]) if axis in variant.settings else ""


def _at(variant: EvaluatedVariant, values: dict[str, Any]) -> bool:
    """Whether a cell has these settings; one that an axis does not apply to has its default."""
    return all(variant.settings.get(axis, value) == value for axis, value in values.items())


# ------------------------------------------------------------ what rows are compared with


def _referrer(
    merged: MergedRuns, placed: Sequence[FoundVariant], lines: Sequence[PlannedRow], reference: str | None
) -> Callable[[FoundVariant], EvaluatedVariant | None]:
    if reference is None:
        return lambda item: baseline_of(item, merged.placed)
    if reference == "default":
        if not merged.axes:
            raise UserError(
                "--reference default: the run is not an ablation; name a row, e.g. --reference STIC"
            )
        if merged.without_default:
            names = ", ".join(sorted(merged.without_default))
            raise UserError(f"--reference default: the grid has no default value of {names}; name a row")
        values = {axis: choices[0] for axis, choices in merged.axes.items()}
        found = [p for p in merged.placed if p.variant.settings and _at(p.variant, values)]
        if not found:
            raise UserError("--reference default: the default cell is not among the rows")
    else:
        found = _variants_named(
            merged, {id(p): line for p, line in zip(placed, lines, strict=True)}, reference
        )

    def refer(item: FoundVariant) -> EvaluatedVariant | None:
        def likeness(other: FoundVariant) -> tuple[bool, bool, bool]:
            a, b = item.variant, other.variant
            return bool(set(item.runs) & set(other.runs)), a.method == b.method, a.solver == b.solver

        own = [other for other in found if other.variant.model == item.variant.model] or found
        return max(own, key=likeness).variant

    return refer


def _variants_named(merged: MergedRuns, lines: Mapping[int, PlannedRow], text: str) -> list[FoundVariant]:
    """Variants of that label or of that text in the table, or failing that name, method, folder or settings.

    Args:
        lines: `id` of a variant's place -> its row, of those that are shown.
        text: What was asked for; blanks around commas and capitals do not matter.

    Raises:
        UserError: There is none, or one model has several.
    """

    def normalise(text: str) -> str:
        return re.sub(r"\s*,\s*", ",", " ".join(text.split()).casefold())

    def names(item: FoundVariant) -> tuple[set[str], ...]:
        variant, line = item.variant, lines.get(id(item))
        settings = ", ".join(variant.settings_text())
        shown = [line.label, ", ".join(filter(None, line.heads)), ", ".join(line.heads)] if line else []
        others = [*item.folders, variant.method, variant.title, settings, f"{variant.name}, {settings}"]
        first = {normalise(name) for name in (variant.label, *shown)}
        return first, {normalise(variant.name)}, {normalise(name) for name in others if name}

    placed = merged.placed
    known = [names(item) for item in placed]
    found: list[FoundVariant] = []
    for at in range(3):
        found = found or [item for item, own in zip(placed, known, strict=True) if normalise(text) in own[at]]
    models = [(item.variant.model, item.runs[0]) for item in found]
    if len(set(models)) < len(models):
        several = ", ".join(f'"{item.variant.label}"' for item in found)
        raise UserError(f'--reference: "{text}" may be {several}; give one of these')
    if not found:
        labels = list(dict.fromkeys(item.variant.label for item in placed))
        shown = [*(["default"] if merged.axes and not merged.without_default else []), *labels]
        listed = ", ".join(f'"{label}"' for label in shown[:12]) + (", ..." if len(shown) > 12 else "")
        raise UserError(f'--reference: no row is called "{text}" (there are {listed}){suggest(text, shown)}')
    return found


def baseline_of(item: FoundVariant, placed: Sequence[FoundVariant]) -> EvaluatedVariant | None:
    """The baseline that a variant is compared with: of its model and, where that has one, its run."""
    own = [other.variant for other in placed if set(item.runs) & set(other.runs)]
    return baseline(item.variant, own) or baseline(item.variant, [other.variant for other in placed])


# ------------------------------------------------------------ the paper's rows


def _with_published(table: Table, layout: TableLayout) -> Table:
    components = layout == "components"
    found = paper.describe_and_respond() if components else paper.main_result()
    names = [column.name for column in table.columns]
    rows = []
    for item in found:
        name = item.name if "Model" in table.heads else item.label
        trained = YES if item.method else NO
        texts = {
            "Model": item.model,
            "Method": name.replace(" + DaR", "") if components else name,
            "Stage 1": trained,
            "Stage 2": trained,
            "DaR": YES if item.dar else NO,
        }
        heads = [texts.get(head, "") for head in table.heads]
        rows.append(paper.row(item, names, table.averaged, heads))
    notes = paper.notes("table2" if components else "table1")
    shown = [column for column in table.columns if any(item.scores.get(column.name) for item in found)]
    notes += paper.judge_note(shown)
    return replace(table, rows=(*table.rows, *rows), notes=(*table.notes, *notes))
