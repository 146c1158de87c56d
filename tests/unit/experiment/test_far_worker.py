"""Workers on other machines: stages and answers come and go by messages; what a cluster is asked to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from stic_eval.errors import RunError, UserError
from stic_eval.experiment import cluster, far_worker
from stic_eval.experiment.cluster_reader import Reader
from stic_eval.experiment.far_worker import FarPlace, FarStages, FarStore, Piece, Receipt, pieces
from stic_eval.stage_store import StageStore
from stic_eval.types import Response
from stic_eval.waiting_threads import VARIABLES

KEY = "a" * 64


class Driver:
    """The driver's cache, as its reader and its executor have it."""

    def __init__(self, folder: Path) -> None:
        self.stages = StageStore(folder)
        self.finished: set[str] = set()
        self.stored: dict[str, Response] = {}
        self.receipts: dict[str, Receipt] = {}

    def get_many(self, kind: str, keys: list[str]) -> Mapping[str, Response]:
        return {key: self.stored[key] for key in keys if key in self.stored}

    def count(self, kind: str) -> int:
        return len(self.stored)

    def has(self, folder: str) -> bool:
        return folder in self.finished or (self.stages.root / folder / "manifest.json").is_file()

    def manifest(self, folder: str) -> bytes | None:
        return Reader(self.stages.root.parent, Path("none")).manifest(folder)

    def read(self, folder: str) -> Iterator[Piece]:
        return pieces(self.stages.root / folder)

    def hear(self, kind: str, value: Any) -> None:
        if kind == "stage":
            folder, piece = value
            receipt = self.receipts.setdefault(folder, Receipt(self.stages, folder))
            if receipt.take(piece):
                del self.receipts[folder]


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
    driver = Driver(tmp_path / "driver" / "stages")
    one, other = (FarStages(tmp_path / name, driver, False, driver.hear) for name in ("one", "other"))
    assert one.done("one", KEY) is None
    made = make(one, 10)
    sent = driver.stages.sound("one", KEY, str)
    assert sent is not None and content(sent) == content(made)
    fetched = other.sound("one", KEY, str)
    assert fetched == tmp_path / "other" / made.name and content(fetched) == content(made)
    assert other.done("one", KEY) == fetched
    left = [path.name for path in tmp_path.rglob("*.tmp")]
    assert left == []


def test_a_damaged_stage_of_the_drivers_gives_way_to_the_one_that_is_sent(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "driver" / "stages")
    made = make(driver.stages)
    (made / "adapter" / "weights").write_bytes(b"BAD")
    stages = FarStages(tmp_path / "one", driver, False, driver.hear)
    assert stages.sound("one", KEY, str) is None, "it is made anew"
    new = make(stages)
    assert stages.sound("one", KEY, str) == new
    assert driver.stages.sound("one", KEY, str) == made and content(made) == content(new)
    assert [path.name for path in driver.stages.root.iterdir()] == [made.name]


def test_what_an_earlier_run_has_left_on_a_machine_counts_if_the_driver_has_the_same(tmp_path: Path) -> None:
    old, driver = Driver(tmp_path / "old" / "stages"), Driver(tmp_path / "driver" / "stages")
    left = make(FarStages(tmp_path / "one", old, False, old.hear))
    stages = FarStages(tmp_path / "one", driver, False, driver.hear)
    assert stages.done("one", KEY) is None, "the driver has started over"
    theirs = make(driver.stages)
    assert stages.sound("one", KEY, str) == left and content(left) == content(theirs)
    written = (left / "manifest.json").stat().st_mtime_ns
    assert stages.sound("one", KEY, str) == left
    assert (left / "manifest.json").stat().st_mtime_ns == written, "sent once"


def test_a_worker_keeps_what_it_needs_where_nobody_else_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_worker.tempfile, "gettempdir", lambda: str(tmp_path))
    reader = Driver(tmp_path)
    one, two = (FarPlace("head", Path(cache), Path(), "", reader, 1) for cache in ("/a", "/b"))
    assert far_worker.own_folder(one) == far_worker.own_folder(one) != far_worker.own_folder(two)
    (made,) = tmp_path.iterdir()
    assert made.stat().st_mode & 0o777 == 0o700
    made.chmod(0o770)
    with pytest.raises(UserError, match="others may write into it"):
        far_worker.own_folder(one)


@pytest.mark.parametrize("chosen", [None, "active"])
def test_threads_of_workers_elsewhere_sleep_while_they_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", chosen or "")
    if chosen is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("STIC_EVAL_CACHE", "")  # as it was, afterwards
    monkeypatch.setattr(far_worker.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(far_worker, "appears", lambda path, seconds: True)
    monkeypatch.setattr(far_worker, "send_log", lambda send: None)
    monkeypatch.chdir(tmp_path)
    far_worker.begin(
        0, FarPlace("head", tmp_path, tmp_path, "", Driver(tmp_path), 1), lambda kind, value: None
    )
    assert os.environ["OMP_WAIT_POLICY"] == (chosen or "passive")


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
