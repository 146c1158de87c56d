"""Digests of files: each file is read once in a process, and again when it is not what it was."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from stic_eval import digests, stage_store
from stic_eval.stage_store import StageStore

KEY = "a" * 64


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the files that were read, in order."""
    names: list[str] = []
    real = digests.file_sha256

    def counted(path: Path) -> str:
        names.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(digests, "file_sha256", counted)
    return names


def finished(store: StageStore, text: str = "weights") -> Path:
    (store.work_dir("one", KEY) / "made").write_text(text)
    return store.finish("one", KEY)


def test_a_stage_that_this_process_has_made_is_read_once(tmp_path: Path, read: list[str]) -> None:
    store, said = StageStore(tmp_path), list[str]()
    folder = finished(store)
    assert [store.sound("one", KEY, said.append) for _ in range(3)] == [folder] * 3
    assert (read, said) == (["made"], [])


@pytest.mark.parametrize("times", ["new", "as before"])
def test_a_change_of_the_same_size_shows_in_this_process(tmp_path: Path, times: str) -> None:
    store, said = StageStore(tmp_path), list[str]()
    folder = finished(store)
    before = (folder / "made").stat()
    (folder / "made").write_text("WEIGHTS")
    if times == "as before":
        os.utime(folder / "made", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.done("one", KEY) == folder  # all that a plan looks at
    assert [store.sound("one", KEY, said.append) for _ in range(2)] == [None, None]
    assert said == [
        f"stage one ({KEY[:16]}): {folder / 'made'} has changed since it was written; the stage is made again"
    ]
    assert finished(store) == folder
    assert store.sound("one", KEY, said.append) == folder


def test_a_file_of_which_there_is_no_digest_is_none_of_the_stage_s(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    folder = finished(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "more").write_text("x")
    manifest["files"]["more"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert store.first_damaged("one", KEY) == folder / "more"


def test_a_cache_that_may_only_be_read_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval.errors import UserError

    store, said = StageStore(tmp_path), list[str]()
    folder = finished(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    def refused(path: Path, data: str) -> None:
        raise UserError("read-only")

    monkeypatch.setattr(stage_store, "atomic_write", refused)
    assert [store.sound("one", KEY, said.append) for _ in range(2)] == [folder] * 2
    assert (len(said), "without digests" in said[0]) == (1, True)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_stage_that_another_process_takes_away_meanwhile_is_none_or_was_read_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It is gone when its manifest would be read for the first, second or third time."""
    store, said = StageStore(tmp_path), list[str]()
    folder = finished(store)
    reads, real = 0, Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        nonlocal reads
        reads += 1
        if reads == number:
            shutil.rmtree(folder)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert store.sound("one", KEY, said.append) == (folder if folder.exists() else None)


def test_one_without_digests_that_goes_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, said = StageStore(tmp_path), list[str]()
    folder = finished(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    def gone(folder: Path, files: Iterable[str]) -> dict[str, str]:
        shutil.rmtree(folder)
        return digests.digests(folder, files)

    monkeypatch.setattr(stage_store, "digests", gone)
    assert store.sound("one", KEY, said.append) is None
    assert not folder.exists()


# ---------------------------------------------------------------- remembered beyond the process


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files whose digests are worth remembering, and have been what they are for some time."""
    monkeypatch.setattr(digests, "_LARGE", 10)
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)
    paths = [tmp_path / name for name in ("a", "b", os.fsdecode(b"\xff"))]
    for path in paths:
        path.write_text(f"the text of {path.name!r}")
    return paths


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if in another process."""
    monkeypatch.setattr(digests, "_known", {})


def test_another_process_reads_nothing_again(
    tmp_path: Path, large: list[Path], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "cache" / "digests.sqlite"
    found = digests.cached_digests(large, memory)
    assert found == [digests.file_sha256(path) for path in large]
    read.clear()
    elsewhere(monkeypatch)
    assert (digests.cached_digests(large, memory), read) == (found, [])


@pytest.mark.parametrize("change", ["written", "replaced", "touched"])
def test_a_file_that_is_not_what_it_was_is_read_again(
    tmp_path: Path, large: list[Path], read: list[str], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    memory = tmp_path / "digests.sqlite"
    old = digests.cached_digests(large, memory)
    stat = large[0].stat()
    if change == "written":
        large[0].write_text(large[0].read_text().replace("text", "TEXT"))
        os.utime(large[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "replaced":
        other = tmp_path / "other"
        other.write_text(large[0].read_text().replace("text", "TEXT"))
        os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        other.replace(large[0])
    else:
        large[0].touch()
    elsewhere(monkeypatch)
    read.clear()
    new = digests.cached_digests(large, memory)
    assert (new[0] == old[0], new[1:], read) == (change == "touched", old[1:], ["a"])
    elsewhere(monkeypatch)
    read.clear()
    assert (digests.cached_digests(large, memory), read) == (new, [])


def test_a_file_that_changed_a_moment_ago_is_not_remembered(
    tmp_path: Path, large: list[Path], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change again within a tick of the clock, and look the same."""
    monkeypatch.setattr(digests, "_SETTLED_NS", 10**12)
    digests.cached_digests(large, tmp_path / "digests.sqlite")
    elsewhere(monkeypatch)
    read.clear()
    digests.cached_digests(large, tmp_path / "digests.sqlite")
    assert sorted(read) == sorted(path.name for path in large)


def test_however_long_reading_takes(
    tmp_path: Path, large: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is when reading began: within that tick of the clock the file may have changed again."""
    real, now = digests.file_sha256, [max(path.stat().st_ctime_ns for path in large) + 1]

    def slow(path: Path) -> str:
        now[0] += 10**11
        return real(path)

    monkeypatch.setattr(digests, "_SETTLED_NS", 10**9)
    monkeypatch.setattr(digests.time, "time_ns", lambda: now[0])
    monkeypatch.setattr(digests, "file_sha256", slow)
    memory = tmp_path / "digests.sqlite"
    digests.cached_digests(large, memory)
    with closing(sqlite3.connect(memory)) as db:
        assert db.execute("SELECT count(*) FROM digests").fetchone() == (0,)


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    tmp_path: Path, large: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = digests.file_sha256

    def meanwhile(path: Path) -> str:
        found = real(path)
        if path == large[0]:
            path.write_text("another text")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(digests, "file_sha256", meanwhile)
        digests.cached_digests(large, tmp_path / "digests.sqlite")
    elsewhere(monkeypatch)
    assert digests.cached_digests(large, tmp_path / "digests.sqlite")[0] == real(large[0])


@pytest.mark.parametrize("spoil", ["no database", "a folder"])
def test_a_memory_that_cannot_be_used_is_done_without(
    tmp_path: Path, large: list[Path], monkeypatch: pytest.MonkeyPatch, spoil: str
) -> None:
    memory = tmp_path / "digests.sqlite"
    if spoil == "a folder":
        memory.mkdir()
    else:
        memory.write_text("no database at all, however long one looks at it" * 30)
    assert digests.cached_digests(large, memory) == [digests.file_sha256(path) for path in large]


def test_few_bytes_leave_no_trace(tmp_path: Path, large: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_LARGE", 10**6)
    digests.cached_digests(large, tmp_path / "digests.sqlite")
    assert not (tmp_path / "digests.sqlite").exists()


def remember(paths: list[str], memory: str) -> list[str]:
    digests._LARGE, digests._SETTLED_NS = 0, 0
    return digests.cached_digests([Path(path) for path in paths], Path(memory))


def test_processes_share_a_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}" for number in range(40)]
    for path in paths:
        path.write_text(path.name)
    memory = str(tmp_path / "digests.sqlite")
    parts = [[str(path) for path in paths[start : start + 20]] for start in (0, 5, 10, 20)]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as workers:
        found = list(workers.map(remember, parts, [memory] * 4))
    assert found == [[digests.file_sha256(path) for path in part] for part in parts]
    with closing(sqlite3.connect(memory)) as db:
        assert db.execute("SELECT count(*) FROM digests").fetchone() == (40,)
