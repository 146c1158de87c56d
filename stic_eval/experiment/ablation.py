"""An ablation from what it is given to its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval import registry
from stic_eval.ablations import build
from stic_eval.ablations import spec as specs
from stic_eval.errors import Interrupted, RunError, UserError
from stic_eval.experiment import driver, folder, inputs, planning
from stic_eval.experiment.cluster import join
from stic_eval.experiment.conduct import Outlook, at_work, machine_of, work_by_workers, workers
from stic_eval.experiment.progress import Reporter
from stic_eval.experiment.resources import Resources
from stic_eval.experiment.result import RunResult
from stic_eval.report import runs, setting_differences
from stic_eval.store import atomic_write, read_object
from stic_eval.training.trackers import check_installed

if TYPE_CHECKING:
    from stic_eval.ablations.grid import Axis, Grid
    from stic_eval.ablations.spec import Spec
    from stic_eval.engines.costs import Hardware
    from stic_eval.experiment.conduct import Conduct
    from stic_eval.experiment.view import Board
    from stic_eval.settings import RunConfig


@dataclass(frozen=True)
class Ablation:
    """What is varied, and the cells that it comes to.

    Attributes:
        name: Of the ablation, or its file; `grid` for one that has none.
        grid: The cells.
        spec: The ablation as a file has it, under what was given beside it.
        axes: What is varied.
        without_default: Axes whose first value is not the default.
    """

    name: str
    grid: Grid
    spec: Spec
    axes: Sequence[Axis]
    without_default: Sequence[str]


def define(
    name: str | None,
    *,
    vary: tuple[str, ...],
    one_at_a_time: bool | None,
    exclude: tuple[str, ...],
    seeds: tuple[int, ...],
    method: str | None,
    preset: str | None,
    file: Path | None,
    overrides: tuple[str, ...],
    output: Path | None,
    flags: Mapping[str, Any],
) -> Ablation:
    """An ablation from what a command or call was given.

    Args:
        name: A built-in one or a YAML file; None: `vary` says it all.
        vary: Axes with their values, in place of the ablation's own.
        one_at_a_time: Single departures from the default, or all combinations; None: as the ablation says.
        exclude: Conditions on cells that are left out.
        seeds: Of every cell; none: as the ablation says.
        method: What cells train; None: as the ablation says.
        preset: As for a run.
        file: As for a run.
        overrides: `-o` items.
        output: Folder for results; None: by the ablation's name and content.
        flags: Fields of RunConfig.

    Raises:
        UserError: Something of it does not fit.
    """
    if name is None and not vary:
        raise UserError("give an ablation by name (`stic-eval ls ablations`), or axes with --vary")
    flags = dict(flags)
    dar, solver = flags.pop("dar", None), flags.get("solvers")  # `dar` is the grid's
    spec = specs.load(name) if name else specs.Spec(dar=None)
    spec = spec.model_copy(
        update={
            "method": registry.resolve_name("method", method or spec.method),
            "design": spec.design if one_at_a_time is None else "one-at-a-time" if one_at_a_time else "full",
            # Conditions on axes that others have taken the place of would make no sense.
            "exclude": (*(() if vary else spec.exclude), *exclude),
            "dar": None if solver else spec.dar if dar is None else dar,
            "seeds": seeds or spec.seeds,
        }
    )
    flags |= {"seeds": spec.seeds} if spec.seeds else {}
    where = "--vary" if vary else f"ablation {name}" if name in specs.shipped_names() else str(name)
    given = build.GridArguments(spec, where, vary, preset, file, overrides, flags)
    varied, without_default = build.axes(given)
    flag = "--solver" if solver else f"--{'' if dar else 'no-'}dar" if dar is not None else ""
    if flag and any(value.solver is not None for axis in varied for value in axis.values):
        raise UserError(f"{flag}: the axis dar decides; leave one of them out")
    known = Path(name).stem if name and not vary else "grid"
    return Ablation(known, build.grid(given, varied, known, output), spec, varied, without_default)


def look_ahead(ablation: Ablation, way: Conduct, hardware: Hardware | None = None) -> Outlook:
    """What an ablation is missing, on hardware that is named or here; nothing is computed or written.

    Raises:
        UserError: The input is wrong, or the folder holds something else.
    """
    config, fresh = ablation.grid.base, not way.resume
    _check(ablation, way)
    with Reporter(None, quiet=way.quiet) as report, join(way.cluster, config.nodes) as cluster:
        resources = Resources(config, report, folder.cache_of(config, fresh))
        machine = machine_of(resources, cluster, hardware)
        arms = planning.arms_of_grid(ablation.grid, resources, machine)
        plan = planning.plan(ablation.name, arms, resources, fresh=fresh, look=True)
        return Outlook(plan, resources, workers(plan, resources, way, cluster), machine)


def run(ablation: Ablation, way: Conduct) -> RunResult:
    """Does what an ablation is missing.

    Raises:
        UserError: The input is wrong.
        RunError: Cells have failed; the others are done, and in the error's result.
        Interrupted: It was ended from outside.
    """
    grid, config = ablation.grid, ablation.grid.base
    _check(ablation, way)
    with at_work(config, way) as (resources, report), join(way.cluster, config.nodes) as cluster:
        machine = None if cluster is None else cluster.settle(resources)
        arms = planning.arms_of_grid(grid, resources, machine)
        planning.start_over(config, not way.resume)
        text = json.dumps(_sheet(ablation), indent=1, ensure_ascii=False) + "\n"
        atomic_write(config.folder / "ablation.json", text)
        ordered, without = _axes(ablation)
        experiment = replace(
            planning.plan(ablation.name, arms, resources), axes=ordered, without_default=without
        )
        jobs = workers(experiment, resources, way, cluster)
        outcome, board = work_by_workers(experiment, resources, report, jobs, cluster)
        reasons = {task: event.value for task, event in outcome.failed.items()}
        more = {"command": list(way.command), "jobs": way.jobs or jobs, "failed": reasons, **config.answering}
        table = driver.finish(experiment, outcome, resources, more)
        result = RunResult(config.folder.absolute(), experiment.scores(resources), experiment.skipped, table)
        if outcome.interrupted:
            ended = Interrupted()
            ended.result = result if table is not None else None
            raise ended
    failure = _failure(board, config.folder / "run.log", len(grid.cells), none=table is None)
    if failure is not None:
        failure.result = result if table is not None else None
        raise failure
    return result


def _check(ablation: Ablation, way: Conduct) -> None:
    inputs.check_model(ablation.grid.base)
    check_installed(ablation.grid.base.report_to)
    if way.resume:
        _check_same(ablation.grid.base, _sheet(ablation))


def _axes(ablation: Ablation) -> tuple[dict[str, list[Any]], list[str]]:
    """Axis -> its values, without those that only cells had which were left out; see `runs.Scores`."""
    axes, cells = ablation.axes, ablation.grid.cells
    found: dict[str, list[Any]] = {
        axis.name: [v.label for v in axis.values if any(c.values[axis.name] == v for c in cells)]
        for axis in axes
    }
    lacking = ablation.without_default
    without = [a.name for a in axes if a.name in lacking or a.values[0].label not in found[a.name]]
    return found, without


def _failure(board: Board, log: Path, cells: int, none: bool) -> RunError | None:
    """What went wrong in cells, if anything did, or if nothing was evaluated."""
    again = f"(see {log}; the same command tries again)"
    if none:
        reason = next(iter(board.failed.values()), "nothing to do")
        return RunError(f"no cell could be evaluated: {reason} {again}")
    broken = [line for line in board.lines if any(task in board.failed for task in line.tasks)]
    if not broken:
        return None
    first = next(board.failed[task] for task in broken[0].tasks if task in board.failed)
    return RunError(f"{len(broken)} of {cells} cells failed, e.g. {broken[0].label}: {first} {again}")


def _sheet(ablation: Ablation) -> dict[str, Any]:
    """What the folder keeps of the grid, and what makes it the same one."""
    grid, spec = ablation.grid, ablation.spec
    return {
        "ablation": ablation.name,
        "title": spec.title,
        "paper": spec.paper,
        "key": grid.key,
        "method": spec.method,
        "design": spec.design,
        "axes": {
            axis.name: [
                {"value": v.label, "sets": list(v.options)}
                | ({"method": v.method} if v.method is not None else {})
                for v in axis.values
            ]
            for axis in ablation.axes
        },
        "exclude": list(spec.exclude),
        "cells": [cell.settings for cell in grid.cells],
        "seeds": list(grid.base.seeds),
    }


def _check_same(config: RunConfig, sheet: Mapping[str, Any]) -> None:
    """Refuses a folder that holds the results of something else.

    Raises:
        UserError: It does.
    """
    folder = config.folder
    if not (folder / "scores.json").exists():
        return
    old = read_object(folder / "ablation.json")
    if old.get("key") != sheet["key"]:
        how = setting_differences.of_grids(old, sheet) if old else "it is a run, not an ablation"
        how = how or runs.other_settings(folder, config) or "its cells have other settings"
        raise UserError(
            f"--output {folder}: holds the results of another run or grid ({how}); give another folder (what "
            "they have in common is not computed again), or --fresh to start over in this one"
        )
