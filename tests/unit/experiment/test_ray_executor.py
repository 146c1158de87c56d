"""Tasks on a Ray cluster whose nodes do what a script says; the real one is in e2e/test_cluster.py."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from stic_eval.experiment.events import Event
from stic_eval.experiment.executors.ray import Ray
from tests.support.executor_tasks import Task, setup


class RayError(Exception):
    """As of Ray."""


class ActorDiedError(RayError):
    """As of Ray."""


class ScriptedRay:
    """What the executor asks of Ray.

    Args:
        ping: Given the number of an actor, the first 1, says where it is, or raises.
        do: Given that number and a task, yields the kinds and values that the actor sends.
    """

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, ping: Callable[[int], str], do: Callable[[int, Task], Iterator[tuple[str, Any]]]):
        self._ping, self._do = ping, do
        self.actors: list[int] = []
        self.killed: list[int] = []

    def remote(self, **more: Any) -> Any:
        return lambda kind: SimpleNamespace(remote=self._actor)

    def _actor(self, *given: Any) -> Any:
        number = len(self.actors) + 1
        self.actors.append(number)

        def do(task: Task) -> Iterator[Any]:
            for kind, value in self._do(number, task):
                yield partial(pickle.dumps, (kind, value, None))

        return SimpleNamespace(
            number=number,
            ping=SimpleNamespace(remote=lambda: lambda: self._ping(number)),
            do=SimpleNamespace(options=lambda **more: SimpleNamespace(remote=do)),
        )

    def wait(self, refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return refs[:1], refs[1:]

    def get(self, ref: Any) -> Any:
        return ref()

    def kill(self, actor: Any, no_restart: bool) -> None:
        self.killed.append(actor.number)


def done(number: int, task: Task) -> Iterator[tuple[str, Any]]:
    yield "done", None


def run(patch: pytest.MonkeyPatch, ray: ScriptedRay, tasks: list[Task], jobs: int) -> list[Event]:
    patch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    return list(Ray(setup, None, jobs).run(tasks))


def said(events: list[Event]) -> list[tuple[str, str, Any]]:
    return [(event.kind, event.task, event.value) for event in events]


TASKS = [Task("a", (), None), Task("b", ("a",), None)]


def no_such_module(number: int) -> str:
    raise ActorDiedError(
        "The actor died because of an error raised in its creation task, ray::_Actor.__init__()\n"
        "RuntimeError: The actor with name _Actor failed to import on the worker.\n\n"
        "ModuleNotFoundError: No module named 'stic_eval'\n"
    )


def test_where_no_worker_can_begin_all_tasks_fail_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ScriptedRay(no_such_module, done)
    why = "ModuleNotFoundError: No module named 'stic_eval'"
    assert said(run(monkeypatch, ray, TASKS, 2)) == [
        *5 * [("line", "a", f"a worker could not begin: {why}")],
        ("failed", "a", f"no worker could begin: {why}"),
        ("failed", "b", f"no worker could begin: {why}"),
    ]
    assert ray.killed == ray.actors == [1, 2, 3, 4, 5, 6], "each worker was asked for three times"


def test_one_node_on_which_none_can_begin_costs_its_workers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = ScriptedRay(lambda number: "good" if number == 2 else no_such_module(number), done)
    tasks = [Task(name, (), None) for name in "abcdefgh"]
    found = run(monkeypatch, ray, tasks, 2)
    assert [event.task for event in found if event.kind == "done"] == list("abcdefgh")
    assert len(ray.actors) <= 4


def test_a_task_of_which_nothing_more_is_heard_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def do(number: int, task: Task) -> Iterator[tuple[str, Any]]:
        if number > 1:
            yield "done", None

    ray = ScriptedRay(lambda number: f"node {number}", do)
    why = "its worker is lost (node 1: it has not said how the task went); begun anew"
    assert said(run(monkeypatch, ray, TASKS, 1)) == [
        ("started", "a", None), ("line", "a", f"a: {why}"), ("done", "a", None),
        ("started", "b", None), ("done", "b", None),
    ]  # fmt: skip
    assert ray.killed == [1, 2]


def test_what_comes_after_a_task_does_not_fail_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def do(number: int, task: Task) -> Iterator[tuple[str, Any]]:
        yield ("failed", "no good") if task.id == "a" else ("done", None)

    tasks = [Task("b", (), None, after=("a", "cached")), Task("a", (), None)]
    assert said(run(monkeypatch, ScriptedRay(lambda number: "node", do), tasks, 1)) == [
        ("started", "a", None), ("failed", "a", "no good"), ("started", "b", None), ("done", "b", None),
    ]  # fmt: skip
