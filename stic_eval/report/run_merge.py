"""Several runs as rows of one table: what may stand side by side, and what is the same row."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from stic_eval.errors import UserError
from stic_eval.report.runs import Scores
from stic_eval.report.table_rows import Column, EvaluatedVariant


@dataclass(frozen=True, slots=True)
class FoundVariant:
    """A variant and where it was found.

    Attributes:
        folders: Its folders under `records/`, without the seed.
        stages: Names of the stages that its adapter was trained by; None if that is not recorded.
        default: Whether it has no settings, or those of its ablation's default.
    """

    variant: EvaluatedVariant
    runs: tuple[str, ...]
    folders: tuple[str, ...]
    stages: frozenset[str] | None
    default: bool = True


@dataclass(frozen=True, slots=True)
class MergedRuns:
    """Runs put together.

    Attributes:
        axes: Of ablations: axis -> values in the order of the grid, the default's first.
        without_default: Axes whose first value is not the default.
    """

    columns: tuple[Column, ...]
    placed: tuple[FoundVariant, ...]
    axes: dict[str, list[Any]]
    notes: tuple[str, ...]
    without_default: frozenset[str] = frozenset()

    @property
    def models(self) -> dict[str, str]:
        """Model -> as printed: the last part of its path or hub id, where that is no other's."""
        models = list(dict.fromkeys(placed.variant.model for placed in self.placed))
        last = [PurePath(model).name or model for model in models]
        return {m: name if last.count(name) == 1 else m for m, name in zip(models, last, strict=True)}

    @property
    def of_models(self) -> str:
        """For a caption: ` of ` and the models, as far as the runs name them."""
        names = [name for name in self.models.values() if name]
        return f" of {', '.join(names)}" if names else ""


def merge(found: Sequence[Scores], cells: bool = False) -> MergedRuns:
    """Puts runs together; a row that several runs have appears once, with the benchmarks of all of them.

    A run's row and an ablation's default cell are the same row, where results are equal.

    Args:
        cells: Such a row keeps the cell's settings; else it is the run's.

    Raises:
        UserError: A benchmark was asked or graded in another way, or has other rows, in one of them.
    """
    columns: dict[str, tuple[Column, str, Scores]] = {}
    placed: list[FoundVariant] = []
    axes: dict[str, list[Any]] = {}
    notes: list[str] = []
    names = _names(found)
    for name, scores in zip(names, found, strict=True):
        for column in scores.columns:
            known, run, first = columns.setdefault(column.name, (column, name, scores))
            if first is not scores:
                _check(known, column, run, name, first, scores)
        for item in _find_variants(scores, name):
            same = next((at for at, other in enumerate(placed) if _is_same_row(other, item)), None)
            if same is None:
                placed.append(item)
            else:
                placed[same] = _join(placed[same], item, cells)
        for axis, values in scores.axes.items():
            known_values = axes.setdefault(axis, [])
            known_values += [value for value in values if value not in known_values]
        own = [*scores.unfinished_notes(), *scores.notes]
        notes += [f"{name}: {note}" for note in own] if len(found) > 1 else own
    return MergedRuns(
        tuple(column for column, _, _ in columns.values()),
        tuple(placed),
        axes,
        tuple(dict.fromkeys(notes)),
        frozenset(axis for scores in found for axis in scores.without_default),
    )


def _names(found: Sequence[Scores]) -> list[str]:
    """The runs' names, numbered where two have the same."""
    names = [scores.run for scores in found]
    return [f"{name} ({at + 1})" if names.count(name) > 1 else name for at, name in enumerate(names)]


def _find_variants(scores: Scores, run: str) -> list[FoundVariant]:
    found = []
    for group in scores.groups():
        variant = scores.variant(group)
        if variant is None:
            continue
        folders = tuple(dict.fromkeys(re.sub(r"@seed\d+$", "", entry.folder) for entry in group))
        known = [entry.stages for entry in group if entry.stages or entry.seed is None]
        stages = frozenset(stage.kind for stage in known[0]) if known else None
        found.append(FoundVariant(variant, (run,), folders, stages, _is_default(variant, scores)))
    return found


def _is_default(variant: EvaluatedVariant, scores: Scores) -> bool:
    """Whether an ablation's cell has the settings that its run would have had without the ablation."""
    default = {axis: values[0] for axis, values in scores.axes.items() if axis not in scores.without_default}

    def is_implied(axis: str) -> bool:
        # Method and describe-and-respond are what a row is, and no settings; a baseline has no stages.
        return axis in ("dar", "method") or (variant.method == "baseline" and axis.endswith(".use"))

    settings = {axis: value for axis, value in variant.settings.items() if not is_implied(axis)}
    return all(axis in default and default[axis] == value for axis, value in settings.items())


def _check(one: Column, other: Column, run: str, to: str, first: Scores, scores: Scores) -> None:
    """Whether a benchmark is the same in two runs."""
    for what, a, b in (("asked", one.protocol, other.protocol), ("graded", one.grader, other.grader)):
        if a != b:
            raise UserError(
                f"{one.title}: {what} in another way in {run} ({a or 'not said'}) than in {to} "
                f"({b or 'not said'}); they cannot be compared: leave one out"
            )
    if one.version and other.version and one.version != other.version:
        raise UserError(
            f"{one.title}: graded by version {one.version} of the benchmark in {run}, by {other.version} in "
            f"{to}; they cannot be compared: run the older one again"
        )
    found = [[e.summaries[one.name] for e in s.entries if one.name in e.summaries] for s in (first, scores)]
    sizes = [{summary.n for summary in own} for own in found]
    if sizes[0] and sizes[1] and sizes[0] != sizes[1]:
        a, b = ("/".join(map(str, sorted(size))) for size in sizes)
        raise UserError(
            f"{one.title}: {run} has {a} rows, {to} {b}; they cannot be compared: leave one out, or run "
            "both with the same --limit and rows"
        )
    # Of all units, from an evaluation that left none unscored; none if there is no such one.
    ids = [next((set(summary.units) for summary in own if not summary.unscored), set()) for own in found]
    if ids[0] and ids[1] and ids[0] != ids[1]:
        raise UserError(
            f"{one.title}: {run} and {to} have different rows, though equally many; they cannot be "
            "compared: leave one out"
        )


def _is_same_row(one: FoundVariant, other: FoundVariant) -> bool:
    """Whether two variants are one row: called the same, and nowhere with other results."""
    a, b = one.variant, other.variant
    names = [(v.model, v.method, v.title, v.solver, v.seeds) for v in (a, b)]
    cells = [json.dumps(dict(v.settings), sort_keys=True, default=str) for v in (a, b)]
    plain = one.default and other.default and not (a.settings and b.settings)
    shared = [name for name in a.summaries if a.summaries[name] and b.summaries.get(name)]
    return (
        names[0] == names[1]
        and (cells[0] == cells[1] or plain)
        and bool(shared)
        and all(
            [summary.units for summary in a.summaries[name]] == [s.units for s in b.summaries[name]]
            for name in shared
        )
    )


def _join(one: FoundVariant, other: FoundVariant, cells: bool) -> FoundVariant:
    a, b = one.variant.settings, other.variant.settings
    known = {name: summaries for name, summaries in one.variant.summaries.items() if summaries}
    summaries = {**other.variant.summaries, **known}
    return FoundVariant(
        replace(one.variant, summaries=summaries, settings=(a or b) if cells else (a and b)),
        (*one.runs, *other.runs),
        tuple(dict.fromkeys((*one.folders, *other.folders))),
        one.stages or other.stages,
        one.default and other.default,
    )
