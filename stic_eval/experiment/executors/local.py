"""Tasks in this process, one after the other."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stic_eval.experiment.events import Event, Work, reason


@dataclass(frozen=True)
class Local:
    """Does tasks here, in the order given, in which needs come first.

    Attributes:
        work: Does a task; yields the kinds and values of what comes of it.
    """

    work: Callable[[Any], Iterator[tuple[str, Any]]]

    def run(self, tasks: Sequence[Work]) -> Generator[Event, None, None]:
        """See `Executor`."""
        failed: dict[str, Event] = {}
        for task in tasks:
            if cause := next((failed[need] for need in task.needs if need in failed), None):
                failed[task.id] = replace(cause, task=task.id, seconds=0.0)
                yield failed[task.id]
                continue
            start = time.monotonic()
            yield Event("started", task.id)
            try:
                for kind, value in self.work(task):
                    yield Event(kind, task.id, value, time.monotonic() - start)
            except Exception as error:  # whatever a model, a data set or a plug-in raises
                logging.getLogger("stic_eval.run").exception("%s: failed", task.id)
                why, expected = reason(error)
                origin = error if expected is None else error.__cause__
                for one in (error, origin):  # whose variables may hold much of a model's memory
                    traceback.clear_frames(None if one is None else one.__traceback__)
                seconds = time.monotonic() - start
                failed[task.id] = Event("failed", task.id, why, seconds, expected, origin)
                yield failed[task.id]
            else:
                yield Event("done", task.id, seconds=time.monotonic() - start)
