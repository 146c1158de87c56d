"""Digests of files: each file is read once in a process, and again when it is not what it was."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from stic_eval import digests
from stic_eval.store import StageStore

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
        f"stage one ({KEY[:16]}): {folder / 'made'} is not what was written there; the stage is made anew"
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
    assert store.damaged("one", KEY) == folder / "more"


def test_a_cache_that_may_only_be_read_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval import store as module
    from stic_eval.errors import UserError

    store, said = StageStore(tmp_path), list[str]()
    folder = finished(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    def refused(path: Path, data: str) -> None:
        raise UserError("read-only")

    monkeypatch.setattr(module, "atomic_write", refused)
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
    from stic_eval import store as module

    store, said = StageStore(tmp_path), list[str]()
    folder = finished(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    def gone(folder: Path, files: Iterable[str]) -> dict[str, str]:
        shutil.rmtree(folder)
        return digests.digests(folder, files)

    monkeypatch.setattr(module, "digests", gone)
    assert store.sound("one", KEY, said.append) is None
    assert not folder.exists()
