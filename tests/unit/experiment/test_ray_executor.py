"""What the executor asks of Ray: workers of one GPU and of several, what interrupts it, what does not begin.

Ray is played by a few lines that count GPUs; `tests/e2e/test_cluster.py` has the real one.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from stic_eval.errors import RunError, UserError
from stic_eval.experiment.cluster_rooms import Rooms, rooms_of
from stic_eval.experiment.events import Event
from stic_eval.experiment.executors import ray as ray_executor
from stic_eval.experiment.executors.ray import Ray, Room
from stic_eval.settings import RunConfig


@dataclass(frozen=True)
class Task:
    """Takes so many turns, on so many GPUs."""

    id: str
    turns: int
    gpus: int = 1
    needs: tuple[str, ...] = ()
    group: str = ""
    dispensable: bool = False


@dataclass(eq=False)
class Actor:
    cluster: Played
    gpus: float
    node: int | None = None  # it waits for room

    @property
    def ping(self) -> Any:
        return SimpleNamespace(remote=lambda: self)

    @property
    def do(self) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._begin))

    def _begin(self, task: Task) -> Stream:
        assert self.node is not None and self.gpus == task.gpus
        self.cluster.began.append(task.id)
        return Stream(task.turns, task.id in self.cluster.losing)


@dataclass(eq=False)
class Stream:
    left: int
    lost: bool

    def __next__(self) -> bytes:
        if self.lost:
            raise Lost("gone")
        return pickle.dumps(("done", None, None))


class Lost(Exception):
    pass


@dataclass
class Played:
    """A cluster of nodes with so many GPUs each; at every turn of waiting, tasks under way come on by one.

    Attributes:
        has: The nodes' GPUs.
        interrupted: In which turn a scheduler ends the program; 0: in none.
        stillborn: Whether workers end before they answer.
        losing: Tasks whose workers are lost.
    """

    has: Sequence[int]
    interrupted: int = 0
    stillborn: bool = False
    losing: Sequence[str] = ()
    turns: int = 0
    actors: list[Actor] = field(default_factory=list)
    began: list[str] = field(default_factory=list)
    exceptions: ClassVar[Any] = SimpleNamespace(RayError=Lost)

    def remote(self, *, num_gpus: float, **_: Any) -> Any:
        def ask(*_: Any) -> Actor:
            self.actors.append(Actor(self, num_gpus))
            return self.actors[-1]

        return lambda kind: SimpleNamespace(remote=ask)

    def nodes(self) -> Any:
        return [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": float(gpus)}} for gpus in self.has]

    def cluster_resources(self) -> Any:
        raise AssertionError(f"nothing goes on: {self.actors}, after {self.began}")

    def kill(self, actor: Actor, no_restart: bool) -> None:
        self.actors.remove(actor)

    def get(self, what: Any) -> Any:
        if isinstance(what, Actor) and self.stillborn:
            raise Lost(
                "The actor died of an error raised in its creation task, \x1b[36mray::_Actor()\x1b[39m\n"
                "  File \"worker.py\", line 1, in begin\nModuleNotFoundError: No module named 'that'\n"
            )
        return "here" if isinstance(what, Actor) else what

    def wait(self, asked: Sequence[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        for actor in [one for one in self.actors if one.node is None]:
            for node, gpus in enumerate(self.has):
                if gpus - sum(one.gpus for one in self.actors if one.node == node) >= actor.gpus:
                    actor.node = node
                    break
        self.turns += 1
        if self.turns == self.interrupted:
            os.kill(os.getpid(), signal.SIGTERM)  # it would be raised before the next line
        for one in asked:
            if isinstance(one, Stream):
                one.left -= 1
        done = (one for one in asked if (one.left < 1 if isinstance(one, Stream) else one.node is not None))
        return [one for one in [next(done, None)] if one is not None], []


def run(tasks: Sequence[Task], jobs: int, played: Played, **more: Any) -> Iterator[Event]:
    """Has tasks done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", played)  # type: ignore[arg-type]
        patch.setattr(ray_executor, "_PATIENCE", 0.5)
        how = Ray(lambda *_: lambda _: iter(()), None, jobs, lambda task: Room(1, task.gpus), **more)
        yield from how.run(tasks)


def order(tasks: Sequence[Task], jobs: int, *has: int) -> list[str]:
    """In which order tasks are begun on nodes with so many GPUs."""
    played = Played(has)
    events = list(run(tasks, jobs, played))
    assert sorted(e.task for e in events if e.kind == "done") == sorted(task.id for task in tasks)
    assert played.actors == []
    return played.began


def singles(*names: str) -> Iterator[Task]:
    return (Task(name, 3 + number % 2) for number, name in enumerate(names))


def test_several_gpus_are_not_waited_for_in_vain_while_single_ones_go_to_others() -> None:
    tasks = [*singles("a", "b"), Task("together", 3, 2, needs=("a",)), *singles("c", "d", "e", "f")]
    assert order(tasks, 2, 2) == ["a", "b", "together", "c", "d", "e", "f"]


def test_idle_workers_make_room_for_several_and_several_for_single_ones() -> None:
    tasks = [
        *singles("a", "b"), Task("together", 3, 2, needs=("a", "b")),
        Task("c", 1, needs=("together",)), Task("d", 1, needs=("together",)),
    ]  # fmt: skip
    assert order(tasks, 2, 2) == ["a", "b", "together", "c", "d"]
    assert order(tasks, 1, 2) == ["a", "b", "together", "c", "d"]


def test_those_that_fit_on_no_node_any_more_hold_nobody_up() -> None:
    tasks = [Task("one", 9, 2), Task("other", 1, 2), *singles("a", "b")]
    # The second waits for the first; the node that is too small for it is used meanwhile.
    assert order(tasks, 3, 2, 1) == ["one", "a", "b", "other"]
    assert order(tasks, 3, 2, 2)[:2] == ["one", "other"]


def test_what_interrupts_waits_for_ray_and_what_has_come_is_kept() -> None:
    played, seen = Played([2], interrupted=3), list[Event]()  # in which the first task ends
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            seen.extend(run([Task("a", 2), Task("b", 9)], 2, played))
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [(e.kind, e.task) for e in seen] == [("started", "a"), ("started", "b"), ("done", "a")]
    assert played.turns == 3 and played.actors == []


def test_workers_that_never_begin_end_the_run() -> None:
    played = Played([1], stillborn=True)
    with pytest.raises(RunError, match=r"did not begin: ModuleNotFoundError: No module named 'that'$"):
        list(run([Task("a", 1)], 1, played))
    assert played.turns == 3 and played.actors == []


def test_what_can_be_done_without_holds_nobody_up() -> None:
    played, tasks = (
        Played([1], losing=("part",)),
        [Task("part", 1, dispensable=True), Task("whole", 1, needs=("part",))],
    )
    events = list(run(tasks, 1, played))
    assert [e.task for e in events if e.kind == "failed"] == ["part"]
    assert played.began == ["part"] * 3 + ["whole"]
    assert [e.task for e in events if e.kind == "done"] == ["whole"]


def test_cores_go_by_gpus_and_what_no_node_has_is_refused() -> None:
    nodes = [{"CPU": 64.0, "GPU": 8.0}, {"CPU": 20.0, "GPU": 4.0}, {"CPU": 4.0}]
    rooms = Rooms(nodes, 1, 4)
    rooms.check()
    assert rooms.workers == 12
    task, training = SimpleNamespace(trains=False), SimpleNamespace(trains=True)
    assert rooms.of(task, 12) == Room(5, 1)  # type: ignore[arg-type]
    assert rooms.of(training, 12) == Room(20, 4)  # type: ignore[arg-type]
    assert Rooms(nodes, 0, 2).of(training, 6) == Rooms(nodes, 0, 2).of(task, 6) == Room(2, 0)  # type: ignore[arg-type]
    given: dict[str, tuple[int, int]] = {"auto": (1, 4), "cpu": (0, 1), "cuda": (1, 4)}
    for device, wanted in given.items():
        config = RunConfig(device=device, gpus="auto")
        resources: Any = SimpleNamespace(config=config, engine=SimpleNamespace(trains_in=lambda _: True))
        found = rooms_of(resources, nodes)
        assert (found.answering, found.training) == wanted
    with pytest.raises(UserError, match=r"--gpus 9: .* no node of the cluster has more than 8; give that"):
        Rooms(nodes, 1, 9).check()
