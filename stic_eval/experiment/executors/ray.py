"""Tasks in actors of a Ray cluster: processes on any of its nodes, with the cores and GPUs that they ask for.

A node that is lost costs the tasks that were under way there, which are begun anew elsewhere. What a task
itself fails with is its failure, as it is with the other executors, and is never tried again.
"""

from __future__ import annotations

import os
import pickle
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from stic_eval.errors import RunError, headline
from stic_eval.experiment.events import Cause, Event, Work
from stic_eval.experiment.executors.agenda import Agenda
from stic_eval.experiment.executors.interrupts import held_back
from stic_eval.experiment.executors.worker_side import Begin, WorkerSide

AGAIN = 2  # times that a task is begun anew when its worker is lost
_LISTENED, _PATIENCE = 1.0, 30.0  # seconds; after the latter a line says what is waited for


class Room(NamedTuple):
    """What a worker takes of a node. All of it is on one: Ray gives no worker of two.

    Attributes:
        cpus: Cores.
        gpus: GPUs; one that has several may do tasks that use them together.
    """

    cpus: float = 1.0
    gpus: float = 0.0


class _Actor:
    """A worker in a process of its own, on whatever node Ray has put it."""

    def __init__(self, number: int, begin: Begin, common: Any, room: Room) -> None:
        # Ray gives libraries as many threads as the worker has cores, unless the node says how many.
        # Processes that it starts for its GPUs share them.
        if room.gpus > 1 and os.environ.get("OMP_NUM_THREADS") == str(int(room.cpus)):
            os.environ["OMP_NUM_THREADS"] = str(max(1, int(room.cpus // room.gpus)))
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
    room: Room
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
        room: What the worker of a task takes. Tasks that differ in it have workers of their own.
    """

    begin: Begin
    common: Any
    jobs: int
    room: Callable[[Any], Room] = lambda task: Room()

    def run(self, tasks: Sequence[Work]) -> Generator[Event, None, None]:
        """See `Executor`.

        Raises:
            RunError: Workers end before they begin, again and again.
        """
        agenda = Agenda(tasks)
        workers: list[_Worker] = []
        lost = Counter[str]()
        begun = set[str]()
        heard, said, stillborn = time.monotonic(), False, 0
        try:
            while agenda.waiting or any(worker.task for worker in workers):
                yield from agenda.give_up()
                with held_back():
                    given = self._give(agenda, workers)
                for task in given:
                    if task.id not in begun:
                        begun.add(task.id)
                        yield Event("started", task.id)
                come: list[Event] = []
                try:
                    with held_back():
                        come += self._listen(workers)
                finally:  # whatever interrupts, what has come is kept
                    for told in come:
                        stillborn = stillborn + 1 if told.kind == "stillborn" else 0
                        if stillborn:
                            continue
                        again = told.kind == "lost" and lost[told.task] < AGAIN
                        lost[told.task] += told.kind == "lost"
                        event = _after_loss(told, lost[told.task]) if told.kind == "lost" else told
                        if again:
                            agenda.waiting.insert(0, next(t for t in tasks if t.id == told.task))
                        agenda.see(event)
                        yield event
                if stillborn > AGAIN:
                    raise RunError(f"{stillborn} workers one after the other did not begin: {come[-1].value}")
                if any(worker.task for worker in workers) or not agenda.waiting:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _PATIENCE and not said:
                    said, next_one = True, agenda.waiting[0]
                    yield Event("line", next_one.id, _waiting_for(workers, self.room(next_one)))
        finally:
            with held_back():
                for worker in workers:
                    _end(worker)

    def _give(self, agenda: Agenda, workers: list[_Worker]) -> list[Work]:
        """Gives tasks to those who have none, and asks for more workers; gives the tasks."""
        first, given = self._hire(agenda, workers), list[Work]()
        while chosen := agenda.next(workers, partial(self._idle, workers, first)):
            idle = self._idle(workers, first, chosen)
            worker = min(idle, key=lambda worker: worker.group != chosen.group)
            agenda.waiting.remove(chosen)
            worker.task, worker.group, worker.started = chosen, chosen.group, time.monotonic()
            worker.waits = worker.actor.do.options(num_returns="streaming").remote(chosen)
            given.append(chosen)
        return given

    def _idle(self, workers: Sequence[_Worker], first: Room | None, task: Work) -> list[_Worker]:
        """Those who could begin a task now; none where workers of another room come first."""
        room = self.room(task)
        if first not in (None, room):
            return []
        return [one for one in workers if one.machine and one.task is None and one.room == room]

    def _hire(self, agenda: Agenda, workers: list[_Worker]) -> Room | None:
        """Asks for workers as far as there are tasks for them; they are given none before they answer.

        Returns:
            Where a worker of several GPUs is waited for, its room: nothing else is begun until it has it, for
            GPUs that become free one by one would go to others for ever.
        """
        wanted: dict[Room, set[str]] = {}
        busy = {worker.group for worker in workers if worker.task}
        for task in agenda.ready():
            if (group := task.group or task.id) not in busy:
                wanted.setdefault(self.room(task), set()).add(group)
        for room in sorted(wanted, key=lambda room: -room.gpus):
            several = room.gpus > 1
            same = [worker for worker in workers if worker.room == room]
            missing = len(wanted[room]) - sum(worker.task is None for worker in same)
            missing = min(missing, _count(room) - len(same)) if several else missing
            waits = several and (missing > 0 or not all(worker.machine for worker in same))
            if missing > 0 or waits:  # what others have without using it may be what is missing
                for worker in _spare(workers, wanted, room):
                    workers.remove(worker)
                    _end(worker)
                self._start(room, min(self.jobs - len(workers), missing), workers)
            if waits:
                return room
        return None

    def _start(self, room: Room, count: int, workers: list[_Worker]) -> None:
        import ray

        kind = ray.remote(num_cpus=room.cpus, num_gpus=room.gpus, max_restarts=0)(_Actor)
        for _ in range(count):
            number = next(n for n in range(self.jobs) if n not in {worker.number for worker in workers})
            actor: Any = kind.remote(number, self.begin, self.common, room)
            workers.append(_Worker(number, room, actor, actor.ping.remote()))

    def _listen(self, workers: list[_Worker]) -> Iterator[Event]:
        """What workers tell next; one that is lost, or `stillborn` without a task, is taken out."""
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
            except (StopIteration, ray.exceptions.RayError) as error:
                workers.remove(worker)
                _end(worker)
                why = _headline(error) if str(error) else "it has not said how the task went"
                if worker.task is None:
                    yield Event("stillborn", "", why)
                else:
                    yield Event("lost", worker.task.id, f"{worker.machine}: {why}", seconds)
                continue
            kind, value, cause = pickle.loads(sent)
            task = worker.task
            if kind in ("done", "failed"):
                worker.task, worker.waits = None, None
            yield Event(kind, task.id, value, seconds, cause)


def _spare(workers: Sequence[_Worker], wanted: Mapping[Room, set[str]], room: Room) -> list[_Worker]:
    """Idle workers of other rooms; of those that come before this one, as many as have nothing to do."""
    found: list[_Worker] = []
    for other in {worker.room for worker in workers} - {room}:
        idle = [worker for worker in workers if worker.room == other and worker.task is None]
        found += idle[len(wanted.get(other, ())) if other.gpus > room.gpus else 0 :]
    return found


def _count(room: Room) -> int:
    """How many workers of a room the cluster's nodes could have at once, had they nothing else to do."""
    import ray

    there = [node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return max(1, int(sum(gpus // room.gpus for gpus in there)))


def _waiting_for(workers: Sequence[_Worker], first: Room) -> str:
    import ray

    room = next((worker.room for worker in workers if not worker.machine), first)
    there = ray.cluster_resources()
    has = f"the cluster has {there.get('CPU', 0):g} cores and {there.get('GPU', 0):g} GPUs in all"
    return f"waits for a worker with {room.cpus:g} cores and {room.gpus:g} GPUs; {has}"


def _headline(error: Exception) -> str:
    """What an error of Ray comes to: where a worker's own is told below it, with a traceback, that one."""
    named = re.findall(
        r"^[\w.]+(?:Error|Exception|Exit)\b: .*$", re.sub(r"\x1b\[[\d;]*m", "", str(error)), re.M
    )
    return named[-1] if named else headline(error)


def _after_loss(event: Event, times: int) -> Event:
    """What becomes of a task whose worker is lost: it is begun anew, or has failed."""
    if times <= AGAIN:
        return Event(
            "line", event.task, f"{event.task}: its worker was lost ({event.value}); it starts again"
        )
    return Event(
        "failed", event.task, f"its worker was lost {times} times, last {event.value}", event.seconds
    )


def _end(worker: _Worker) -> None:
    """Ends a worker wherever it is; one that was only cut off must not go on either."""
    ray = sys.modules["ray"]
    with suppress(Exception):
        ray.kill(worker.actor, no_restart=True)
