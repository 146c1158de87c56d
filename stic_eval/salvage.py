"""Rows of a damaged SQLite file of answers: all that can still be read, one after the other.

A damaged page makes a query fail that comes upon it. Keys are digests, evenly spread, so that the rows are
asked for by ever smaller parts of the keys: those that lie on sound pages are read, whatever else is lost.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from uuid import uuid4

from stic_eval.errors import ELSEWHERE, NO_SPACE, RunError, UserError, first_line
from stic_eval.response_rows import Damaged, is_whole
from stic_eval.types import Response

_DIGITS = "0123456789abcdef"
_DEEPEST = 4  # digits of a part's keys; a page has answers to more keys than that leaves, in a large file
_PAGE = 4096
_ROOM = 1 << 17  # bytes that SQLite takes beside a small file
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
_PARTS = {"thinking": "coalesce(t.text, '')", "checks": "c.crc"}
_JOINS = {"thinking": "LEFT JOIN thinking t USING (key)", "checks": "LEFT JOIN checks c USING (key)"}


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is not as SQLite has written it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return (
        isinstance(error, Damaged)
        or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        or "decode to UTF-8" in str(error)
    )


def failure_of(path: Path, error: sqlite3.Error) -> UserError | RunError:
    """What else keeps a file of answers from being used, in a line that says what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # SQLite fails otherwise as well where there is no room for what it keeps beside the file.
    others = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    if code == sqlite3.SQLITE_FULL or (others and _is_full(path.parent)):
        return RunError(f"cannot write {path}: {NO_SPACE}")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return UserError(f"cannot write {path}: {error}; {ELSEWHERE}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RunError(f"cannot use {path}: another process has locked it; try again when that has ended")
    return RunError(
        f"cannot use {path}: {first_line(error)}; if the disk is sound, move that file away, or set "
        "STIC_EVAL_CACHE to another folder, and start the same command again"
    )


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _ROOM
    except OSError:
        return False


def set_aside(path: Path) -> Path | None:
    """Renames a damaged file, with what SQLite keeps beside it; None: another process has done that."""
    aside = path.with_name(f"{path.name}.{uuid4().hex[:8]}.damaged")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return None
    for end in ("-wal", "-shm"):
        with suppress(OSError):
            os.rename(f"{path}{end}", f"{aside}{end}")
    return aside


def readable_rows(damaged: Path) -> Iterator[tuple[str, Response]]:
    """The answers that can be read of a damaged file, each as it was written.

    Args:
        damaged: The file, which may be written to: what every such file begins with is put back.
    """
    with suppress(OSError), damaged.open("r+b") as file:
        if file.seek(0, os.SEEK_END) >= _PAGE:
            header = _header(file.tell() // _PAGE)
            file.seek(0)
            file.write(header)
    try:
        db = sqlite3.connect(damaged, isolation_level=None)
    except sqlite3.Error:
        return
    with closing(db):
        db.text_factory = bytes  # what is no text must not end the query
        tables = set[str]()
        with suppress(sqlite3.Error):
            # A file that was cut is read as far as it goes.
            db.execute("PRAGMA writable_schema=ON")
            tables = {str(name, "utf-8", "replace") for (name,) in db.execute(_TABLES)}
        seen = set[str]()
        for query in _queries(tables):
            for key, response in _rows(db, query, ""):
                if key not in seen:
                    seen.add(key)
                    if response is not None:
                        yield key, response


def _header(pages: int) -> bytes:
    """The 100 bytes that begin a file of `ResponseStore` (sqlite.org/fileformat.html), without free pages."""
    counter = bytes([0, 0, 0, 1])
    sizes = _PAGE.to_bytes(2) + bytes([2, 2, 0, 64, 32, 32]) + counter + pages.to_bytes(4)
    kinds = bytes(8) + counter + bytes([0, 0, 0, 4]) + bytes(8) + bytes([0, 0, 0, 1])
    return b"SQLite format 3\x00" + sizes + kinds + bytes(32) + counter + bytes(4)


def _queries(tables: set[str]) -> Iterator[str]:
    """What asks for answers whole, where one of the tables beside them can no longer be read, too.

    An answer whose check is lost is taken with what was thought before it, or where nothing ever was; one
    whose thinking is lost if its check says that there was none.
    """
    for joined in (("thinking", "checks"), ("checks",), ("thinking",), ()):
        if tables.issuperset(joined) and (joined or not tables & set(_PARTS)):
            thinking, check = (
                _PARTS[part] if part in joined else other
                for part, other in (("thinking", "''"), ("checks", "NULL"))
            )
            joins = " ".join(_JOINS[part] for part in joined)
            yield (
                f"SELECT r.key, r.text, n_tokens, finish_reason, seconds, {thinking}, {check}"
                f" FROM responses r {joins}"
            )


def _rows(db: sqlite3.Connection, query: str, start: str) -> Iterator[tuple[str, Response | None]]:
    """Rows whose keys start so; of a part that is damaged those that come before, and those of its parts."""
    where = f"{query} WHERE r.key >= ? AND r.key < ? ORDER BY r.key"
    bounds = (start, start + "g")
    try:
        found = db.execute(where, bounds).fetchall()
    except sqlite3.Error as error:
        if not is_damage(error):  # there is no such table
            return
        if len(start) < _DEEPEST:
            for digit in _DIGITS:
                yield from _rows(db, query, start + digit)
            return
        found = []
        for order in ("ASC", "DESC"):  # up to the damage, from either side
            with suppress(sqlite3.Error):
                for row in db.execute(f"{where} {order}", bounds):
                    found.append(row)
    for row in found:
        if (read := _read(row)) is not None:
            yield read


def _read(row: tuple[object, ...]) -> tuple[str, Response | None] | None:
    """A row, without an answer that is not what was written; None: nobody could ask for it."""
    try:
        key, text, reason, thinking = (str(row[at], "utf-8") for at in (0, 1, 3, 5))  # type: ignore[call-overload]
    except (TypeError, UnicodeDecodeError):
        return None
    if len(key) != 64 or not set(key) <= set(_DIGITS):
        return None
    response = Response(text, row[2], reason, row[4], thinking=thinking)  # type: ignore[arg-type]
    sound = reason in ("stop", "length") and is_whole(key, response, row[6])  # type: ignore[arg-type]
    return key, response if sound else None
