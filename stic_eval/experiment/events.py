"""What those who do tasks have in common: they are given tasks, and say what happens."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from stic_eval.errors import RunError, UserError, storage_failure


class Work(Protocol):
    """A task, as far as an executor has to know it."""

    @property
    def id(self) -> str:
        """Unique."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Ids of tasks that have to be done before; what is not among the tasks counts as done."""
        ...

    @property
    def group(self) -> str:
        """Tasks of one group are done one after the other, by one worker if it lives; empty: none."""
        ...

    @property
    def dispensable(self) -> bool:
        """Whether tasks that need it go on without it where it has failed."""
        ...


Cause = type[UserError] | type[RunError]
W_contra = TypeVar("W_contra", bound=Work, contravariant=True)


@dataclass(frozen=True)
class Event:
    """Something that happened to a task.

    Attributes:
        kind: `started`, `progress` (`value` is (what, done, total or None)), `line` (for people), `log` (a
            record), `answers` (key -> response, to be stored), `result` (its output), `done`, or
            `failed` (`value` is the reason in one line).
        task: Its id.
        value: See `kind`.
        seconds: Since it was started.
        cause: Of a failure that says what is wrong: `UserError` or `RunError`; None: nobody expected it.
        error: Of a failure in this process: the exception that led to it, as far as there is one.
    """

    kind: str
    task: str
    value: Any = None
    seconds: float = 0.0
    cause: Cause | None = None
    error: BaseException | None = None


class Send(Protocol):
    """What a worker tells while it works on a task."""

    def __call__(self, kind: str, value: Any) -> None: ...


class Tell(Send, Protocol):
    """What a worker tells its executor, which has to know why a task has failed."""

    def __call__(self, kind: str, value: Any, cause: Cause | None = None) -> None: ...


class Executor(Protocol[W_contra]):
    """Does tasks, each when what it needs is done. One that fails takes its dependents along, no other."""

    def run(self, tasks: Sequence[W_contra]) -> Generator[Event, None, None]:
        """Yields what happens; leaving the iteration ends the work.

        For every task `started`, any number of others, then `done` or `failed`; for one whose need failed,
        `failed` alone.
        """
        ...


def reason(error: Exception) -> tuple[str, Cause | None]:
    """What a task failed with, in one line, and its cause as an event has it."""
    from stic_eval import registry

    expected: Cause
    for expected in (UserError, RunError):
        if isinstance(error, expected):
            return " ".join(str(error).split()), expected
    if full := storage_failure(error):
        return full, RunError
    return registry.explain(error), None
