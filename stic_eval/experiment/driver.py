"""The driver of an experiment: has tasks done, and alone writes the run's folder and the response store."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from stic_eval.errors import UserError
from stic_eval.experiment import folder, grading, graph, inputs, variants
from stic_eval.experiment.executors.local import Local
from stic_eval.experiment.executors.processes import Processes
from stic_eval.experiment.scores import scores
from stic_eval.experiment.untrained import discard_untrained
from stic_eval.experiment.work import perform
from stic_eval.experiment.worker import Place, begin
from stic_eval.report import runs, table_formats
from stic_eval.report.table_layouts import lay_out
from stic_eval.store import atomic_write, read_object

if TYPE_CHECKING:
    from stic_eval.ablations.grid import Grid
    from stic_eval.config import RunConfig
    from stic_eval.contracts.engine import Ask
    from stic_eval.experiment.cluster import Cluster
    from stic_eval.experiment.events import Event, Executor
    from stic_eval.experiment.graph import Arm, Evaluation, Subject, Task
    from stic_eval.experiment.machine_facts import Facts
    from stic_eval.experiment.resources import Resources
    from stic_eval.report.tables import Table
    from stic_eval.types import Summary


@dataclass(frozen=True)
class Experiment:
    """An experiment as it stands.

    Attributes:
        name: Of the run, or the ablation.
        arms: Whatever is evaluated; the first one's inputs know what was left out.
        subjects: Who is evaluated, or trained.
        evaluations: What comes of it, as far as it is there; none where adapters are all that is wanted.
        tasks: What is left to do, by id.
        axes: Of a grid: axis -> its values in their order, the default first.
        without_default: Axes whose first value is not the default.
    """

    name: str
    arms: Sequence[Arm]
    subjects: Sequence[Subject]
    evaluations: Sequence[Evaluation]
    tasks: Mapping[str, Task]
    axes: Mapping[str, list[Any]] = field(default_factory=dict)
    without_default: Sequence[str] = ()

    @property
    def skipped(self) -> int:
        """How many input files were left out."""
        return len(self.arms[0].inputs.skipped)

    @property
    def asks(self) -> tuple[set[Ask], bool]:
        """What is left to ask of the engine beside answers, and whether adapters answer that are trained."""
        keys = {task.key for task in self.tasks.values() if task.key}
        todo = {key: stage for subject in self.subjects for stage, key in subject.stages if key in keys}
        answering = any(item.subject.variant.adapter for item in self.evaluations if item.missing)
        return {ask for stage in todo.values() for ask in stage.asks}, bool(todo) or answering

    def workers(self, jobs: int) -> int:
        """How many of a number of workers can be at work at once.

        Tasks of one group come one after the other, and so do those that wait for each other: the bound is
        the number of such sequences that all tasks are parted into.
        """
        needs = {task.group or task.id: task.needs for task in self.tasks.values()}
        followed = set[str]()
        for wanted in needs.values():
            before = (need for need in wanted if need in needs and need not in followed)
            followed.update([*before][:1])
        return max(1, min(jobs, len(needs) - len(followed)))

    def scores(self, resources: Resources) -> runs.Scores:
        """All results so far."""
        found = scores(self.name, self.evaluations, resources)
        found.axes, found.without_default = dict(self.axes), list(self.without_default)
        return found


# ---------------------------------------------------------------- before anything is done


def arms_of_run(
    config: RunConfig, resources: Resources, fresh: bool = False, options: Sequence[str] = (),
    machine: Facts | None = None,
) -> list[Arm]:  # fmt: skip
    """The arm of a run, whose input has been looked at; nothing is computed or written.

    Args:
        config: The run.
        resources: What it is planned with.
        fresh: It starts over.
        options: What `-o` was given.
        machine: Where stages are trained; None: here.

    Raises:
        UserError: Device, rows, inputs or options are wrong, or the folder holds another run's results.
    """
    resources.engine.check()
    inputs.check_adapters(config, resources.report)
    inputs.check_pairs(config)
    inputs.check_rows(config)
    inputs.check_tiles(config)
    inputs.check_gang(config, machine)
    if not fresh and runs.of_another(config.folder, config):
        raise UserError(
            f"--output {config.folder}: holds the results of a run with other settings; give another "
            "folder, or --fresh to start over in this one"
        )
    grading.check_key(resources.judge, config, list(resources.benchmarks.values()), resources.report)
    arm = graph.arm_of(config, resources)
    variants.check_options("-o", options, arm.variants)
    inputs.report_skipped(arm.inputs.skipped, resources.report)
    if not resources.engine.trains_in(config):
        variants.check_server_names(config, arm.variants)
    return [arm]


def arms_of_grid(grid: Grid, resources: Resources, machine: Facts | None = None) -> list[Arm]:
    """The arms of a grid, whose input has been looked at; nothing is computed or written.

    Args:
        grid: The cells.
        resources: What they are planned with.
        machine: Where stages are trained; None: here.

    Raises:
        UserError: Device, rows, inputs or options are wrong, or a server's adapter would answer two cells.
    """
    resources.engine.check()
    for config in grid.configs:
        inputs.check_rows(config)
        inputs.check_tiles(config)
        inputs.check_gang(config, machine)
    grading.check_key(resources.judge, grid.base, list(resources.benchmarks.values()), resources.report)
    arms = graph.arms_of(grid, resources)
    found = [variant for arm in arms for variant in arm.variants]
    variants.check_options("-o", grid.options, found)
    variants.check_options("--vary", (option for cell in grid.cells for option in cell.options), found)
    inputs.report_skipped(arms[0].inputs.skipped, resources.report)
    if not resources.engine.trains_in(grid.base):
        named = [(arm.label, arm.config, arm.variants) for arm in arms[1:]]
        variants.check_apart(named, arms[0].inputs.data)
    return arms


def start_over(config: RunConfig, fresh: bool) -> None:
    """Writes the settings; before, if a run is to start over, makes room for it.

    Not before its input has been looked at: what is wrong must cost nothing of what an earlier run has left.
    """
    if fresh:
        folder.clear(config)
    atomic_write(config.folder / "config.yaml", config.to_yaml())


def plan(
    name: str,
    arms: Sequence[Arm],
    resources: Resources,
    *,
    fresh: bool = False,
    look: bool = False,
    evaluate: bool = True,
) -> Experiment:
    """What an experiment amounts to, and what of it is left.

    Args:
        name: The experiment's.
        arms: Whatever is evaluated.
        resources: What it is planned with.
        fresh: Nothing counts as done.
        look: Nothing is to be done; cached training that has taught nothing stays.
        evaluate: Whether anything is evaluated, or adapters are all that is wanted.
    """
    config, subjects = resources.config, graph.subjects(arms, resources)
    if not look:
        discard_untrained(subjects, resources)
    if not evaluate:
        return Experiment(name, arms, subjects, (), graph.adapters(subjects, resources, fresh))
    before = folder.nothing(config) if fresh else folder.before(config, resources.report)
    evaluations = graph.evaluations(subjects, resources, before)
    return Experiment(name, arms, subjects, evaluations, graph.tasks(evaluations, resources, fresh))


# ---------------------------------------------------------------- the work


@dataclass
class Outcome:
    """How the work went.

    Attributes:
        started: When, in seconds since 1970.
        seconds: What was computed -> how long it took.
        failed: Task -> its failure, in the order in which they came.
        interrupted: Whether it was ended from outside.
    """

    started: float
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, Event] = field(default_factory=dict)
    interrupted: bool = False


def executor_of(
    resources: Resources, jobs: int, apart: bool = False, cluster: Cluster | None = None
) -> Executor[Task]:
    """Who does tasks: this process, or so many others.

    Args:
        resources: What this process works with.
        jobs: Workers.
        apart: In another process even if it is one.
        cluster: Where they are; None: on this machine.
    """
    if cluster is not None:
        return cluster.executor(resources, jobs)
    if jobs == 1 and not apart:
        return Local(partial(perform, resources=resources))
    _ = resources.responses  # before workers read it
    return Processes(begin, Place(resources.cache, jobs, _devices(resources, jobs)), jobs)


def _devices(resources: Resources, jobs: int) -> tuple[str, ...]:
    """The GPUs that workers spread over: those that are visible, unless one is named.

    Where several train together, each worker has as many.

    Raises:
        UserError: There are not enough for all workers.
    """
    from stic_eval.models.devices import gpus
    from stic_eval.training.gang_launch import gpus_of

    if resources.config.device not in ("auto", "cuda") or not resources.engine.trains_in(resources.config):
        return ()
    each, there = gpus_of(resources.config), [*map(str, range(gpus()))] if jobs > 1 else []
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        there = [part for part in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if part.strip()]
    if each > 1 and there and len(there) < jobs * each:
        raise UserError(f"--jobs {jobs} --gpus {each}: takes {jobs * each} GPUs, and there are {len(there)}")
    return tuple(",".join(there[at : at + each]) for at in range(0, len(there) - each + 1, each))


def carry_out(
    experiment: Experiment, executor: Executor[Task], resources: Resources, see: Callable[[Event], None]
) -> Outcome:
    """Does what is left of an experiment, and keeps every result as it comes.

    Args:
        experiment: The experiment.
        executor: Who does its tasks.
        resources: Where answers and stages lie.
        see: Is shown every event, when it has been acted on.
    """
    outcome, notices = Outcome(time.time()), set[str]()
    of = {task: item for item in experiment.evaluations if item.same is None for task in item.tasks}
    _copy_same(experiment.evaluations)
    try:
        _prepare(experiment, resources)
        with closing(executor.run(list(experiment.tasks.values()))) as events:
            for event in events:
                if event.kind == "answers":
                    resources.responses.put_many(event.value)
                elif event.kind == "log" and _is_new(event.value, notices):
                    logging.getLogger(event.value.name).handle(event.value)
                elif event.kind == "result":
                    records, summary = event.value
                    name = experiment.tasks[event.task].benchmark
                    _keep(name, records, summary, of[event.task], resources)
                    _copy_same(experiment.evaluations)
                    runs.save(experiment.scores(resources), resources.config.folder)
                elif event.kind == "failed":
                    outcome.failed[event.task] = event
                elif event.kind == "done":
                    outcome.seconds[event.task] = event.seconds
                see(event)
    except KeyboardInterrupt:
        outcome.interrupted = True
    return outcome


def _is_new(record: logging.LogRecord, notices: set[str]) -> bool:
    """Whether a record is to be logged: what a library remarks, each worker comes upon."""
    if record.levelno < logging.WARNING or record.name == "stic_eval.run":
        return True
    before = len(notices)
    notices.add(f"{record.name}: {record.getMessage()}")
    return len(notices) > before


def _prepare(experiment: Experiment, resources: Resources) -> None:
    """Says what is wrong with rows, or with names at a server, before hours of work."""
    for name in dict.fromkeys(task.benchmark for task in experiment.tasks.values() if task.benchmark):
        resources.samples(name)
    for line in resources.hub_lines:  # which workers come upon as well, and do not say
        resources.report.line(line)
    engine = resources.engine
    if experiment.tasks:
        engine.prepare(*experiment.asks)
    if experiment.tasks and experiment.evaluations:
        if not engine.trains_in(resources.config):
            engine.named(graph.elsewhere(item.subject, resources) for item in experiment.evaluations)
        resources.report.log(f"answers by {engine.described()}")
        if engine.profile is not None:
            resources.report.log(f"asked as: {engine.profile.title}")


def _keep(name: str, records: bytes, summary: Summary, item: Evaluation, resources: Resources) -> None:
    """Writes the records of a benchmark, then takes its summary in."""
    entry = item.entry
    path = runs.records_path(resources.config.folder, entry, name)
    atomic_write(path, records)
    entry.summaries[name], entry.keys[name] = summary, item.keys[name][0]
    entry.sha256[name] = hashlib.sha256(records).hexdigest()
    there = folder.list_stages(item.subject.stages, resources.stages)
    entry.stages[:] = folder.complete(there, entry.stages)


def _copy_same(evaluations: Sequence[Evaluation]) -> None:
    """Gives evaluations that come to the same as another that one's results."""
    for item in evaluations:
        if item.same is not None:
            item.entry.keys.update(item.same.entry.keys)
            item.entry.summaries.update(item.same.entry.summaries)
            item.entry.sha256.update(item.same.entry.sha256)
            item.entry.stages[:] = item.same.entry.stages


# ---------------------------------------------------------------- when it is done


def finish(
    experiment: Experiment, outcome: Outcome, resources: Resources, more: Mapping[str, Any]
) -> Table | None:
    """Writes what the folder keeps of an experiment: scores, curves, manifest, tables.

    One that only read what another had computed leaves that one's manifest: it tells where the numbers come
    from.

    Args:
        experiment: The experiment.
        outcome: How it went.
        resources: Its cache.
        more: For the manifest.

    Returns:
        The table; None where nothing was evaluated.
    """
    at = resources.config.folder
    folder.list_skipped(at, experiment.arms[0].inputs.skipped)
    table = None
    if any(item.entry.summaries for item in experiment.evaluations):
        found = experiment.scores(resources)
        folder.keep_curves((stage for e in found.entries for stage in e.stages), resources.stages, at)
        runs.save(found, at)
        table = lay_out([found])
        table_formats.write(table, at)
    if (outcome.seconds and experiment.evaluations) or not read_object(at / "manifest.json"):
        folder.manifest(
            resources, experiment.name, outcome.started, outcome.seconds, experiment.skipped, more
        )
    return table


def of_run(config: RunConfig) -> dict[str, Any]:
    """What a run's manifest says of its settings."""
    return {"key": config.key, **config.answering, **folder.describe_inputs(config)}
