"""Tasks in worker processes.

Workers are processes of their own even for one at a time: a model that runs out of memory, or a
library that ends the process, costs the task and not the grid.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, current_process, get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from stic_eval.errors import UserError
from stic_eval.experiment.events import Cause, Event, Work
from stic_eval.experiment.executors.agenda import Agenda
from stic_eval.experiment.executors.worker_side import Begin, WorkerSide
from stic_eval.parent_death import end_with_parent

_GUARD = 'put them under `if __name__ == "__main__":`'


@dataclass
class _Worker:
    number: int
    process: SpawnProcess
    pipe: Connection
    begun: bool = False  # whether it has come as far as waiting for tasks
    task: Work | None = None
    group: str = ""  # of the task, or of the last one
    started: float = 0.0


@dataclass(frozen=True)
class Processes:
    """Does tasks in so many processes, in the order given as far as what they need is done.

    Attributes:
        begin: A module's function, called in each worker when it begins.
        common: Passed to it; picklable, as tasks are.
        jobs: Workers at a time.
    """

    begin: Begin
    common: Any
    jobs: int

    def run(self, tasks: Sequence[Work]) -> Generator[Event, None, None]:
        """See `Executor`.

        Raises:
            UserError: Workers cannot begin, for they come upon the calls of the script that they import.
        """
        agenda = Agenda(tasks)
        workers: list[_Worker] = []
        try:
            while agenda.waiting or any(worker.task for worker in workers):
                yield from agenda.give_up()
                while chosen := agenda.next(workers):
                    worker = self._free_worker(workers, chosen.group)
                    if worker is None:
                        break
                    agenda.waiting.remove(chosen)
                    worker.task, worker.group, worker.started = chosen, chosen.group, time.monotonic()
                    yield Event("started", chosen.id)
                    with suppress(OSError):  # one that has died meanwhile is noticed below
                        worker.pipe.send(chosen)
                busy = [worker for worker in workers if worker.task]
                for event in _listen(busy, workers):
                    agenda.see(event)
                    yield event
        finally:
            _end(workers)

    def _free_worker(self, workers: list[_Worker], group: str) -> _Worker | None:
        """An idle worker, started if there may be another; None if all are busy."""
        workers[:] = [worker for worker in workers if worker.task or worker.process.is_alive()]
        idle = [worker for worker in workers if worker.task is None]
        if idle:
            return min(idle, key=lambda worker: worker.group != group)
        if len(workers) >= self.jobs:
            return None
        context = get_context("spawn")
        mine, theirs = context.Pipe()
        number = next(n for n in range(self.jobs) if n not in {worker.number for worker in workers})
        with _block_interrupts():
            args = (theirs, number, self.begin, self.common)
            process = context.Process(target=_work, args=args, daemon=True)
            process.start()
        theirs.close()
        workers.append(_Worker(number, process, mine))
        return workers[-1]


@contextmanager
def _block_interrupts() -> Iterator[None]:
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
    heard = connection.wait([worker.pipe for worker in busy], timeout=1.0)
    for worker in busy:
        # Its pipe stays open if a process that it has forked lives on.
        dead = worker.pipe not in heard and not worker.process.is_alive() and not worker.pipe.poll()
        if not dead and worker.pipe not in heard:
            continue
        assert worker.task is not None
        seconds = time.monotonic() - worker.started
        try:
            if dead:
                raise EOFError
            kind, value, cause = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            workers.remove(worker)
            code = worker.process.exitcode
            if code is not None and code < 0:
                why = f"killed by signal {-code}"
            else:
                why = f"exit code {code}"
                if not worker.begun:
                    _check_script()
            when = "" if worker.begun else " before it began"
            yield Event("failed", worker.task.id, f"its process ended{when} ({why})", seconds)
            continue
        if kind == "begun":
            worker.begun = True
            continue
        task = worker.task
        if kind in ("done", "failed"):
            worker.task = None
        yield Event(kind, task.id, value, seconds, cause)


def refuse_while_importing() -> None:
    """Keeps a worker that imports its parent's script from doing what the script does.

    Raises:
        UserError: This process is such a worker, whoever has started it.
    """
    # Where multiprocessing itself looks before it starts a process; there is no public name for it.
    if getattr(current_process(), "_inheriting", False):
        raise UserError(f"this process is a worker that only imports the script with these calls; {_GUARD}")


def _check_script() -> None:
    """Looks whether a worker has ended because of the script that it imports.

    Raises:
        UserError: It has calls that nothing keeps from being made there as well.
    """
    path = Path(getattr(sys.modules["__main__"], "__file__", None) or "")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # typed, or from somewhere else: nothing that a worker could import
        return
    if path.name != "__main__.py" and "__name__" not in text:  # of a package, it is not imported
        raise UserError(f"{path.name}: worker processes import it and come upon its calls; {_GUARD}")


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.pipe.close()  # an idle one leaves by itself
        if worker.task is not None:
            worker.process.terminate()
    for worker in workers:
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()


def _end_with_driver() -> None:
    """Ends this worker at once if its driver is killed, whatever it computes: all it writes stands that."""
    driver = parent_process()
    assert driver is not None and driver.pid is not None
    if end_with_parent(driver.pid):
        return

    def watch() -> None:
        driver.join()
        os._exit(1)

    Thread(target=watch, name="end with the driver", daemon=True).start()


def _work(pipe: Connection, number: int, begin: Begin, common: Any) -> None:
    """A worker's life: tasks until there are none, or until the driver no longer listens or lives."""
    _end_with_driver()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Leaving as Python does gives back what the libraries have taken of the system.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    lock = Lock()  # threads of a model, or of a client of servers, write into the log

    def send(kind: str, value: Any, cause: Cause | None = None) -> None:
        whole = ForkingPickler.dumps((kind, value, cause))  # before the lock: it may log, which sends
        with lock:
            try:
                pipe.send_bytes(whole)
            except OSError:
                sys.exit(0)  # nobody listens any more

    side = WorkerSide(number, begin, common, send)
    send("begun", None)
    try:
        while True:
            try:
                task: Work = pipe.recv()
            except (EOFError, OSError):
                return
            side.do(task)
    finally:  # it leaves already: being asked again would only break off what libraries do at exit
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
