"""The sha256 of files, each read once in a process, or on a machine, as long as it stays what it was."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

# A file's path, and its size, times and inode when its digest was taken -> the digest. They tell a change
# that a program makes; one that the disk makes shows when the next process looks.
_Identity = tuple[str, tuple[int, ...]]
_known: dict[_Identity, str] = {}
# From so many bytes on digests are remembered beyond the process; a 7B model takes half a minute.
_LARGE = 32 << 20
# A file that changed a moment before it is read may change meanwhile without its times showing it.
_SETTLED_NS = 2_000_000_000


def file_sha256(path: Path | str) -> str:
    """The sha256 (hex) of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """A file's digest, read once in a process unless the file's path, size, times or inode change.

    Raises:
        OSError: The file cannot be read.
    """
    identity = _identity(path)
    if identity not in _known:
        _known[identity] = file_sha256(path)
    return _known[identity]


def cached_digests(paths: Sequence[Path], memory: Path) -> list[str]:
    """Digests of many files, kept in a file so that other processes need not read them again.

    Args:
        memory: An SQLite file, which any number of processes share. One that cannot be used is done without.

    Raises:
        OSError: A file cannot be read.
    """
    before = time.time_ns() - _SETTLED_NS
    found = [(path, _identity(path)) for path in paths]
    fresh = {identity: path for path, identity in found if identity not in _known}
    if sum(size for _, (size, *_) in fresh) >= _LARGE:
        with suppress(sqlite3.Error, OSError), closing(_open_memory(memory)) as db:
            query = "SELECT sha256 FROM digests WHERE path = ? AND stat = ?"
            for identity in fresh:
                if (row := db.execute(query, _row(*identity)).fetchone()) is not None:
                    _known[identity] = row[0]
        unread = {identity: path for identity, path in fresh.items() if identity not in _known}
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(digest, unread.values()))
        kept = [
            (*_row(*identity), _known[identity])
            for identity, path in unread.items()
            if _identity(path) == identity in _known and max(identity[1][1:3]) < before
        ]
        with suppress(sqlite3.Error, OSError), closing(_open_memory(memory)) as db, db:
            db.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", kept)
    return [digest(path) for path in paths]


def _row(name: str, stat: tuple[int, ...]) -> tuple[str, str]:
    return ascii(name), repr(stat)  # a name may hold what is no text


def _open_memory(memory: Path) -> sqlite3.Connection:
    memory.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(memory, timeout=30)
    db.execute("CREATE TABLE IF NOT EXISTS digests (path TEXT PRIMARY KEY, stat TEXT, sha256 TEXT)")
    return db


def _identity(path: Path) -> _Identity:
    stat = path.stat()
    return str(path.absolute()), (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """File below a folder -> its sha256."""
    return {file: digest(folder / file) for file in files}


def first_change(folder: Path, recorded: Mapping[str, str]) -> str | None:
    """The first file below a folder whose content is not what was recorded, or that is gone; None: none."""
    for file, sha256 in recorded.items():
        try:
            if digest(folder / file) != sha256:
                return file
        except OSError:
            return file
    return None


def carry_over(old: Path, new: Path, files: Iterable[str]) -> None:
    """Goes on knowing the files of a folder that was renamed: what was just written is not read again."""
    for file in files:
        name, stat = _identity(new / file)
        known = _known.pop((str((old / file).absolute()), stat), None)
        if known is not None:
            _known[name, stat] = known
