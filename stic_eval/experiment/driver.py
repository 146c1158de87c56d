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
from stic_eval.experiment import cache_claims, folder, graph, parts
from stic_eval.experiment.executors.local import Local
from stic_eval.experiment.executors.processes import Processes
from stic_eval.experiment.score_reports import report_scores
from stic_eval.experiment.work import perform
from stic_eval.experiment.worker import Place, begin
from stic_eval.report import runs, table_formats
from stic_eval.report.table_layouts import lay_out
from stic_eval.store import atomic_write, read_object

if TYPE_CHECKING:
    from stic_eval.experiment.cluster import Cluster
    from stic_eval.experiment.events import Event, Executor
    from stic_eval.experiment.graph import Evaluation, Task
    from stic_eval.experiment.planning import Experiment
    from stic_eval.experiment.resources import Resources
    from stic_eval.report.tables import Table
    from stic_eval.settings import RunConfig
    from stic_eval.types import Summary


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
        raise UserError(f"--jobs {jobs} --gpus {each}: needs {jobs * each} GPUs, and there are {len(there)}")
    return tuple(",".join(there[at : at + each]) for at in range(0, len(there) - each + 1, each))


def carry_out(
    experiment: Experiment,
    executor: Executor[Task],
    resources: Resources,
    see: Callable[[Event], None],
    workers: int = 1,
) -> Outcome:
    """Does what is left of an experiment, and keeps every result as it comes.

    Args:
        experiment: The experiment.
        executor: Who does its tasks.
        resources: Where answers and stages lie.
        see: Is shown every event, when it has been acted on.
        workers: As many as the executor has.
    """
    outcome, notices = Outcome(time.time()), set[str]()
    of = {task: item for item in experiment.evaluations if item.same is None for task in item.tasks}
    _copy_same(experiment.evaluations)
    cache_claims.write(experiment, resources)
    try:
        _prepare(experiment, resources)
        divided = list(parts.divide(experiment.tasks.values(), workers))
        with closing(parts.unite(divided, executor.run(divided), resources.report.log)) as events:
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
        report_scores(resources.config, found)
    if (outcome.seconds and experiment.evaluations) or not read_object(at / "manifest.json"):
        folder.manifest(
            resources, experiment.name, outcome.started, outcome.seconds, experiment.skipped, more
        )
    return table


def of_run(config: RunConfig) -> dict[str, Any]:
    """What a run's manifest says of its settings."""
    return {"key": config.key, **config.answering, **folder.describe_inputs(config)}
