"""Around long work: the run's folder and log, what people see, one line for whatever ends it early."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import typer

from stic_eval.cli.progress import Reporter
from stic_eval.cli.view import Board, Line, View

if TYPE_CHECKING:
    from stic_eval.config import RunConfig
    from stic_eval.experiment.driver import Experiment, Outcome
    from stic_eval.experiment.events import Event
    from stic_eval.experiment.resources import Resources
    from stic_eval.report.runs import Entry


@contextmanager
def at_work(
    config: RunConfig, *, fresh: bool, verbose: bool, quiet: bool
) -> Iterator[tuple[Resources, Reporter]]:
    """What an experiment is done with, in its folder, whose log and progress go on around the work.

    Folders that were made for it are taken away again if it ends before anything is done.

    Raises:
        UserError: The input is wrong.
        RunError: Anything else failed; the message names the log.
        typer.Exit: Interrupted (130).
    """
    from stic_eval import registry
    from stic_eval.errors import RunError, UserError
    from stic_eval.experiment import folder, inputs
    from stic_eval.experiment.resources import Resources

    inputs.check_model(config)
    made = [path for path in (config.folder, *config.folder.parents) if not path.exists()]
    reason = inputs.unwritable(config.folder)
    if reason:
        raise UserError(f"--output: {reason}; give a folder that can be")
    log = config.folder / "run.log"
    try:
        with Reporter(log, verbose=verbose, quiet=quiet) as report:
            yield Resources(config, report, folder.cache_of(config, fresh)), report
    except KeyboardInterrupt:
        if _remove(made, log):
            said = "nothing had begun, so nothing is left"
        else:
            again = "the same command resumes" + (" (without --fresh)" if fresh else "")
            said = f"finished stages, answers and scores are kept ({config.folder}): {again}"
        typer.echo(f"stic-eval: interrupted; {said}", err=True)
        raise typer.Exit(130) from None
    except UserError:
        _remove(made, log, config.folder / "config.yaml")
        raise
    except (RunError, typer.Exit):
        raise
    except Exception as error:  # whatever a model, a data set or a plug-in raises
        raise RunError(f"failed: {registry.told(error)} (see {log})") from error


def _remove(made: Sequence[Path], *files: Path) -> bool:
    """Takes away folders that were made for a run which has left no more than these files; whether it did."""
    if not made or not {path.name for path in made[0].iterdir()} <= {path.name for path in files}:
        return False
    for path in files:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # others may have put something beside it
        for folder in made:
            folder.rmdir()
    return not made[0].exists()


def evaluate(
    config: RunConfig, options: Sequence[str] = (), *, jobs: int, fresh: bool, verbose: bool, quiet: bool
) -> None:
    """A run, from checked input to its printed table; `options` are what `-o` was given.

    Raises:
        UserError: The input is wrong.
        RunError: Something failed; what does not depend on it is done, and in the table.
        typer.Exit: Rows are unscored or files were skipped (3), or it was interrupted (130).
    """
    from stic_eval.cli.table import print_table
    from stic_eval.experiment import driver

    with at_work(config, fresh=fresh, verbose=verbose, quiet=quiet) as (resources, report):
        arms = driver.arms_of_run(config, resources, fresh, options)
        driver.start_over(config, fresh)
        experiment = driver.plan(config.name, arms, resources)
        if jobs == 1:
            outcome = work_here(experiment, resources)
        else:
            outcome, _ = work_by_workers(experiment, resources, report, jobs)
        if outcome.interrupted:
            raise KeyboardInterrupt
        if not any(item.entry.summaries for item in experiment.evaluations):
            raise_first(outcome, config.folder)
        table = driver.finish(experiment, outcome, resources, driver.of_run(config))
    if table is not None:
        print_table(table)
    raise_first(outcome, config.folder)
    typer.echo(f"\n{config.folder}/table.md, .tex, .html, .csv, .json; records/; run.log")
    if experiment.skipped or (table is not None and table.unscored):
        raise typer.Exit(3)


def work_here(experiment: Experiment, resources: Resources) -> Outcome:
    """Has the tasks done in this process; what fails is said at once if there is more to do."""
    from stic_eval.experiment import driver

    said: list[str] = []
    begun: set[str] = set()

    def see(event: Event) -> None:
        if event.kind == "started":
            begun.add(event.task)
            while said:
                resources.report.line(said.pop(0))
        elif event.kind == "failed" and event.task in begun:
            said.append(f"{experiment.tasks[event.task].what}: failed: {event.value}")

    return driver.carry_out(experiment, driver.executor_of(resources, 1), resources, see)


def work_by_workers(
    experiment: Experiment, resources: Resources, report: Reporter, jobs: int
) -> tuple[Outcome, Board]:
    """Has the tasks done by worker processes, and shows how far they are."""
    from stic_eval.experiment import driver, estimates

    jobs = experiment.workers(jobs)
    work = estimates.seconds(experiment.evaluations, experiment.tasks, resources.engine)
    kind = "cell" if experiment.arms[0].label else "variant"
    board = Board(lines(experiment), work, jobs, kind, {name: t.what for name, t in experiment.tasks.items()})
    of = {task: item.entry for item in experiment.evaluations if item.same is None for task in item.tasks}
    executor = driver.executor_of(resources, jobs, apart=True)
    view = View(board, report.quiet)
    report.hand_over()
    with view:

        def see(event: Event) -> None:
            view.see(event)
            if event.kind == "done" and event.task in of:
                for line in board.lines:
                    if event.task in line.tasks and board.finished(line):
                        line.note = _average(experiment, of[event.task], len(resources.benchmarks))

        return driver.carry_out(experiment, executor, resources, see), board


def lines(experiment: Experiment) -> list[Line]:
    """A line for each cell, or each variant of a run, with the tasks that it waits for."""
    from stic_eval.experiment.graph import closure

    found: dict[str, list[str]] = {arm.label: [] for arm in experiment.arms if arm.label}
    for item in experiment.evaluations:
        found.setdefault(item.line, []).extend((item.same or item).tasks)
    shown = [Line(label, closure(tasks, experiment.tasks)) for label, tasks in found.items()]
    return [line for line in shown if line.tasks or line.label != "baseline"]


def _average(experiment: Experiment, entry: Entry, benchmarks: int) -> str:
    """An average so far, for its line."""
    peers = [
        e for e in (item.entry for item in experiment.evaluations)
        if (e.method, e.solver, e.settings) == (entry.method, entry.solver, entry.settings)
        and len(e.summaries) == benchmarks
    ]  # fmt: skip
    values = [s.score for e in peers for s in e.summaries.values()]
    if not values or None in values:
        return "done"
    return f"average {mean(v for v in values if v is not None):.1f}"


def raise_first(outcome: Outcome, folder: Path) -> None:
    """Ends a command with what failed first, if anything did.

    Raises:
        UserError: The input was wrong.
        RunError: Anything else.
    """
    from stic_eval.errors import RunError

    for event in outcome.failed.values():
        if event.cause is not None:
            raise event.cause(event.value)
        raise RunError(f"failed: {event.value} (see {folder / 'run.log'})")
