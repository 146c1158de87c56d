"""Disks that are full or may only be read, and a cache that is taken away: one line, and a way on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import draw_photos
from tests.faults.damage.sound import Done, Sound, answers, count, invoke, numbers
from tests.faults.damage.test_files import of_one_line
from tests.faults.inputs import charts

STEP = 64 << 10  # bytes by which a disk is larger than the one before
_watching: list[Callable[[], None]] = []


def watch(event: str, args: tuple[object, ...]) -> None:
    if event == "os.rename" and _watching:
        _watching[0]()


sys.addaudithook(watch)  # which cannot be removed any more


def mount(*argv: str) -> None:
    try:
        done = subprocess.run(["mount", *argv], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"there is no mount here: {error}")
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@contextmanager
def disk(at: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes."""
    at.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "none", str(at))
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def check_end(done: Done, what: str, words: tuple[str, ...]) -> None:
    """It is done, or has failed in one line at the end that says why."""
    assert "Traceback" not in done.err and "unexpectedly" not in done.err, (what, done.err)
    assert done.code in (0, 1, 2), (what, done.err)
    if done.code:
        assert of_one_line(done), (what, done.err)
        assert any(word in done.err for word in words), (what, done.err)


def check_way_on(sound: Sound, at: Path, what: str) -> None:
    """The same command ends with the same numbers, and nothing of what is kept is damaged."""
    done = invoke(at, *sound.argv)
    assert done.code == 0, (what, done.err)
    assert numbers(at) == numbers(sound.folder), what
    assert answers(at) == answers(sound.folder), what
    looked = invoke(at, "doctor", "--cache", "--run", "run")
    assert looked.code == 0, (what, looked.out)


def on_full_disk(sound: Sound, at: Path, size: int, told: Counter[str]) -> bool:
    """Runs the command on a disk of so many bytes, then on a larger one; whether it went well at once."""
    with disk(at, size):
        done = invoke(at, *sound.argv)
        check_end(done, f"{size} bytes", ("no space is left",))
        told["tries"] += 1
        told["failed in one line"] += done.code == 1
        assert done.code in (0, 1), done.err
        mount("-o", f"remount,size={64 << 20}", str(at))
        check_way_on(sound, at, f"{size} bytes")
        return done.code == 0


@pytest.mark.parametrize("size", [STEP, 9 * STEP])
def test_a_full_disk_costs_what_was_not_kept(sound: Sound, tmp_path: Path, size: int) -> None:
    on_full_disk(sound, tmp_path / "disk", size, Counter())


@pytest.mark.campaign
def test_disks_of_all_sizes(sound: Sound, tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    size = os.sysconf("SC_PAGE_SIZE")
    well = 0
    while well < 3:  # three sizes one after the other at which nothing is missing
        # A folder for each: SQLite takes a file of the same path and inode for the one that it has open.
        well = well + 1 if on_full_disk(sound, tmp_path / f"disk{size}", size, told) else 0
        size += STEP
    count("full disks", largest=size, **{name.replace(" ", "_"): n for name, n in told.items()})


@pytest.mark.parametrize("command", ["import pairs", "export pairs", "data prepare"])
def test_what_is_written_onto_a_full_disk_has_failed(tmp_path: Path, command: str) -> None:
    draw_photos(tmp_path / "images", 2)
    rows = "".join(json.dumps(row) + "\n" for row in charts("images"))
    (tmp_path / "rows.jsonl").write_text(rows)
    pair = {"prompt": "What?", "chosen": "A", "rejected": "B", "image": "images/0.png"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    if command == "export pairs":
        assert invoke(tmp_path, "import", "pairs", "pairs.jsonl", "--output", "pairs.parquet").code == 0
    argv = {
        "import pairs": ("pairs.jsonl", "--output", "disk/pairs.parquet"),
        "export pairs": ("pairs.parquet", "--to", "trl", "--output", "disk/pairs"),
        "data prepare": ("chartqa", "--from", "rows.jsonl", "--to", "disk/rows"),
    }[command]
    page = os.sysconf("SC_PAGE_SIZE")
    with disk(tmp_path / "disk", page):
        (tmp_path / "disk" / "full").write_bytes(bytes(page))
        done = invoke(tmp_path, *command.split(), *argv)
    assert (done.code, of_one_line(done)) == (1, True), done.err
    assert "no space is left" in done.err


def test_a_cache_that_may_only_be_read_is_said(sound: Sound, tmp_path: Path) -> None:
    at = tmp_path / "there"
    with disk(at / "cache", 16 << 20):
        mount("-o", "remount,ro", str(at / "cache"))
        done = invoke(at, *sound.argv)
        assert done.code == 2 and of_one_line(done), done.err
        assert f"cannot write {at / 'cache'}" in done.err
        assert "STIC_EVAL_CACHE" in done.err
    check_way_on(sound, at, "read only")


def test_a_full_cache_that_may_only_be_read_has_a_line_too(sound: Sound, tmp_path: Path) -> None:
    at = tmp_path / "there"
    with disk(at / "cache", 64 << 20):
        shutil.copytree(sound.folder / "cache", at / "cache", dirs_exist_ok=True)
        mount("-o", "remount,ro", str(at / "cache"))
        check_end(invoke(at, *sound.argv), "read only", ("STIC_EVAL_CACHE",))


def taken_away(sound: Sound, at: Path, moment: int, told: Counter[str]) -> bool:
    """Deletes the cache before the so manyth rename of a run; whether there were as many."""
    left = [moment]

    def act() -> None:
        left[0] -= 1
        if left[0] == 0:
            shutil.rmtree(at / "cache", ignore_errors=True)

    at.mkdir()
    _watching.append(act)
    try:
        done = invoke(at, *sound.argv)
    finally:
        _watching.clear()
    if left[0] > 0:
        return False
    check_end(done, f"rename {moment}", ("the same command", "cache"))
    told["tries"] += 1
    told["went on"] += done.code == 0
    told["failed in one line"] += done.code == 1
    check_way_on(sound, at, f"rename {moment}")
    shutil.rmtree(at)
    return True


@pytest.mark.parametrize("moment", [3, 8, 10])
def test_a_cache_that_is_taken_away_is_made_again(sound: Sound, tmp_path: Path, moment: int) -> None:
    assert taken_away(sound, tmp_path / "there", moment, Counter())


@pytest.mark.campaign
def test_a_cache_is_taken_away_before_every_rename(sound: Sound, tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    moment = 1
    while taken_away(sound, tmp_path / "there", moment, told):
        moment += 1
    count("caches taken away", **{name.replace(" ", "_"): n for name, n in told.items()})
