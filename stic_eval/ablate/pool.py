"""Tasks that wait for each other, in worker processes: one that fails takes only its dependents along.

Workers are processes of their own even for one at a time: a model that runs out of memory, or a
library that ends the process, costs the task and not the grid.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """A piece of work.

    Attributes:
        id: Unique.
        needs: Ids of tasks that have to be done before.
        payload: What a worker is given; picklable.
    """

    id: str
    needs: tuple[str, ...]
    payload: Any


@dataclass(frozen=True)
class Event:
    """Something that happened to a task.

    Attributes:
        kind: `started`, `progress` (`value` is (what, done, total or None)), `result` (a part of its
            output), `done`, or `failed` (`value` is the reason).
        task: Its id.
        value: See `kind`.
        seconds: Since it was started.
    """

    kind: str
    task: str
    value: Any = None
    seconds: float = 0.0


class Send(Protocol):
    """What a worker tells while it works on a task."""

    def __call__(self, kind: str, value: Any) -> None: ...


# A worker: told its number and what all tasks have in common, it gives what handles a payload.
Setup = Callable[[int, Any], Callable[[Any, Send], None]]


@dataclass
class _Worker:
    number: int
    process: SpawnProcess
    pipe: Connection
    task: Task | None = None
    started: float = 0.0


def run(tasks: Sequence[Task], setup: Setup, common: Any, jobs: int) -> Iterator[Event]:
    """Runs tasks as soon as what they need is done, in the order given; yields what happens.

    Leaving the iteration, by an exception or by closing it, ends the workers.

    Args:
        tasks: All of them; a need that is not among them counts as done.
        setup: A module's function, called in each worker when it begins.
        common: Passed to it.
        jobs: Workers at a time.

    Yields:
        For every task `started`, any number of `progress` and `result`, then `done` or `failed`; for one
        whose need failed, `failed` alone.
    """
    waiting = list(tasks)
    names = {task.id for task in tasks}
    done: set[str] = set()
    failed: dict[str, str] = {}
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.task for worker in workers):
            for task in [t for t in waiting if any(need in failed for need in t.needs)]:
                waiting.remove(task)
                failed[task.id] = next(failed[need] for need in task.needs if need in failed)
                yield Event("failed", task.id, failed[task.id])
            ready = [t for t in waiting if all(n in done or n not in names for n in t.needs)]
            for task in ready:
                worker = _free(workers, setup, common, jobs)
                if worker is None:
                    break
                waiting.remove(task)
                worker.task, worker.started = task, time.monotonic()
                yield Event("started", task.id)
                with suppress(OSError):  # one that died between two tasks is noticed below
                    worker.pipe.send(task)
            busy = [worker for worker in workers if worker.task]
            for event in _listen(busy, workers):
                if event.kind == "done":
                    done.add(event.task)
                elif event.kind == "failed":
                    failed[event.task] = str(event.value)
                yield event
    finally:
        _end(workers)


def _free(workers: list[_Worker], setup: Setup, common: Any, jobs: int) -> _Worker | None:
    """A worker without a task, started if there may be one more; None if all are busy."""
    for worker in workers:
        if worker.task is None:
            return worker
    if len(workers) >= jobs:
        return None
    context = get_context("spawn")
    mine, theirs = context.Pipe()
    number = next(n for n in range(jobs) if n not in {worker.number for worker in workers})
    with _uninterrupted():
        process = context.Process(target=_work, args=(theirs, number, setup, common), daemon=True)
        process.start()
    theirs.close()
    workers.append(_Worker(number, process, mine))
    return workers[-1]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Makes processes that are started meanwhile deaf to Ctrl-C, which a terminal sends to them as well.

    Here it is not ignored, which would lose it, but heard afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else it is started with the first process, and unblocks signals
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _listen(busy: Sequence[_Worker], workers: list[_Worker]) -> Iterator[Event]:
    """What busy workers tell next; one that has died is taken out, and its task has failed."""
    by_pipe = {worker.pipe: worker for worker in busy}
    for pipe in connection.wait(list(by_pipe), timeout=1.0):
        worker = by_pipe[pipe]  # type: ignore[index]
        assert worker.task is not None
        seconds = time.monotonic() - worker.started
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            workers.remove(worker)
            code = worker.process.exitcode
            reason = f"killed by signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            yield Event("failed", worker.task.id, f"its process ended ({reason})", seconds)
            continue
        task = worker.task
        if kind in ("done", "failed"):
            worker.task = None
        yield Event(kind, task.id, value, seconds)


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()  # an idle one leaves by itself
        if worker.task is not None:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()


def _work(pipe: Connection, number: int, setup: Setup, common: Any) -> None:
    """A worker's life: tasks until there are none, or until nobody listens any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Leaving as Python does gives back what the libraries have taken of the system.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    handle: Callable[[Any, Send], None] | None = None
    try:
        while True:
            task: Task = pipe.recv()
            try:
                handle = handle or setup(number, common)
                handle(task.payload, lambda kind, value: pipe.send((kind, value)))
                pipe.send(("done", None))
            except (BrokenPipeError, ConnectionResetError):
                return
            except Exception as error:
                logging.getLogger("stic_eval.run").exception("%s: failed", task.id)
                pipe.send(("failed", _reason(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _reason(error: Exception) -> str:
    from stic_eval import registry
    from stic_eval.errors import RunError, UserError

    expected = isinstance(error, (RunError, UserError))
    return (str(error).strip().splitlines() or [""])[0] if expected else registry.told(error)


def devices(number: int, environment: Mapping[str, str]) -> str | None:
    """The device that a worker is to see, where CUDA_VISIBLE_DEVICES names several: they take turns."""
    named = [part for part in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return named[number % len(named)] if len(named) > 1 else None


def share(jobs: int) -> int:
    """Threads for each of so many workers, so that together they have one for each core."""
    return max(1, (os.cpu_count() or 1) // jobs)
