"""An ablation from its grid to its table: what is missing is planned, done by workers, kept as it comes."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stic_eval.ablate import pool
from stic_eval.ablate.view import Board, Line, View, kind_of
from stic_eval.cli import asking, cells, provenance
from stic_eval.cli.progress import Reporter
from stic_eval.cli.untrained import discard_untrained
from stic_eval.errors import RunError, UserError
from stic_eval.experiment import grading, inputs, variants
from stic_eval.report import render, runs
from stic_eval.report.layouts import lay_out
from stic_eval.report.notes import training
from stic_eval.store import atomic_write

if TYPE_CHECKING:
    from stic_eval.ablate.grid import Axis
    from stic_eval.ablate.spec import Spec
    from stic_eval.cli.session import Session


def run(
    grid: cells.Grid,
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
    folder = grid.base.folder
    inputs.check_model(grid.base)
    sheet = _sheet(grid, spec, axes, name)
    if not fresh:
        _check_same(folder, sheet)
    log = None if dry_run else folder / "run.log"
    if log is not None:
        reason = inputs.unwritable(folder)
        if reason:
            raise UserError(f"--output: {reason}; give a folder that can be")
    with Reporter(log, verbose=verbose, quiet=quiet) as report:
        base, sessions = cells.sessions(grid, report)
        for session in (base, *sessions):
            session.engine.check()
            inputs.check_rows(session.config)
            inputs.check_tiles(session.config)
        grading.check_key(base.judge, grid.base, base.benchmarks, report)
        if not base.engine.trains:
            labels = [cell.label for cell in grid.cells]
            named = [(label, s.config, s.variants) for label, s in zip(labels, sessions, strict=True)]
            variants.check_apart(named, base.inputs.data)
        if fresh and not dry_run:
            base.clear()
            for session in sessions:
                session.use_cache(base.cache)
        if not dry_run:
            discard_untrained([base, *sessions])
        planned = cells.evaluations(grid, base, sessions)
        todo = cells.tasks(grid, planned)
        work = _seconds(base, planned, {ident: line for ident, (_, line) in todo.items()})
        if dry_run:
            from stic_eval.cli.gridplan import print_plan

            print_plan(grid, planned, todo, work, jobs)
            return
        atomic_write(folder / "config.yaml", grid.base.to_yaml())
        atomic_write(folder / "ablation.json", json.dumps(sheet, indent=1, ensure_ascii=False) + "\n")
        provenance.list_skipped(base)
        skipped = len(base.skipped())
    rows = variants.answerers(grid.base, [item.variant for item in planned], base.engine)
    notes = base.engine.notes(rows)
    notes += asking.notes(base.profile)
    scores = runs.Scores(name, base.columns(), [p.entry for p in planned], notes, grid.base.model)
    # Values that only cells had which were left out are none of this grid.
    scores.axes = {
        axis.name: [v.label for v in axis.values if any(c.values[axis.name] == v for c in grid.cells)]
        for axis in axes
    }
    scores.without_default = [
        axis.name for axis in axes
        if axis.name in without_default or axis.values[0].label not in scores.axes[axis.name]
    ]  # fmt: skip
    started = time.time()
    board = Board(_lines(grid, planned, todo), work, jobs, {i: line.what for i, (_, line) in todo.items()})
    interrupted = False
    try:
        with View(board, quiet) as view, _stopped_politely():
            _work(grid, planned, {i: task for i, (task, _) in todo.items()}, scores, view, jobs, log)
    except KeyboardInterrupt:
        interrupted = True
    base.keep_curves(scores.entries)
    scores.notes += training(scores.entries)
    summaries = [summary for entry in scores.entries for summary in entry.summaries.values()]
    scores.notes += asking.thinking(summaries, grid.base.thinking) + asking.rounding(summaries, base.dtype)
    scores.notes += provenance.undated((stage for e in scores.entries for stage in e.stages), base.stages)
    runs.save(scores, folder)
    if board.done or not (folder / "manifest.json").is_file():
        more = {"jobs": jobs, "failed": board.failed, **grid.base.answering}
        provenance.rows_by_others(base)
        provenance.manifest(base, name, started, board.done, more)
    table = None
    if any(entry.summaries for entry in scores.entries):
        table = lay_out([scores])
        render.write(table, folder)
        from stic_eval.cli.table import print_table

        print_table(table)
        typer.echo(f"\n{folder}/table.md, .tex, .html, .csv, .json; records/; run.log")
    if interrupted:
        typer.echo(
            f"stic-eval: interrupted; finished stages and cells are kept ({folder}): the same command resumes"
            + (" (without --fresh)" if fresh else ""),
            err=True,
        )
        raise typer.Exit(130)
    if table is None:
        reason = next(iter(board.failed.values()), "nothing to do")
        raise RunError(f"no cell could be evaluated: {reason} (see {log}; the same command tries again)")
    if board.failed:
        broken = [line for line in board.lines if any(task in board.failed for task in line.tasks)]
        first = next(board.failed[t] for line in broken for t in line.tasks if t in board.failed)
        raise RunError(
            f"{len(broken)} of {len(grid.cells)} cells failed, e.g. {broken[0].label}: {first} "
            f"(see {log}; the same command tries again)"
        )
    if skipped or table.unscored:
        raise typer.Exit(3)


@contextmanager
def _stopped_politely() -> Iterator[None]:
    """Lets what a cluster's scheduler sends end the work as Ctrl-C does."""
    try:
        old = signal.signal(signal.SIGTERM, signal.default_int_handler)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


def _work(
    grid: cells.Grid,
    planned: Sequence[cells.Planned],
    tasks: Mapping[str, pool.Task],
    scores: runs.Scores,
    view: View,
    jobs: int,
    log: Path | None,
) -> None:
    """Does the tasks, and saves every result as it comes."""
    folder = grid.base.folder
    by_task = {item.task: item for item in planned if item.same is None}
    _copy_same(planned)
    runs.save(scores, folder)
    jobs = max(1, min(jobs, len(tasks)))
    with closing(pool.run(list(tasks.values()), cells.work, (grid, jobs, log), jobs)) as events:  # type: ignore[type-var]
        for event in events:
            if event.kind == "result":
                entry = by_task[event.task].entry
                benchmark, key, value = event.value
                if benchmark == "stages":
                    entry.stages[:] = provenance.recalled(value, entry.stages)
                else:
                    entry.keys[benchmark], entry.summaries[benchmark] = key, value
            view.see(event)
            if event.kind == "done" and event.task in by_task:
                _copy_same(planned)
                for line in view.board.lines:
                    if event.task in line.tasks and view.board.finished(line):
                        line.note = _outcome(scores, by_task[event.task].entry)
            if event.kind == "result":
                runs.save(scores, folder)


def _copy_same(planned: Sequence[cells.Planned]) -> None:
    """Gives cells that come to the same as another that one's results."""
    for item in planned:
        if item.same is not None:
            item.entry.keys.update(item.same.entry.keys)
            item.entry.summaries.update(item.same.entry.summaries)
            item.entry.stages[:] = item.same.entry.stages


def _outcome(scores: runs.Scores, entry: runs.Entry) -> str:
    """A cell's average so far, for its line."""
    from statistics import mean

    peers = [
        e for e in scores.entries
        if (e.method, e.solver, e.settings) == (entry.method, entry.solver, entry.settings)
        and len(e.summaries) == len(scores.columns)
    ]  # fmt: skip
    values = [s.score for e in peers for s in e.summaries.values()]
    if not values or None in values:
        return "done"
    return f"average {mean(v for v in values if v is not None):.1f}"


def _lines(
    grid: cells.Grid, planned: Sequence[cells.Planned], todo: Mapping[str, tuple[pool.Task, variants.Line]]
) -> list[Line]:
    """A line for the baseline and for each cell, with the tasks that it waits for."""
    labels: dict[int | None, str] = {None: "baseline"}
    labels |= {index: cell.label for index, cell in enumerate(grid.cells)}
    found = []
    for index, label in labels.items():
        wanted: set[str] = set()
        for item in planned:
            if item.cell == index:
                wanted |= _closure((item.same or item).task, todo)
        found.append(Line(label, tuple(ident for ident in todo if ident in wanted)))
    return [line for line in found if line.tasks or line.label != "baseline"]


def _closure(ident: str, todo: Mapping[str, tuple[pool.Task, variants.Line]]) -> set[str]:
    """A task and all that it waits for."""
    found: set[str] = set()
    left = [ident]
    while left:
        current = left.pop()
        if current in todo and current not in found:
            found.add(current)
            left += todo[current][0].needs
    return found


def _seconds(
    base: Session, planned: Sequence[cells.Planned], lines: Mapping[str, variants.Line]
) -> dict[str, float]:
    """Roughly what each task takes: by what such stages took before where the cache has some.

    Of a server's speed nothing is known: its tasks count by their requests, a second each.
    """
    if base.engine.estimate(1, 0) is None:
        return {ident: float(line.generations) for ident, line in lines.items()}

    def guess(generations: int, steps: int) -> float:
        found = base.engine.estimate(generations, steps)
        return 0.0 if found is None else found.seconds

    seen: dict[str, tuple[float, float]] = {}
    for stage in {s.key: s for item in planned for s in item.entry.stages if s.known}.values():
        took, guessed = seen.get(stage.name, (0.0, 0.0))
        seen[stage.name] = (took + stage.seconds, guessed + guess(stage.generations, stage.steps))
    # Evaluations are not timed in the cache; descriptions are what they are most like.
    like = {"evaluate": "descriptions"}
    total = (sum(took for took, _ in seen.values()), sum(guessed for _, guessed in seen.values()))
    found = {}
    for ident, line in lines.items():
        kind = kind_of(ident)
        took, guessed = seen.get(like.get(kind, kind), total)
        found[ident] = guess(line.generations, line.steps) * (took / guessed if guessed and took else 1.0)
    return found


def _sheet(grid: cells.Grid, spec: Spec, axes: Sequence[Axis], name: str) -> dict[str, Any]:
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
