"""A worker process: it makes its own resources, and sends the driver whatever is to be kept or shown."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from logging.handlers import QueueHandler
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from stic_eval import registry
from stic_eval.experiment.resources import Resources
from stic_eval.experiment.work import perform
from stic_eval.hub_access import go_offline
from stic_eval.settings import RunConfig
from stic_eval.store import ResponseStore

if TYPE_CHECKING:
    from stic_eval.experiment.events import Send
    from stic_eval.experiment.graph import Task
    from stic_eval.types import Response


@dataclass(frozen=True)
class Place:
    """What the workers of an experiment are told when they begin.

    Attributes:
        cache: Where stages lie, and the driver keeps answers.
        jobs: How many they are.
        devices: In turn what each sees of the GPUs, as CUDA_VISIBLE_DEVICES has it; none or one: all.
    """

    cache: Path
    jobs: int
    devices: tuple[str, ...] = ()


def begin(number: int, place: Place, send: Send) -> Callable[[Task], Iterator[tuple[str, Any]]]:
    """Prepares a worker before it imports what computes; gives what does a task."""
    if len(place.devices) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.devices[number % len(place.devices)]
    if number:  # what libraries remark on a terminal, the first worker's do
        for library in ("HF_HUB", "DATASETS", "TRANSFORMERS"):
            os.environ.setdefault(f"{library}_VERBOSITY", "error")
    if place.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // place.jobs)))
    send_log(send)
    store = partial(SendingStore, send=send)
    return do_with(lambda config: Resources(config, SendingReport(send), place.cache, store), place.jobs)


def send_log(send: Send) -> None:
    """Has what is logged in this process sent, and warnings with it."""
    # Instead of what a script has set up, which workers have imported.
    logging.getLogger().handlers[:] = [_Sending(send)]
    logging.getLogger("stic_eval.run").setLevel(logging.INFO)
    logging.captureWarnings(True)


def do_with(
    resources: Callable[[RunConfig], Resources], jobs: int, settled: Mapping[str, Any] | None = None
) -> Callable[[Task], Iterator[tuple[str, Any]]]:
    """Gives what does a task.

    Args:
        resources: Makes what tasks are done with, of the settings of the first.
        jobs: How many workers there are.
        settled: Settings that are decided for all workers.
    """
    ours: list[Resources] = []
    known: set[str] = set()

    def work(task: Task) -> Iterator[tuple[str, Any]]:
        config = _share(task.config, jobs).model_copy(update=settled)
        go_offline(config.offline)
        for path in [path for path in config.plugins if path not in known]:
            registry.register(path, "a worker")
            known.add(path)
        if not ours:  # all arms have engine, rows and judge in common
            ours.append(resources(config))
            atexit.register(ours[0].close)  # a worker ends when there is nothing more for it to do
        return perform(replace(task, config=config), ours[0])

    return work


def _share(config: RunConfig, jobs: int) -> RunConfig:
    """A worker's settings: bounds on what servers are asked are for all workers together.

    But for those that a worker starts for itself.
    """
    cap, flight = config.judge.max_requests, config.server.concurrency
    judge = config.judge.model_copy(update={"max_requests": None if cap is None else cap // jobs})
    shared = bool(config.server.base_url)
    server = config.server.model_copy(update={"concurrency": max(1, flight // jobs) if shared else flight})
    return config.model_copy(update={"judge": judge, "server": server})


class SendingStore(ResponseStore):
    """Answers that are read here, and sent to the driver to be kept."""

    def __init__(self, path: Path, send: Send) -> None:
        super().__init__(path)
        self._send = send
        self._sent: dict[str, Response] = {}  # which the driver may not have written yet

    def get_many(self, keys: Iterable[str]) -> dict[str, Response]:
        """The stored responses among `keys`, and those that were sent from here."""
        keys = list(keys)
        found = super().get_many(keys)
        for key in self._sent.keys() & found.keys():
            del self._sent[key]
        return {**{key: self._sent[key] for key in keys if key in self._sent}, **found}

    def put_many(self, responses: Mapping[str, Response], *, replace: bool = False) -> None:
        """Sends responses."""
        if responses:
            self._sent.update(responses)
            self._send("answers", dict(responses))


class _Sending(QueueHandler):
    """Sends records of the log."""

    def __init__(self, send: Send) -> None:
        super().__init__(SimpleQueue())  # in which none is put
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        """Sends one."""
        self._send("log", record)


class SendingReport:
    """A `Report` that sends progress and lines, and writes into the log, which is sent as well."""

    def __init__(self, send: Send) -> None:
        self._send, self._logger = send, logging.getLogger("stic_eval.run")

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[SentStep]:
        """Shows a piece of work while the block runs."""
        step = SentStep(self._send, name, total)
        step.update(0, total)
        yield step

    def log(self, line: str) -> None:
        """A line for the log."""
        self._logger.info(" ".join(line.split("\n")))

    def line(self, line: str) -> None:
        """A line for the log and for people."""
        self.log(line)
        self._send("line", line)


class SentStep:
    """A piece of work whose progress is sent, at most a few times a second."""

    def __init__(self, send: Send, name: str, total: int | None) -> None:
        self._send, self._name, self._total, self._said = send, name, total, 0.0

    def update(self, done: int, total: int | None = None) -> None:
        """Sets the number of items done, and their total if it has become known."""
        self._total = total if total is not None else self._total
        if done == 0 or done == self._total or time.monotonic() - self._said > 0.25:
            self._said = time.monotonic()
            self._send("progress", (self._name, done, self._total))
