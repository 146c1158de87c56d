"""An ablation from its grid to its table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stic_eval.cli.conduct import at_work, work_by_workers
from stic_eval.cli.progress import Reporter
from stic_eval.errors import RunError, UserError
from stic_eval.experiment import driver, folder, inputs
from stic_eval.experiment.resources import Resources
from stic_eval.store import atomic_write

if TYPE_CHECKING:
    from stic_eval.ablate.grid import Axis, Grid
    from stic_eval.ablate.spec import Spec
    from stic_eval.cli.view import Board


def run(
    grid: Grid,
    spec: Spec,
    axes: Sequence[Axis],
    without_default: Sequence[str],
    *,
    name: str,
    jobs: int,
    dry_run: bool,
    fresh: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Plans, and unless it is a dry run does, what a grid is missing; prints its table.

    Raises:
        UserError: The input is wrong.
        RunError: Cells have failed; the others are done.
        typer.Exit: Rows are unscored or files skipped (3), or it was interrupted (130).
    """
    config, sheet = grid.base, _sheet(grid, spec, axes, name)
    inputs.check_model(config)
    if not fresh:
        _check_same(config.folder, sheet)
    if dry_run:
        _show_plan(grid, name, jobs, fresh, quiet)
        return
    with at_work(config, fresh=fresh, verbose=verbose, quiet=quiet) as (resources, report):
        arms = driver.arms_of_grid(grid, resources)
        driver.start_over(config, fresh)
        atomic_write(config.folder / "ablation.json", json.dumps(sheet, indent=1, ensure_ascii=False) + "\n")
        ordered, without = _axes(grid, axes, without_default)
        experiment = replace(driver.plan(name, arms, resources), axes=ordered, without_default=without)
        outcome, board = work_by_workers(experiment, resources, report, jobs)
        reasons = {task: event.value for task, event in outcome.failed.items()}
        more = {"jobs": jobs, "failed": reasons, **config.answering}
        table = driver.finish(experiment, outcome, resources, more)
        if table is not None:
            from stic_eval.cli.table import print_table

            print_table(table)
            typer.echo(f"\n{config.folder}/table.md, .tex, .html, .csv, .json; records/; run.log")
        if outcome.interrupted:
            raise KeyboardInterrupt
    _report_failures(board, config.folder / "run.log", len(grid.cells), none=table is None)
    if experiment.skipped or (table is not None and table.unscored):
        raise typer.Exit(3)


def _show_plan(grid: Grid, name: str, jobs: int, fresh: bool, quiet: bool) -> None:
    from stic_eval.cli.gridplan import print_plan

    with Reporter(None, quiet=quiet) as report:
        resources = Resources(grid.base, report, folder.cache_of(grid.base, fresh))
        arms = driver.arms_of_grid(grid, resources)
        experiment = driver.plan(name, arms, resources, fresh=fresh, look=True)
        print_plan(grid, experiment, resources, jobs)


def _axes(
    grid: Grid, axes: Sequence[Axis], without_default: Sequence[str]
) -> tuple[dict[str, list[Any]], list[str]]:
    """Axis -> its values, without those that only cells had which were left out; see `runs.Scores`."""
    found: dict[str, list[Any]] = {
        axis.name: [v.label for v in axis.values if any(c.values[axis.name] == v for c in grid.cells)]
        for axis in axes
    }
    without = [a.name for a in axes if a.name in without_default or a.values[0].label not in found[a.name]]
    return found, without


def _report_failures(board: Board, log: Path, cells: int, none: bool) -> None:
    """Ends the command with what went wrong in cells, if anything did.

    Raises:
        RunError: Something failed, or nothing was evaluated.
    """
    again = f"(see {log}; the same command tries again)"
    if none:
        reason = next(iter(board.failed.values()), "nothing to do")
        raise RunError(f"no cell could be evaluated: {reason} {again}")
    broken = [line for line in board.lines if any(task in board.failed for task in line.tasks)]
    if broken:
        first = next(board.failed[task] for task in broken[0].tasks if task in board.failed)
        raise RunError(f"{len(broken)} of {cells} cells failed, e.g. {broken[0].label}: {first} {again}")


def _sheet(grid: Grid, spec: Spec, axes: Sequence[Axis], name: str) -> dict[str, Any]:
    """What the folder keeps of the grid, and what makes it the same one."""
    return {
        "ablation": name,
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
            for axis in axes
        },
        "exclude": list(spec.exclude),
        "cells": [cell.settings for cell in grid.cells],
        "seeds": list(grid.base.seeds),
    }


def _check_same(folder: Path, sheet: Mapping[str, Any]) -> None:
    """Refuses a folder that holds the results of something else.

    Raises:
        UserError: It does.
    """
    if not (folder / "scores.json").exists():
        return
    try:
        old = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = {}
    if not isinstance(old, dict) or old.get("key") != sheet["key"]:
        raise UserError(
            f"--output {folder}: holds the results of another run or grid; give another folder (what they "
            "have in common is not computed again), or --fresh to start over in this one"
        )
