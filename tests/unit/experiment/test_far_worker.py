"""Workers on other machines: stages and answers come and go by messages; what a cluster is asked to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stic_eval.errors import RunError, UserError
from stic_eval.experiment import cluster, far_worker
from stic_eval.experiment.far_worker import FarStages, FarStore, Part, Receipt, parts
from stic_eval.stage_store import StageStore
from stic_eval.types import Response

KEY = "a" * 64


class Driver:
    """The driver's cache, as its keeper and its executor have it."""

    def __init__(self, folder: Path) -> None:
        self.stages = StageStore(folder)
        self.finished: set[str] = set()
        self.stored: dict[str, Response] = {}
        self.receipts: dict[str, Receipt] = {}
        self.asked = 0

    def get_many(self, kind: str, keys: list[str]) -> Mapping[str, Response]:
        return {key: self.stored[key] for key in keys if key in self.stored}

    def count(self, kind: str) -> int:
        return len(self.stored)

    def has(self, folder: str) -> bool:
        self.asked += 1
        return folder in self.finished or (self.stages.root / folder / "manifest.json").is_file()

    def read(self, folder: str) -> Iterator[Part]:
        return parts(self.stages.root / folder)

    def hear(self, kind: str, value: Any) -> None:
        if kind == "stage":
            folder, part = value
            self.receipts.setdefault(folder, Receipt(self.stages.root / folder)).take(part)


def make(stages: StageStore, size: int = 3) -> Path:
    folder = stages.work_dir("one", KEY)
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "weights").write_bytes(os.urandom(size))
    return stages.finish("one", KEY, {"seconds": 1.5})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stages_are_sent_where_machines_see_no_common_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_worker, "_CHUNK", 4)
    driver = Driver(tmp_path / "driver")
    one, other = (FarStages(tmp_path / name, driver, False, driver.hear) for name in ("one", "other"))
    assert one.done("one", KEY) is None
    made = make(one, 10)
    sent = driver.stages.sound("one", KEY, str)
    assert sent is not None and content(sent) == content(made)
    fetched = other.sound("one", KEY, str)
    assert fetched == tmp_path / "other" / made.name and content(fetched) == content(made)
    asked = driver.asked
    assert other.done("one", KEY) == fetched and driver.asked == asked
    left = [path.name for path in tmp_path.rglob("*.incoming")]
    assert left == []


def test_a_common_folder_that_appears_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver(tmp_path / "stages")
    stages = FarStages(tmp_path / "stages", driver, True, driver.hear)
    made = make(StageStore(tmp_path / "elsewhere"))
    driver.finished.add(made.name)
    looks = []
    listdir = os.listdir

    def late(path: Path) -> list[str]:
        looks.append(path)
        if len(looks) == 2:  # after a look that found nothing
            (tmp_path / "stages").mkdir(exist_ok=True)
            os.rename(made, tmp_path / "stages" / made.name)
        return listdir(path)

    monkeypatch.setattr(far_worker.os, "listdir", late)
    assert stages.done("one", KEY) == tmp_path / "stages" / made.name
    monkeypatch.setattr(far_worker, "LATE", 0.0)
    driver.finished.add(f"other-{KEY[:16]}")
    with pytest.raises(RunError, match="is finished and does not appear in"):
        stages.done("other", KEY)


def test_answers_that_were_sent_are_known_before_the_driver_has_kept_them(tmp_path: Path) -> None:
    driver, sent = Driver(tmp_path), list[Any]()
    store = FarStore(driver, "answers", lambda kind, value: sent.append((kind, value)), tmp_path / "x.sqlite")
    one, two = Response("one", 1, "stop"), Response("two", 1, "stop")
    driver.stored["known"] = one
    store.put_many({"new": two})
    store.put_many({})
    assert sent == [("answers", {"new": two})]
    assert store.get_many(["known", "new", "other"]) == {"known": one, "new": two}
    driver.stored["new"] = two
    assert store.get_many(["new"]) == {"new": two}
    assert len(store) == 2 and not (tmp_path / "x.sqlite").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("slurm", "give local, ray, or ray:ADDRESS"),
        ("rays:1", "give local, ray, or ray:ADDRESS"),
        ("ray:ray://head:10001", r"give the address of the head node \(HOST:6379\)"),
    ],
)
def test_what_is_no_cluster_is_refused(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        cluster.check(name)


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    cluster.check("local", 2)
    with pytest.raises(UserError, match=r"Ray is not installed: pip install 'stic-eval\[ray\]'"):
        cluster.check("ray")


def test_an_adapter_is_trained_on_one_node() -> None:
    with pytest.raises(UserError, match=r"--nodes 2: with --cluster ray an adapter is trained on one node"):
        cluster.check("ray", 2)


@dataclass(frozen=True)
class Task:
    id: str
    needs: tuple[str, ...] = ()
    steps: int = 0
    benchmark: str = ""
    generations: int = 0
    part: tuple[int, int] | None = None


def test_parts_of_what_asks_for_many_answers_come_first() -> None:
    tasks = [
        Task("pairs 1", ("before",), generations=200),
        Task("pairs 2", generations=100),
        Task("train 1", ("pairs 1",), steps=5, generations=200),
        Task("evaluate a/b", benchmark="b", generations=200),
    ]
    found = list(cluster.with_parts(tasks, 4))  # type: ignore[arg-type, type-var]
    assert [task.id for task in found] == [
        "pairs 1 part 1 of 3", "pairs 1 part 2 of 3", "pairs 1 part 3 of 3",
        "pairs 1", "pairs 2", "train 1", "evaluate a/b",
    ]  # fmt: skip
    assert [task.part for task in found[:4]] == [(0, 3), (1, 3), (2, 3), None]
    assert all(task.needs == ("before",) for task in found[:3])
    assert found[3].needs == ("before", *(task.id for task in found[:3]))
    assert list(cluster.with_parts(tasks, 1)) == tasks  # type: ignore[arg-type, comparison-overlap]
