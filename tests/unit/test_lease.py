"""Leases: one holder at a time, none for the dead, and no harm by one that has lost its lease."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from stic_eval import lease
from stic_eval.errors import RunError, UserError
from stic_eval.stage_store import StageStore
from stic_eval.store import atomic_write

KEY = "a" * 64
# Takes a lease and kills itself; or takes it a number of times and counts in a file that has no other lock.
DYING = """
import os, signal, sys
from pathlib import Path
from stic_eval import lease
with lease.hold(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""
COUNTING = """
import os, signal, sys, time
from pathlib import Path
from stic_eval import lease
lease._POLL = 0.001
count = Path(sys.argv[1]).with_name("count")
for number in range(30):
    with lease.hold(Path(sys.argv[1])):
        before = int(count.read_text())
        time.sleep(0.001)
        count.write_text(str(before + 1))
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def elsewhere(path: Path) -> lease.Owner:
    """A lease of a process on another machine."""
    owner = lease.Owner("dead", "another machine", os.getpid(), 1)
    path.write_text(json.dumps(asdict(owner)))
    return owner


def start(code: str, path: Path, *argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, str(path), *argv])


def test_a_lease_is_a_file_while_it_is_held(tmp_path: Path) -> None:
    path = tmp_path / "one.lease"
    with lease.hold(path) as owner:
        assert json.loads(path.read_text()) == asdict(owner)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="cannot write"), lease.hold(tmp_path / "gone" / "one.lease"):
        pass


def test_that_of_a_process_that_was_killed_is_taken_at_once(tmp_path: Path) -> None:
    path = tmp_path / "one.lease"
    assert start(DYING, path).wait() == -9
    assert path.is_file()
    with lease.hold(path) as owner:
        assert json.loads(path.read_text())["pid"] == owner.pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_many_processes_of_which_some_are_killed_hold_it_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "one.lease"
    (tmp_path / "count").write_text("0")
    running = [start(COUNTING, path, str(last)) for last in (9, 99, 19, 99)]
    assert [process.wait() for process in running] == [-9, 0, -9, 0]
    assert (tmp_path / "count").read_text() == str(10 + 30 + 20 + 30)
    with lease.hold(path):  # one that was killed may have been the last to hold it
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["count"]


def test_that_of_another_machine_is_taken_when_it_is_not_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRY", 0.6)
    monkeypatch.setattr(lease, "_POLL", 0.05)
    path = tmp_path / "one.lease"
    owner = elsewhere(path)
    beats = []

    def take() -> None:
        with lease.hold(path):
            beats.append("taken")

    waiting = Thread(target=take)
    waiting.start()
    for _ in range(12):  # longer than it takes to expire
        waiting.join(0.1)
        os.utime(path)
        beats.append("renewed")
    assert "taken" not in beats and lease._owner(path) == owner
    waiting.join()
    assert beats[-1] == "taken"


def test_one_that_a_power_cut_has_emptied_is_taken_soon_and_refuses_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_POLL", 0.001)
    path = tmp_path / "one.lease"
    path.touch()

    def refuse(holder: str) -> None:
        raise AssertionError(holder)

    with lease.hold(path, refuse) as owner:
        assert lease.held(path, owner)


def test_old_unsigned_ones_are_swept(tmp_path: Path) -> None:
    for name in ("new.lease", "old.lease"):
        (tmp_path / name).touch()
    os.utime(tmp_path / "old.lease", (0, 0))
    lease.sweep(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["new.lease"]


def test_a_lease_that_another_has_taken_meanwhile_stays_theirs(tmp_path: Path) -> None:
    path = tmp_path / "one.lease"
    living = elsewhere(path)
    lease._take_away(path, replace(living, token="before"))
    assert lease._owner(path) == living
    assert [file.name for file in tmp_path.iterdir()] == ["one.lease"]


def test_whoever_has_lost_its_lease_neither_renews_nor_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.01)
    path = tmp_path / "one.lease"
    with lease.hold(path):
        path.unlink()
        owner = elsewhere(path)
        while "was taken by another process" not in caplog.text:
            pass
    assert lease._owner(path) == owner


def test_a_clock_that_is_set_takes_no_lease_from_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = psutil.Process.create_time
    with lease.hold(tmp_path / "one.lease") as owner:
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 1.0)
        assert not owner.gone
    assert replace(owner, born=owner.born + 1).gone, "another process with that number"
    assert not replace(owner, born=0).gone, "not known"


def stale(monkeypatch: pytest.MonkeyPatch, path: Path, times: int) -> list[Path]:
    """Has so many looks at a file fail as those at a stale handle do."""
    failed: list[Path] = []
    opened = Path.open

    def open_(self: Path, *args: Any, **more: Any) -> Any:
        if self == path and len(failed) < times:
            failed.append(self)
            raise OSError(errno.ESTALE, "Stale file handle")
        return opened(self, *args, **more)

    monkeypatch.setattr(Path, "open", open_)
    return failed


def test_one_that_cannot_be_read_for_a_moment_is_renewed_and_given_up_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.01)
    monkeypatch.setattr(lease, "_POLL", 0.01)
    path = tmp_path / "one.lease"
    with lease.hold(path):
        os.utime(path, (1, 1))
        failed = stale(monkeypatch, path, 2)
        while len(failed) < 2 or path.stat().st_mtime == 1:
            assert "was taken" not in caplog.text
        monkeypatch.setattr(lease, "HEARTBEAT", 60.0)
        failed = stale(monkeypatch, path, 2)
    assert len(failed) == 2 and list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- attempts at a stage


def test_an_attempt_goes_on_in_the_folder_of_the_one_before_and_takes_it_from_it(tmp_path: Path) -> None:
    first, second = StageStore(tmp_path), StageStore(tmp_path)
    old = first.work_dir("one", KEY)
    (old / "half").write_text("x")
    own = second.work_dir("one", KEY)
    assert own != old and not old.exists() and second.work_dir("one", KEY) == own
    (own / "rest").write_text("y")
    folder = second.finish("one", KEY)
    # The first, which has lost its lease and does not know it, finds an empty folder, and a finished stage.
    (first.work_dir("one", KEY) / "other").write_text("z")
    assert first.finish("one", KEY) == folder
    assert {file.name for file in folder.iterdir()} == {"half", "rest", "manifest.json"}
    assert [file.name for file in tmp_path.iterdir()] == [folder.name]


def test_what_an_earlier_version_left_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / f"one-{KEY[:16]}.work").mkdir()
    (tmp_path / f"one-{KEY[:16]}.work" / "half").touch()
    store = StageStore(tmp_path)
    assert (store.work_dir("one", KEY) / "half").exists()
    store.discard("one", KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_stage_gives_way_to_the_new_one(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    for text in ("first", "other"):
        (store.work_dir("one", KEY) / "made").write_text(text)
        folder = store.finish("one", KEY)
        assert (folder / "made").read_text() == "first", "a sound one stays"
    (folder / "made").write_text("SPOIL")
    (store.work_dir("one", KEY) / "made").write_text("other")
    assert (store.finish("one", KEY) / "made").read_text() == "other"
    assert [file.name for file in tmp_path.iterdir()] == [folder.name]


def test_what_an_attempt_was_robbed_of_it_does_not_publish(tmp_path: Path) -> None:
    first, second = StageStore(tmp_path), StageStore(tmp_path)
    (first.work_dir("one", KEY) / "half").touch()
    (second.work_dir("one", KEY) / "more").touch()
    with pytest.raises(RunError, match=r"stage one \(a{16}\): .* another has taken the stage over"):
        first.finish("one", KEY)
    assert {file.name for file in second.finish("one", KEY).iterdir()} == {"half", "more", "manifest.json"}
    assert first.finish("one", KEY) == first.folder("one", KEY), "what the other has made"


def test_nor_what_it_has_written_since_then(tmp_path: Path) -> None:
    first, second = StageStore(tmp_path), StageStore(tmp_path)
    path = tmp_path / f"one-{KEY[:16]}.lease"
    with first.lock("one", KEY):
        work = first.work_dir("one", KEY)
        atomic_write(work / "early", "x")
        elsewhere(path)  # it stands still, and another takes its lease
        own = second.work_dir("one", KEY)
        atomic_write(work / "late", "y")  # which makes the folder anew
        with pytest.raises(RunError, match="another has taken the stage over"):
            first.finish("one", KEY)
    assert {found.name for found in tmp_path.iterdir()} == {own.name, path.name}
    assert [file.name for file in own.iterdir()] == ["early"]
