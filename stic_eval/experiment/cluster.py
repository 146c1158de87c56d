"""A run's part in a Ray cluster: joining it, what its nodes are, and who does tasks there."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from stic_eval.errors import RunError, UserError
from stic_eval.experiment.cluster_reader import RayReader, Reader, comes
from stic_eval.experiment.cluster_rooms import rooms_of
from stic_eval.experiment.executors.interrupts import held_back
from stic_eval.experiment.executors.ray import Ray
from stic_eval.experiment.far_worker import LATE, FarPlace, Receipt, appears, begin
from stic_eval.experiment.machine_facts import facts
from stic_eval.store import ResponseStore

if TYPE_CHECKING:
    from stic_eval.experiment.cluster_rooms import Rooms
    from stic_eval.experiment.events import Event
    from stic_eval.experiment.graph import Task
    from stic_eval.experiment.machine_facts import Facts
    from stic_eval.experiment.resources import Resources

LOCAL = "local"
_ANSWER = 90.0  # seconds that a node may take to say what it is
_INSTALL = "pip install 'stic-eval[ray]'"


def check(cluster: str, nodes: int = 1) -> None:
    """Refuses what is no cluster, or one that cannot be joined.

    Args:
        cluster: As `--cluster` has it.
        nodes: How many are to train an adapter together.

    Raises:
        UserError: It is neither `local` nor `ray`, with or without an address, or Ray is not installed; or
            training would need several of its nodes.
    """
    kind, _, address = cluster.partition(":")
    if cluster != LOCAL and kind != "ray":
        raise UserError(f"--cluster {cluster}: give local, ray, or ray:ADDRESS")
    if "://" in address:
        raise UserError(
            f"--cluster {cluster}: give the address of the head node (HOST:6379), on a node of the cluster"
        )
    if kind == "ray" and find_spec("ray") is None:
        raise UserError(f"--cluster {cluster}: Ray is not installed: {_INSTALL}")
    if kind == "ray" and nodes > 1:
        raise UserError(
            f"--nodes {nodes}: with --cluster {cluster} an adapter is trained on one node, by as many of its "
            "GPUs as --gpus says; leave --nodes out, or --cluster, to train by SLURM's srun"
        )


@contextmanager
def join(cluster: str, nodes: int = 1) -> Iterator[Cluster | None]:
    """Takes part in a cluster while the block runs; None: this machine alone.

    `ray` is the cluster that runs here or that RAY_ADDRESS names, else one of this machine that is started
    and ended with the run.

    Args:
        cluster: As `--cluster` has it.
        nodes: How many are to train an adapter together.

    Raises:
        UserError: It cannot be joined, or cannot do that.
    """
    check(cluster, nodes)
    if cluster == LOCAL:
        yield None
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # else 15: beside other work next to nothing
    import ray

    ours = not ray.is_initialized()
    if ours:
        handler = signal.getsignal(signal.SIGTERM)  # of which Ray makes its own
        # Signals are not held back: Ray takes care of them itself while it starts.
        try:
            address = cluster.partition(":")[2] or None
            # Of a cluster of our own: without the dashboard it is there sooner. What Ray has to say of its
            # start is pages; what of it matters is raised.
            ray.init(
                address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
            )
        except SystemExit as error:  # by which it ends at SIGTERM
            raise KeyboardInterrupt from error
        except Exception as error:  # Ray raises many kinds, and plain Exception where a node starts slowly
            line = str(error).strip().partition("\n")[0]
            raise UserError(f"--cluster {cluster}: cannot be joined: {line}") from error
        finally:
            with suppress(ValueError, TypeError):  # not in the main thread; or not Python's own
                signal.signal(signal.SIGTERM, handler)
    try:
        with _notices_in_log():
            yield Cluster(cluster)
    finally:
        if ours:
            with held_back():
                ray.shutdown()


@contextmanager
def _notices_in_log() -> Iterator[None]:
    """Has the first line of what Ray prints about lost workers, which is pages, go into the log."""
    from ray._private import worker  # there is no public switch

    def log(data: Any, ignore_prefix: bool = False) -> None:
        for lines in data.get("lines", ()):
            logging.getLogger("stic_eval.run").info("ray: %s", str(lines).strip().partition("\n")[0])

    printed = getattr(worker, "print_to_stdstream", None)
    if printed is not None:
        worker.print_to_stdstream = log
    try:
        yield
    finally:
        if printed is not None:
            worker.print_to_stdstream = printed


class Cluster:
    """A Ray cluster that this process has joined.

    Args:
        name: As `--cluster` has it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.dtype = ""  # of weights on its workers; empty: nobody has asked, or there are none

    @property
    def nodes(self) -> list[Mapping[str, float]]:
        """What each living node has."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def rooms(self, resources: Resources) -> Rooms:
        """What a run's workers take of the nodes."""
        return rooms_of(resources, self.nodes)

    def settle(self, resources: Resources) -> Facts | None:
        """Has device and type of the weights be what they come to on a worker; None: its engine has neither.

        Raises:
            UserError: No worker answers, or one refuses the settings, or no node has as many GPUs.
        """
        if not resources.engine.trains_in(resources.config):
            return None
        if ":" in resources.config.device:
            raise UserError(
                f"--device {resources.config.device}: a cluster's workers have a GPU each, whichever is "
                "free; give cuda"
            )
        import ray

        rooms = self.rooms(resources)
        rooms.check()
        gpus = min(1, rooms.answering)
        ask = ray.remote(num_cpus=0, num_gpus=gpus, max_retries=2)(facts)
        answer = ask.remote(resources.config, Path.cwd(), version("stic-eval"))
        if not comes(answer, _ANSWER):
            raise UserError(f"--cluster {self.name}: no worker with {gpus} GPUs answers in {_ANSWER:g} s")
        try:
            found: Facts = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, UserError):
                raise UserError(str(cause)) from error
            if isinstance(cause, ImportError):
                raise UserError(
                    f"--cluster {self.name}: a node cannot run this program ({cause}); install the same "
                    "environment on all nodes"
                ) from error
            raise RunError(f"--cluster {self.name}: {type(cause).__name__}: {cause}") from error
        except ray.exceptions.RayError as error:
            raise RunError(f"--cluster {self.name}: {str(error).partition(chr(10))[0]}") from error
        resources.engine.computed_on(found.device, found.dtype)
        self.dtype = found.dtype
        return replace(found, together=rooms.training)

    def executor(self, resources: Resources, jobs: int) -> OnCluster:
        """Who does tasks: so many workers."""
        return OnCluster(self, resources, jobs)


class OnCluster:
    """Does tasks on a cluster; what workers send of stages and replies is kept here."""

    def __init__(self, cluster: Cluster, resources: Resources, jobs: int) -> None:
        self._cluster, self._resources, self._jobs = cluster, resources, jobs

    def run(self, tasks: Sequence[Task]) -> Generator[Event, None, None]:
        """See `Executor`."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        resources, rooms = self._resources, self._cluster.rooms(self._resources)
        stages, answers = resources.cache / "stages", resources.responses.path  # opened before it is read
        replies = None if resources.judge is None else ResponseStore(resources.judge.path)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(Reader)
        reader = RayReader(actor.options(scheduling_strategy=here).remote(resources.cache, answers))
        mark = _mark(stages)
        plugins = {name: value for name, value in os.environ.items() if name == "STIC_EVAL_PLUGINS"}
        place = FarPlace(
            socket.gethostname(), resources.cache.absolute(), Path.cwd(), mark.name, reader, self._jobs,
            self._cluster.dtype, rooms.training, environment=plugins,
        )  # fmt: skip
        kinds = {task.id: task for task in tasks}
        workers = Ray(begin, place, self._jobs, partial(rooms.of, jobs=self._jobs))
        coming: dict[str, Receipt] = {}
        try:
            for event in workers.run(tasks):
                if event.kind == "stage":
                    folder, piece = event.value
                    receipt = coming.setdefault(folder, Receipt(resources.stages, folder))
                    if receipt.take(piece):
                        del coming[folder]
                    continue
                if event.kind == "replies":
                    assert replies is not None
                    replies.put_many(event.value, replace=True)
                    continue
                task = kinds[event.task]
                if event.kind == "done" and not task.benchmark and task.part is None:
                    folder = folder_of(event.task)
                    reader.finish(folder)
                    if not appears(stages / folder / "manifest.json", LATE):
                        resources.report.line(f"stage {folder} is finished and does not appear in {stages}")
                yield event
        finally:
            for receipt in coming.values():
                receipt.drop()
            mark.unlink(missing_ok=True)
            with suppress(Exception), held_back():
                ray.kill(reader.actor, no_restart=True)


def folder_of(task: str) -> str:
    """The folder of the stage that a task is about, by its id."""
    return task.replace(" ", "-")


def _mark(stages: Path) -> Path:
    """A file by which workers see whether they have the same stages before them."""
    stages.mkdir(parents=True, exist_ok=True)
    mark = stages / f".{socket.gethostname()}.{uuid4().hex}"
    mark.touch()
    return mark
