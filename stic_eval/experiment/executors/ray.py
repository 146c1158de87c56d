"""Tasks in actors of a Ray cluster: processes on any of its nodes, with the cores and GPUs that they ask for.

A node that is lost costs the tasks that were under way there, which are begun anew elsewhere. What a task
itself fails with is its failure, as it is with the other executors, and is never tried again.
"""

from __future__ import annotations

import pickle
import socket
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

from stic_eval.experiment.events import Cause, Event, Work
from stic_eval.experiment.executors.agenda import Agenda
from stic_eval.experiment.executors.worker_side import Begin, WorkerSide

AGAIN = 2  # times that a task is begun anew when its worker is lost
_LISTENED, _PATIENCE = 1.0, 30.0  # seconds; after the latter a line says what is waited for


class _Actor:
    """A worker in a process of its own, on whatever node Ray has put it."""

    def __init__(self, number: int, begin: Begin, common: Any) -> None:
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._side = WorkerSide(number, begin, common, self._tell)

    def _tell(self, kind: str, value: Any, cause: Cause | None = None) -> None:
        self._queue.put(pickle.dumps((kind, value, cause)))

    def ping(self) -> str:
        """Where it is: its machine, and Ray's name for the node. Tasks can be given to it."""
        import ray

        return f"{socket.gethostname()}, node {ray.get_runtime_context().get_node_id()[:8]}"

    def do(self, task: Work) -> Iterator[bytes]:
        """Does a task in a thread; yields what is sent meanwhile, by whatever thread."""

        def act() -> None:
            try:
                self._side.do(task)
            except BaseException as error:  # SystemExit, say: the actor would wait for ever
                self._tell("failed", f"{type(error).__name__}: {error}")
            finally:
                self._queue.put(None)

        thread = Thread(target=act, name=task.id, daemon=True)
        thread.start()
        while (sent := self._queue.get()) is not None:
            yield sent
        thread.join()


@dataclass
class _Worker:
    number: int
    actor: Any
    waits: Any  # on what Ray tells of it next: the answer to the ping, or the stream of a task
    machine: str = ""  # empty: it has not answered the ping yet
    task: Work | None = None
    group: str = ""
    started: float = 0.0


@dataclass(frozen=True)
class Ray:
    """Does tasks in so many actors of the cluster that this process has joined.

    Attributes:
        begin: A module's function, called in each worker when it begins.
        common: Passed to it; picklable, as tasks are.
        jobs: Workers at a time, as far as the cluster has room for them.
        cpus: Cores of each.
        gpus: GPUs of each.
    """

    begin: Begin
    common: Any
    jobs: int
    cpus: float = 1.0
    gpus: float = 0.0

    def run(self, tasks: Sequence[Work]) -> Generator[Event, None, None]:
        """See `Executor`."""
        agenda = Agenda(tasks)
        workers: list[_Worker] = []
        lost: dict[str, int] = {}
        begun: dict[str, float] = {}  # when it was begun for the first time
        heard, said = time.monotonic(), False
        try:
            while agenda.waiting or any(worker.task for worker in workers):
                yield from agenda.give_up()
                self._hire(agenda, workers)
                while chosen := agenda.next(workers):
                    idle = [worker for worker in workers if worker.machine and worker.task is None]
                    if not idle:
                        break
                    worker = min(idle, key=lambda worker: worker.group != chosen.group)
                    agenda.waiting.remove(chosen)
                    worker.task, worker.group, worker.started = chosen, chosen.group, time.monotonic()
                    worker.waits = worker.actor.do.options(num_returns="streaming").remote(chosen)
                    if chosen.id not in begun:
                        begun[chosen.id] = worker.started
                        yield Event("started", chosen.id)
                for told in self._listen(workers):
                    event = told
                    if told.kind == "lost":
                        lost[told.task] = lost.get(told.task, 0) + 1
                        event = _after_loss(told, lost[told.task])
                        if event.kind == "line":
                            agenda.waiting.insert(0, next(t for t in tasks if t.id == told.task))
                    agenda.see(event)
                    yield event
                if any(worker.task for worker in workers) or not agenda.waiting:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _PATIENCE and not said:
                    said = True
                    yield Event("line", agenda.waiting[0].id, self._waiting_for())
        finally:
            for worker in workers:
                _end(worker)

    def _hire(self, agenda: Agenda, workers: list[_Worker]) -> None:
        """Asks for workers as far as there are tasks for them; they are given none before they answer."""
        import ray

        free = sum(worker.task is None for worker in workers)
        groups = {task.group or task.id for task in agenda.ready()} - {w.group for w in workers if w.task}
        for _ in range(min(self.jobs - len(workers), len(groups) - free)):
            number = next(n for n in range(self.jobs) if n not in {worker.number for worker in workers})
            kind = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0)(_Actor)
            actor: Any = kind.remote(number, self.begin, self.common)
            workers.append(_Worker(number, actor, actor.ping.remote()))

    def _listen(self, workers: list[_Worker]) -> Iterator[Event]:
        """What workers tell next; one that is lost is taken out."""
        import ray

        of: dict[Any, _Worker] = {worker.waits: worker for worker in workers if worker.waits is not None}
        if not of:
            time.sleep(_LISTENED)
            return
        ready, _ = ray.wait(list(of), num_returns=1, timeout=_LISTENED)
        for waits in ready:
            worker = of[waits]
            seconds = time.monotonic() - worker.started
            try:
                if worker.task is None:
                    worker.machine, worker.waits = ray.get(waits), None
                    continue
                sent: bytes = ray.get(next(worker.waits))
            except StopIteration:  # it has not said how the task went
                worker.task, worker.waits = None, None
                continue
            except ray.exceptions.RayError as error:
                workers.remove(worker)
                _end(worker)
                if worker.task is not None:
                    yield Event("lost", worker.task.id, f"{worker.machine}: {_first_line(error)}", seconds)
                continue
            kind, value, cause = pickle.loads(sent)
            task = worker.task
            if kind in ("done", "failed"):
                worker.task, worker.waits = None, None
            yield Event(kind, task.id, value, seconds, cause)

    def _waiting_for(self) -> str:
        import ray

        there = ray.cluster_resources()
        has = f"the cluster has {there.get('CPU', 0):g} cores and {there.get('GPU', 0):g} GPUs in all"
        return f"waits for a worker with {self.cpus:g} cores and {self.gpus:g} GPUs; {has}"


def _after_loss(event: Event, times: int) -> Event:
    """What becomes of a task whose worker is lost: it is begun anew, or has failed."""
    if times <= AGAIN:
        return Event("line", event.task, f"{event.task}: its worker is lost ({event.value}); begun anew")
    return Event(
        "failed", event.task, f"its worker was lost {times} times, last {event.value}", event.seconds
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _end(worker: _Worker) -> None:
    """Ends a worker wherever it is; one that was only cut off must not go on either."""
    ray = sys.modules["ray"]
    with suppress(Exception):
        ray.kill(worker.actor, no_restart=True)
