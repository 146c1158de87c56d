"""A worker's side of its executor: it begins with its first task, and sends what comes of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from stic_eval.experiment.events import Send, Tell, Work, reason

# A worker's beginning: told its number, what all have in common, and how to send, it gives what does a task,
# and yields the kinds and values of what comes of it.
Begin = Callable[[int, Any, Send], Callable[[Any], Iterator[tuple[str, Any]]]]


class WorkerSide:
    """What a worker does with tasks.

    Args:
        number: The worker's.
        begin: Called before the first task.
        common: Passed to it.
        tell: Sends kind, value and cause to the executor, in the order of the calls.
    """

    def __init__(self, number: int, begin: Begin, common: Any, tell: Tell) -> None:
        self._beginning, self._tell = (number, begin, common), tell
        self._work: Callable[[Any], Iterator[tuple[str, Any]]] | None = None

    def do(self, task: Work) -> None:
        """Does a task; `done` or `failed` is the last that it sends of it."""
        try:
            if self._work is None:
                number, begin, common = self._beginning
                self._work = begin(number, common, self._tell)
            for kind, value in self._work(task):
                self._tell(kind, value)
            self._tell("done", None)
        except Exception as error:
            logging.getLogger("stic_eval.run").exception("%s: failed", task.id)
            self._tell("failed", *reason(error))
