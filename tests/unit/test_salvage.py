"""Answers in damaged files: those that can be read stay, and none is ever another than was written."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from stic_eval.errors import RunError, UserError
from stic_eval.experiment import integrity
from stic_eval.store import ResponseStore, content_key
from stic_eval.types import Response

PAGE = 4096
ANSWERS = {
    content_key(n): Response(f"answer {n} " * (1 + n % 7), n, "stop" if n % 3 else "length", n / 8,
                             thinking="hm" * (n % 5 == 0))
    for n in range(600)
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with all answers; read only."""
    path = tmp_path_factory.mktemp("store") / "answers.sqlite"
    with closing(ResponseStore(path)) as store:
        store.put_many(ANSWERS)
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    (tmp_path / "responses").mkdir()
    return Path(shutil.copy(made, tmp_path / "responses" / "answers.sqlite"))


def damage(path: Path, at: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(value)


def read(path: Path) -> dict[str, Response]:
    with closing(ResponseStore(path)) as store:
        found = store.get_many(ANSWERS)
        assert len(store) >= len(found)
        return found


def check_and_complete(path: Path, least: int) -> None:
    """What is read is what was written; what is missing can be put back."""
    found = read(path)
    assert found.items() <= ANSWERS.items()
    assert len(found) >= least
    with closing(ResponseStore(path)) as store:
        store.put_many(ANSWERS)
    assert read(path) == ANSWERS


def test_a_damaged_page_costs_its_answers_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pages = path.stat().st_size // PAGE
    damage(path, pages // 2 * PAGE, bytes(PAGE))
    with caplog.at_level(logging.WARNING):
        found = read(path)
    assert 500 < len(found) < 600
    (line,) = [record.getMessage() for record in caplog.records]
    (aside,) = path.parent.glob("*.damaged")
    assert line == (
        f"{path} was damaged: {len(found)} answers could be read and are kept; others will be asked for "
        f"again (the damaged file is {aside.name})"
    )
    check_and_complete(path, 500)


def test_no_damaged_page_changes_an_answer(made: Path, tmp_path: Path) -> None:
    pages = made.stat().st_size // PAGE
    for page in {*range(6), *range(6, pages, 3), pages - 1}:
        path = Path(shutil.copy(made, tmp_path / f"{page}.sqlite"))
        damage(path, page * PAGE, os.urandom(64))
        check_and_complete(path, 500 if page not in (1, 2, 3) else 0)


def test_a_flipped_bit_in_an_answer_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for text in (b"answer 7 ", b"answer 599 "):
        damage(path, data.index(text) + 2, b"z")
    check_and_complete(path, 598)


@pytest.mark.parametrize("at", [0, 17, 18, 22])
def test_what_every_file_begins_with_is_put_back(path: Path, at: int) -> None:
    damage(path, at, b"\xff")
    assert read(path) == ANSWERS


@pytest.mark.parametrize("size", [0, 1, 50, 1000, PAGE, 3 * PAGE, 10 * PAGE + 7])
def test_a_file_that_was_cut_is_read_as_far_as_it_goes(path: Path, size: int) -> None:
    os.truncate(path, size)
    check_and_complete(path, 0)


def test_another_file_in_its_place_is_set_aside(path: Path) -> None:
    path.write_text("[1, 2]\n")
    assert read(path) == {}
    (aside,) = path.parent.glob("*.damaged")
    check_and_complete(path, 0)
    assert b"2]" in path.with_name(aside.name).read_bytes() or aside.stat().st_size


def test_an_open_file_that_another_process_mends_is_followed(path: Path) -> None:
    with closing(ResponseStore(path)) as first:
        assert len(first.get_many(ANSWERS)) == 600
        damage(path, path.stat().st_size // PAGE // 2 * PAGE, bytes(PAGE))
        kept = read(path)
        new = {content_key("new"): Response("new", 1, "stop")}
        first.put_many(new)
        assert first.get_many(ANSWERS) == kept
    with closing(ResponseStore(path)) as other:
        assert other.get_many(new) == new


def test_a_folder_that_is_taken_away_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "responses" / "a.sqlite"
    with closing(ResponseStore(path)) as store:
        store.put_many(ANSWERS)
        shutil.rmtree(tmp_path / "cache")
        assert store.get_many(ANSWERS) == {}
        store.put_many(ANSWERS)
    assert read(path) == ANSWERS


def test_a_file_of_an_earlier_version_is_salvaged_as_well(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE checks")
        db.execute("DROP TABLE thinking")
        db.execute("VACUUM")
    damage(path, path.stat().st_size // PAGE // 2 * PAGE, bytes(PAGE))
    texts = {key: answer.text for key, answer in read(path).items()}
    assert texts.items() <= {key: answer.text for key, answer in ANSWERS.items()}.items()
    assert len(texts) > 500


def test_what_a_killed_salvage_has_left_aside_is_put_back(path: Path) -> None:
    path.rename(path.with_name(f"{path.name}.0123abcd.damaged"))
    with closing(ResponseStore(path)) as store:
        store.put_many(dict(list(ANSWERS.items())[:10]))
    (found,) = integrity.check_cache(path.parents[1], repair=True)
    assert (found.mended, found.advice) == (True, "590 are put back")
    assert read(path) == ANSWERS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    import subprocess

    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
    except OSError:
        pytest.skip("there is no mount here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_what_was_kept_stays(small_disk: Path) -> None:
    path = small_disk / "answers.sqlite"
    store = ResponseStore(path)
    some = dict(list(ANSWERS.items())[:50])
    store.put_many(some)
    (small_disk / "filler").write_bytes(bytes(1 << 17))
    large = {key: Response(answer.text * 40, 1, "stop") for key, answer in ANSWERS.items()}
    with pytest.raises(RunError, match=r"cannot write .*answers.sqlite: no space is left there; free some"):
        store.put_many(large)
    (small_disk / "filler").unlink()
    assert store.get_many(some) == some
    store.close()
    assert {key: read(path)[key] for key in some} == some


def test_a_disk_that_may_only_be_read_is_said(small_disk: Path) -> None:
    import subprocess

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(UserError, match=r"cannot write .*: .*STIC_EVAL_CACHE"):
        ResponseStore(small_disk / "a.sqlite")
    with pytest.raises(UserError, match=r"cannot write .*: Read-only file system"):
        ResponseStore(small_disk / "new" / "a.sqlite")
