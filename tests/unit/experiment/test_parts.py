"""Parts of a stage: what all workers ask ahead, the stage itself finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stic_eval.contracts.method import Data, Stage, StageContext
from stic_eval.experiment import parts, work
from stic_eval.experiment.events import Event
from stic_eval.experiment.executors.agenda import Agenda
from stic_eval.experiment.graph import Task
from stic_eval.image_sources import scan_images
from stic_eval.settings import RunConfig
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Generation, Message, Request
from tests.support import executor_tasks
from tests.support.fake import FakeVLM
from tests.support.scripted import Quiet


def described(context: StageContext) -> None:
    """Asks about each image what the stage before has left to ask."""
    prompt = (context.needs["first"] / "prompt").read_text()
    asked = [Request((Message("user", prompt),), (i,), Generation(4)) for i in context.data.images[:6]]
    texts = [answer.text for _, answer in context.vlm(None).generate(asked)]
    (context.out / "texts").write_text("\n".join(texts))


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_asked_in_parts_is_not_asked_again(
    fails: bool, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tuple(scan_images(photos)[0])
    data = Data(images, (), content_key([image.sha256 for image in images]), "", load_prompts())
    first = Stage("first", 1, lambda context: None, {})
    stage = Stage(
        "texts", 1, described, {"images": 6}, needs=(first,), reads=("images",), generations=6, kind="pairs"
    )
    vlm = FakeVLM(lambda request: request.images[0].sha256[:4])
    stages, report, key = StageStore(tmp_path / "stages"), Quiet(), "a" * 64
    resources: Any = SimpleNamespace(
        fingerprint="base", stages=stages, report=report, stop=(),
        responses=ResponseStore(tmp_path / "responses.sqlite"),
        engine=SimpleNamespace(
            answers=lambda adapter: vlm, likelihoods=None, trainable=None, adapter_dtype=None
        ),
    )  # fmt: skip
    config = RunConfig(model="tiny", methods=("stic",), benchmarks=("textvqa",))
    task = Task(f"texts {key[:16]}", (), "", config, {}, "stic", 0, key)
    monkeypatch.setattr(work, "_planned", lambda task, resources: (stage, data, {id(first): key}))
    if not fails:  # else the stage before is not there
        (stages.work_dir("first", key) / "prompt").write_text("what is it?")
        stages.finish("first", key)
    for number in range(2):
        part = replace(task, id=f"{task.id} part {number}", part=(number, 2))
        assert list(work.perform(part, resources)) == []
    asked = [request.images[0] for request in vlm.asked]
    if fails:
        assert asked == [] and sum("asks nothing more ahead" in line for line in report.lines) == 2
        return
    assert asked == [*images[:6:2], *images[1:6:2]]
    assert [path.name for path in stages.root.iterdir()] == [f"first-{key[:16]}"]
    monkeypatch.setattr(work, "_planned", lambda task, resources: (whole, data, {}))
    prompt = stages.folder("first", key)
    whole = replace(stage, needs=(), run=lambda c: described(replace(c, needs={"first": prompt})))
    assert list(work.perform(task, resources)) == []
    assert len(vlm.asked) == 6
    (folder,) = stages.root.glob("texts-*")
    assert (folder / "texts").read_text().split() == [image.sha256[:4] for image in images[:6]]


@dataclass(frozen=True)
class Whole:
    """A task, as far as it is divided."""

    id: str
    needs: tuple[str, ...] = ()
    steps: int = 0
    benchmark: str = ""
    group: str = ""
    generations: int = 0
    part: tuple[int, int] | None = None


def test_parts_of_what_asks_for_many_answers_come_first() -> None:
    tasks: Any = [
        Whole("pairs 1", ("before",), generations=200),
        Whole("pairs 2", generations=100),
        Whole("train 1", ("pairs 1",), steps=5, generations=200),
        Whole("evaluate a/b", ("train 1",), benchmark="b", group="a", generations=200),
    ]
    found = list(parts.divide(tasks, 4))
    assert [task.id for task in found] == [
        "pairs 1 part 1 of 3", "pairs 1 part 2 of 3", "pairs 1 part 3 of 3",
        "pairs 1", "pairs 2", "train 1",
        "evaluate a/b part 1 of 3", "evaluate a/b part 2 of 3", "evaluate a/b part 3 of 3", "evaluate a/b",
    ]  # fmt: skip
    assert [task.part for task in found[:4]] == [(0, 3), (1, 3), (2, 3), None]
    assert all(task.needs == ("before",) for task in found[:3])
    assert found[3].needs == ("before", *(task.id for task in found[:3]))
    assert [task.group for task in found[6:]] == ["", "", "", "a"]
    assert all(task.needs == ("train 1",) for task in found[6:9])
    assert list(parts.divide(tasks, 1)) == tasks


def test_adapters_are_not_spread_over_workers_that_have_one_each() -> None:
    tasks: Any = [Whole(f"evaluate {n}/b", benchmark="b", group=f"{n}", generations=256) for n in range(3)]
    assert list(parts.divide(tasks, 3)) == tasks
    assert len(list(parts.divide(tasks, 4))) == 3 * 5


def test_what_happens_to_parts_is_seen_as_of_the_whole() -> None:
    tasks: Any = list(parts.divide([Whole("pairs 1", generations=128)], 2))

    def happens() -> Iterator[Event]:
        yield Event("started", "pairs 1 part 1 of 2")
        yield Event("started", "pairs 1 part 2 of 2")
        yield Event("progress", "pairs 1 part 1 of 2", ("asks", 0, 64))
        yield Event("progress", "pairs 1 part 2 of 2", ("asks", 10, 64))
        yield Event("progress", "pairs 1 part 1 of 2", ("asks", 64, 64))
        yield Event("answers", "pairs 1 part 1 of 2", {"k": "answer"})
        yield Event("done", "pairs 1 part 1 of 2")
        yield Event("failed", "pairs 1 part 2 of 2", "its worker was lost 3 times")
        yield Event("started", "pairs 1")
        yield Event("progress", "pairs 1", ("asks", 128, 128))
        yield Event("done", "pairs 1", seconds=1.5)

    log: list[str] = []
    found = list(parts.unite(tasks, happens(), log.append))  # type: ignore[arg-type]
    assert [(event.kind, event.task, event.value) for event in found] == [
        ("started", "pairs 1", None),
        ("progress", "pairs 1", ("asks", 0, 64)),
        ("progress", "pairs 1", ("asks", 10, 128)),
        ("progress", "pairs 1", ("asks", 74, 128)),
        ("answers", "pairs 1", {"k": "answer"}),
        ("progress", "pairs 1", ("asks", 128, 128)),
        ("done", "pairs 1", None),
    ]
    assert log == ["pairs 1 part 2 of 2: its worker was lost 3 times; the whole task asks for its share"]


def test_what_fails_in_a_part_does_not_take_the_whole_along() -> None:
    given: Any = [
        executor_tasks.Task("part", (), "fail", dispensable=True),
        executor_tasks.Task("whole", ("part",), "nothing"),
    ]
    agenda = Agenda(given)
    assert [task.id for task in agenda.ready()] == ["part"]
    agenda.waiting.remove(given[0])
    agenda.see(Event("failed", "part", "no good"))
    assert list(agenda.give_up()) == [] and [task.id for task in agenda.ready()] == ["whole"]
