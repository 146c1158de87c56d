"""What is published, what of it is flushed, and whose leftovers are swept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stic_eval import durable_files as files
from stic_eval import lease, process_identity
from stic_eval.stage_store import StageStore
from stic_eval.store import atomic_write

KEY = "b" * 64
# Leaves temporary files and a lease of a process that has been killed.
DYING = """
import os, signal, sys
from pathlib import Path
from stic_eval import durable_files, lease
here = Path(sys.argv[1])
durable_files.temporary_name(here / "table.json").write_text("{")
(durable_files.temporary_name(here / "records") / "inner").mkdir(parents=True)
with lease.hold(here / "one.lease"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def leftovers(tmp_path: Path) -> Path:
    """A folder in which a process was killed."""
    done = subprocess.run([sys.executable, "-c", DYING, tmp_path], check=False)
    assert done.returncode == -9 and len(list(tmp_path.iterdir())) == 3
    return tmp_path


def test_what_a_killed_process_left_is_swept_by_whoever_writes_there_next(leftovers: Path) -> None:
    mine = files.temporary_name(leftovers / "table.json")
    mine.touch()
    atomic_write(leftovers / "other", "x")
    lease.sweep(leftovers)
    assert {path.name for path in leftovers.iterdir()} == {"other", mine.name}, "the living keep theirs"


def test_a_folder_to_work_in_takes_the_place_of_those_that_killed_processes_left(leftovers: Path) -> None:
    with files.temporary_folder(leftovers / "stic-eval-part", mode=0o700) as mine:
        assert {path.name for path in leftovers.iterdir()} == {mine.name, "one.lease"}
        assert mine.stat().st_mode & 0o777 == 0o700
    assert not mine.exists()


def test_a_stage_that_goes_on_has_nothing_half_written_in_its_manifest(leftovers: Path) -> None:
    store = StageStore(leftovers / "stages")
    left = store.work_dir("one", KEY)
    (left / "whole").touch()
    for path in leftovers.glob(".*.tmp"):
        path.rename(left / path.name)
    again = StageStore(leftovers / "stages")
    again.work_dir("one", KEY)
    assert {path.name for path in again.finish("one", KEY).iterdir()} == {"whole", "manifest.json"}


def test_leftovers_of_other_machines_stay_for_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "machine", lambda: "elsewhere")
    theirs = files.temporary_name(tmp_path / "x")
    theirs.touch()
    monkeypatch.setattr(files, "machine", process_identity.machine)
    files.sweep(tmp_path)
    assert theirs.exists()
    then = time.time() - files.OTHERS_SECONDS - 1
    os.utime(theirs, (then, then))
    files.sweep(tmp_path)
    assert not theirs.exists()


def test_files_of_other_programs_stay(tmp_path: Path) -> None:
    names = {".x.tmp", ".scores.json.k3j4h5.tmp", "y.1-2-3.12345678.tmp", ".export-abc"}
    for name in names:
        (tmp_path / name).touch()
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_name_as_long_as_names_may_be_can_be_written(tmp_path: Path) -> None:
    atomic_write(tmp_path / ("ü" * 120), "x")
    assert [path.name for path in tmp_path.iterdir()] == ["ü" * 120]


def test_files_and_folders_are_flushed_before_they_are_renamed_and_their_folder_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def flush(handle: int) -> None:
        done.append(f"fsync {Path(os.readlink(f'/proc/self/fd/{handle}')).relative_to(tmp_path)}")
        fsync(handle)

    def rename(source: Path, target: Path) -> None:
        done.append(f"rename {Path(target).relative_to(tmp_path)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    work = tmp_path / "work"
    (work / "adapter").mkdir(parents=True)
    for name in ("adapter/weights", "log"):
        (work / name).touch()
    files.publish(work, tmp_path / "stage")
    expected = {"fsync work/log", "fsync work", "fsync work/adapter/weights", "fsync work/adapter"}
    assert (set(done[:4]), done[4:]) == (expected, ["rename stage", "fsync ."])
    done.clear()
    files.make_folder(tmp_path / "new" / "inner")
    assert set(done) == {"fsync .", "fsync new"}
