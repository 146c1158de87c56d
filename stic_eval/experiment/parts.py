"""Parts of a task that asks for many answers: workers ask for a share each, and the task itself finds them.

A part keeps nothing but answers, so that what comes of the task is made in one place, of all of its inputs,
and what fails in a part costs the time that it could have saved, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from stic_eval.experiment.events import Event

if TYPE_CHECKING:
    from stic_eval.experiment.graph import Task

LEAST = 64  # answers of a part


def count(task: Task, workers: int) -> int:
    """How many parts a task is divided into for so many workers; 0: it stays whole."""
    found = 0 if task.steps else min(workers, task.generations // LEAST)
    return found if found > 1 else 0


def divide(tasks: Iterable[Task], workers: int) -> Iterator[Task]:
    """Tasks, and before one that asks for many answers, tasks that ask for a share of them each.

    Evaluations are divided where fewer adapters are evaluated than there are workers. Else each worker has
    one to itself, and need not load those of the others.
    """
    tasks = list(tasks)
    spare = len({task.group for task in tasks if task.benchmark}) < workers
    for task in tasks:
        shares = count(task, workers) if spare or not task.benchmark else 0
        parts = [
            replace(task, id=f"{task.id} part {number + 1} of {shares}", part=(number, shares), group="")
            for number in range(shares)
        ]
        yield from parts
        yield replace(task, needs=(*task.needs, *(part.id for part in parts))) if parts else task


def unite(
    tasks: Sequence[Task], events: Generator[Event, None, None], log: Callable[[str], None]
) -> Generator[Event, None, None]:
    """What happens to divided tasks, as if each were whole.

    A task has started with its first part. Its progress is that of its parts together, and a part that fails
    is a line of the log.

    Args:
        tasks: Those that are done, parts among them.
        events: Of whoever does them.
        log: Takes lines for the log.
    """
    whole = {need: task.id for task in tasks for need in task.needs}  # each part has one that needs it
    parts = {task.id: whole[task.id] for task in tasks if task.part is not None}
    started, progress = set[str](), dict[tuple[str, str], dict[str, tuple[int, int]]]()
    with closing(events):
        for event in events:
            name = parts.get(event.task, event.task)
            if event.kind == "started":
                if name not in started:
                    started.add(name)
                    yield replace(event, task=name)
            elif event.task not in parts or event.kind in ("answers", "line", "log"):
                yield replace(event, task=name)
            elif event.kind == "progress":
                what, done, total = event.value
                shares = progress.setdefault((name, what), {})
                shares[event.task] = (done, total or done)
                sums = (sum(share[at] for share in shares.values()) for at in (0, 1))
                yield replace(event, task=name, value=(what, *sums))
            elif event.kind == "failed":
                log(f"{event.task}: {event.value}; the whole task asks for its share")
