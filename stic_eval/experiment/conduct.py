"""A run from settings to result: folder, log, what people see, one line for whatever ends it early."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from stic_eval import durable_files, lease, registry
from stic_eval.errors import Interrupted, RunError, UserError, storage_failure
from stic_eval.experiment import driver, estimates, folder, inputs, planning
from stic_eval.experiment.cluster import LOCAL, Cluster, join
from stic_eval.experiment.graph import closure
from stic_eval.experiment.progress import Reporter
from stic_eval.experiment.resources import Resources
from stic_eval.experiment.result import RunResult, TrainResult
from stic_eval.experiment.view import Board, BoardLine, View
from stic_eval.training.trackers import check_installed

if TYPE_CHECKING:
    from stic_eval.contracts.engine import Engine
    from stic_eval.engines.costs import Hardware
    from stic_eval.experiment.driver import Outcome
    from stic_eval.experiment.events import Event
    from stic_eval.experiment.machine_facts import Facts
    from stic_eval.experiment.planning import Experiment
    from stic_eval.report.runs import Entry
    from stic_eval.settings import RunConfig


@dataclass(frozen=True)
class Conduct:
    """How a run goes about its work, which changes no result.

    Attributes:
        jobs: Worker processes; None: one, or as many as the cluster has room for.
        cluster: Where they are: `local`, or `ray` with or without an address.
        resume: Whether what is cached is used, or everything is computed again.
        verbose: The lines of the log are printed as well.
        quiet: Nothing is printed on the way.
        command: What the manifest says was called; empty: nothing.
    """

    jobs: int | None = None
    cluster: str = LOCAL
    resume: bool = True
    verbose: bool = False
    quiet: bool = False
    command: Sequence[str] = ()


@contextmanager
def at_work(
    config: RunConfig, way: Conduct, engine: Engine | None = None
) -> Iterator[tuple[Resources, Reporter]]:
    """What an experiment is done with, in its folder, whose log and progress go on around the work.

    One process at a time is at work in a folder; others wait for it, and go on from what it has left. Folders
    that were made for it are taken away again if it ends before anything is done.

    Args:
        config: Its settings.
        way: How it goes about its work.
        engine: Who answers, where a model is loaded already; None: as the settings say.

    Raises:
        UserError: The input is wrong.
        RunError: Anything else failed; the message names the log.
        Interrupted: It was ended from outside.
    """
    inputs.check_model(config)
    check_installed(config.report_to)
    created = [path for path in (config.folder, *config.folder.parents) if not path.exists()]
    reason = inputs.unwritable(config.folder)
    if reason:
        raise UserError(f"--output: {reason}; give a folder that can be")
    log, fresh = config.folder / "run.log", not way.resume
    try:
        with Reporter(log, verbose=way.verbose, quiet=way.quiet) as report, _alone_in(config.folder):
            resources = Resources(config, report, folder.cache_of(config, fresh))
            durable_files.sweep(config.folder, deep=True)
            resources.stages.sweep()
            if engine is not None:
                resources.take(engine)
            try:
                yield resources, report
            finally:
                if engine is None:
                    resources.close()
    except KeyboardInterrupt as error:
        if _remove(created, log):
            advice = "nothing had begun, so nothing is left"
        else:
            again = "the same command resumes" + (" (without --fresh)" if fresh else "")
            advice = f"finished stages, answers and scores are kept ({config.folder}): {again}"
        ended = Interrupted(f"interrupted; {advice}")
        ended.result = getattr(error, "result", None)
        raise ended from None
    except UserError:
        _remove(created, log, config.folder / "config.yaml")
        raise
    except RunError:
        raise
    except (Exception, SystemExit) as error:  # whatever a model, a data set or a plug-in raises
        why = storage_failure(error) or f"failed: {registry.explain(error)}"
        raise RunError(f"{why} (see {log})") from error


@contextmanager
def _alone_in(at: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder while the block runs; waits for one that is in it."""

    def waiting(holder: str) -> None:
        logging.getLogger("stic_eval.run").warning(
            "%s: %s is working there with the same --output; waiting until it ends", at, holder
        )

    with lease.hold(at / ".lease", waiting):
        yield


def _remove(created: Sequence[Path], *files: Path) -> bool:
    """Removes folders created for a run that has left no more than these files; whether it did."""
    if not created or not {path.name for path in created[0].iterdir()} <= {path.name for path in files}:
        return False
    for path in files:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # others may have put something beside it
        for path in created:
            path.rmdir()
    return not created[0].exists()


@dataclass(frozen=True)
class Outlook:
    """What an experiment would amount to.

    Attributes:
        experiment: Its plan.
        resources: What it is planned with.
        jobs: Workers that would be at work at once.
        machine: Where they would be, as one of them says, or as hardware was named; None: here.
    """

    experiment: Experiment
    resources: Resources
    jobs: int
    machine: Facts | None = None


def look_ahead(
    config: RunConfig, options: Sequence[str], way: Conduct, *, evaluate: bool = True,
    hardware: Hardware | None = None,
) -> Outlook:  # fmt: skip
    """What a run would amount to; nothing is computed or written.

    Args:
        config: The run.
        options: What `-o` was given.
        way: How it would go about it.
        evaluate: Whether it evaluates, or trains only.
        hardware: What it is planned for; None: what is here, or on the cluster.

    Raises:
        UserError: The input is wrong, as it would be for the run itself.
    """
    inputs.check_model(config)
    check_installed(config.report_to)
    fresh = not way.resume
    with Reporter(None, quiet=True) as report, join(way.cluster, config.nodes) as cluster:
        resources = Resources(config, report, folder.cache_of(config, fresh))
        machine = machine_of(resources, cluster, hardware)
        arms = planning.arms_of_run(config, resources, fresh, options, machine)
        plan = planning.plan(config.name, arms, resources, fresh=fresh, look=True, evaluate=evaluate)
        return Outlook(plan, resources, workers(plan, resources, way, cluster), machine)


def machine_of(resources: Resources, cluster: Cluster | None, hardware: Hardware | None) -> Facts | None:
    """Where workers would be; device and type of the weights are from then on what they are there.

    Raises:
        UserError: The settings name another device than the hardware is.
    """
    from stic_eval.experiment.machine_facts import Facts
    from stic_eval.training import gang_launch

    if hardware is None:
        return None if cluster is None else cluster.settle(resources)
    device, dtype = resources.config.device, resources.config.dtype
    if device not in ("auto", "cuda"):
        raise UserError(f"--hardware {hardware.name}: is a GPU, and --device {device} is not; leave one out")
    found = Facts(
        "", "cuda", "bfloat16" if dtype == "auto" else dtype, hardware.name, int(hardware.memory),
        gang_launch.gpus_of(resources.config),
    )  # fmt: skip
    resources.engine.computed_on(found.device, found.dtype)
    return found


def workers(experiment: Experiment, resources: Resources, way: Conduct, cluster: Cluster | None) -> int:
    """How many workers there are at once: as many as are asked for and have something to do."""
    room = 1 if cluster is None else cluster.rooms(resources).workers
    return experiment.workers(room if way.jobs is None else way.jobs)


def run(config: RunConfig, options: Sequence[str], way: Conduct, engine: Engine | None = None) -> RunResult:
    """A run, from checked input to its result.

    Args:
        config: Its settings.
        options: What `-o` was given.
        way: How it goes about its work.
        engine: Who answers, where a model is loaded already with these settings.

    Raises:
        UserError: The input is wrong.
        RunError: Something failed; what does not depend on it is done, and in the error's result.
        Interrupted: It was ended from outside.
    """
    with at_work(config, way, engine) as (resources, report), join(way.cluster, config.nodes) as cluster:
        machine = None if cluster is None else cluster.settle(resources)
        arms = planning.arms_of_run(config, resources, not way.resume, options, machine)
        planning.start_over(config, not way.resume)
        experiment = planning.plan(config.name, arms, resources)
        if way.jobs in (None, 1) and cluster is None:
            outcome = work_here(experiment, resources)
        else:
            jobs = workers(experiment, resources, way, cluster)
            outcome, _ = work_by_workers(experiment, resources, report, jobs, cluster)
        failure = first_failure(outcome, config.folder)
        if not any(item.entry.summaries for item in experiment.evaluations):
            if outcome.interrupted:
                raise KeyboardInterrupt
            if failure is not None:
                raise failure
        more = {"command": list(way.command), **driver.of_run(config)}
        table = driver.finish(experiment, outcome, resources, more)
        found = experiment.scores(resources)
        result = RunResult(config.folder.absolute(), found, experiment.skipped, table)
        for label, adapter in _trained(experiment, resources).adapters.items():
            report.line(f"adapter of {label}: {adapter}")
        if outcome.interrupted:
            ended = Interrupted()
            ended.result = result
            raise ended
    if failure is not None:
        failure.result = result
        raise failure
    return result


def train(config: RunConfig, options: Sequence[str], way: Conduct) -> TrainResult:
    """The adapters of a run's methods, without evaluating them.

    Raises:
        UserError: The input is wrong.
        RunError: A training failed.
        Interrupted: It was ended from outside.
    """
    with at_work(config, way) as (resources, _):
        arms = planning.arms_of_run(config, resources, not way.resume, options)
        planning.start_over(config, not way.resume)
        experiment = planning.plan(config.name, arms, resources, evaluate=False)
        outcome = work_here(experiment, resources)
        failure = first_failure(outcome, config.folder)
        if failure is None and not outcome.interrupted:
            more = {"command": list(way.command), **driver.of_run(config)}
            driver.finish(experiment, outcome, resources, more)
        result = _trained(experiment, resources)
        if failure is not None and not result.adapters:
            raise failure
        if outcome.interrupted:
            ended = Interrupted()
            ended.result = result if result.adapters else None
            raise ended
    if failure is not None:
        failure.result = result
        raise failure
    return result


def _trained(experiment: Experiment, resources: Resources) -> TrainResult:
    """The adapters that are finished."""
    several, adapters = len(resources.config.seeds) > 1, dict[str, Path]()
    for subject in experiment.subjects:
        if not subject.stages:
            continue
        stage, key = subject.stages[-1]
        method, seed = subject.variant.method.name, subject.variant.seed
        # Variants that differ by their solver alone have one adapter.
        if resources.stages.done(stage.name, key) is not None:
            adapter = resources.stages.folder(stage.name, key) / "adapter"
            adapters[f"{method}@seed{seed}" if several else method] = adapter
    return TrainResult(resources.config.folder.absolute(), adapters, experiment.skipped)


def work_here(experiment: Experiment, resources: Resources) -> Outcome:
    """Does the tasks in this process; failures are reported at once if there is more to do."""
    failures: list[str] = []
    begun: set[str] = set()

    def see(event: Event) -> None:
        if event.kind == "started":
            begun.add(event.task)
            while failures:
                resources.report.line(failures.pop(0))
        elif event.kind == "failed" and event.task in begun:
            failures.append(f"{experiment.tasks[event.task].what}: failed: {event.value}")

    return driver.carry_out(experiment, driver.executor_of(resources, 1), resources, see)


def work_by_workers(
    experiment: Experiment, resources: Resources, report: Reporter, jobs: int, cluster: Cluster | None
) -> tuple[Outcome, Board]:
    """Does the tasks in worker processes, here or on a cluster, and shows how far they are."""
    work = estimates.seconds(experiment.evaluations, experiment.tasks, resources.engine)
    kind = "cell" if experiment.arms[0].label else "variant"
    board = Board(lines(experiment), work, jobs, kind, {name: t.what for name, t in experiment.tasks.items()})
    of = {task: item.entry for item in experiment.evaluations if item.same is None for task in item.tasks}
    executor = driver.executor_of(resources, jobs, apart=True, cluster=cluster)
    view = View(board, report.quiet)
    report.hand_over()
    with view:

        def see(event: Event) -> None:
            view.see(event)
            if event.kind == "done" and event.task in of:
                for line in board.lines:
                    if event.task in line.tasks and board.is_finished(line):
                        line.note = _average(experiment, of[event.task], len(resources.benchmarks))

        return driver.carry_out(experiment, executor, resources, see, jobs), board


def lines(experiment: Experiment) -> list[BoardLine]:
    """A line for each cell, or each variant of a run, with the tasks that it waits for."""
    found: dict[str, list[str]] = {arm.label: [] for arm in experiment.arms if arm.label}
    for item in experiment.evaluations:
        found.setdefault(item.line, []).extend((item.same or item).tasks)
    shown = [BoardLine(label, closure(tasks, experiment.tasks)) for label, tasks in found.items()]
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


def first_failure(outcome: Outcome, at: Path) -> UserError | RunError | None:
    """The error that ends a run: of what failed first, if anything did."""
    for event in outcome.failed.values():
        said = "" if event.cause is not None else "failed: "
        log = "" if event.cause is UserError else f" (see {at / 'run.log'})"
        failure = (event.cause or RunError)(f"{said}{event.value}{log}")
        failure.__cause__ = event.error
        return failure
    return None
