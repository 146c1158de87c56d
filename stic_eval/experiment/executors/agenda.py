"""What is left of tasks while workers do them, and which one comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from stic_eval.experiment.events import Event, Work


class Hand(Protocol):
    """A worker, as far as tasks are given out by it."""

    @property
    def task(self) -> Work | None:
        """What it does; None: nothing."""
        ...

    @property
    def group(self) -> str:
        """The group of its task, or of its last one."""
        ...


class Agenda:
    """Tasks in the order given, as far as what they need is done.

    Attributes:
        waiting: Those that nobody has begun.
    """

    def __init__(self, tasks: Sequence[Work]) -> None:
        self.waiting = list(tasks)
        self._names = {task.id for task in tasks}
        self._dispensable = {task.id for task in tasks if task.dispensable}
        self._done: set[str] = set()
        self._failed: dict[str, Event] = {}

    def give_up(self) -> Iterator[Event]:
        """Takes out the tasks whose need has failed; each fails with the same reason."""
        for task in [t for t in self.waiting if any(need in self._failed for need in t.needs)]:
            self.waiting.remove(task)
            first = next(self._failed[need] for need in task.needs if need in self._failed)
            self._failed[task.id] = Event("failed", task.id, first.value, cause=first.cause)
            yield self._failed[task.id]

    def ready(self) -> list[Work]:
        """Those that could be begun."""
        return [
            task for task in self.waiting
            if all(need in self._done or need not in self._names for need in task.needs)
        ]  # fmt: skip

    def next(self, hands: Sequence[Hand], suits: Callable[[Work], object] = lambda task: True) -> Work | None:
        """The first one of a group that an idle worker has begun, else of one that no worker is at.

        Args:
            hands: All workers.
            suits: Whether a task is one to be begun now.
        """
        busy = {hand.group for hand in hands if hand.task}
        idle = {hand.group for hand in hands if not hand.task}
        found = [t for t in self.ready() if suits(t) and (not t.group or t.group not in busy)]
        return min(found, key=lambda task: not task.group or task.group not in idle, default=None)

    def see(self, event: Event) -> None:
        """Takes in how a task went."""
        if event.kind == "done" or (event.kind == "failed" and event.task in self._dispensable):
            self._done.add(event.task)
        elif event.kind == "failed":
            self._failed[event.task] = event
