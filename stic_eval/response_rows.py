"""Answers as rows of SQLite: with what was thought before, and what tells whether the disk changed one."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress

from stic_eval.types import Response


class Damaged(sqlite3.DatabaseError):
    """A row can be read and is not what was written."""


def check_of(key: str, response: Response) -> int:
    """What is kept beside an answer to tell whether the disk has changed it, but for its seconds."""
    fields = (key, response.text, int(response.n_tokens), response.finish_reason, response.thinking)
    return zlib.crc32(repr(fields).encode("utf-8", "backslashreplace"))


def is_whole(key: str, response: Response, check: int | None) -> bool:
    """Whether an answer is what was written, as far as that can be told: other versions keep no check."""
    kinds = (response.text, str), (response.n_tokens, int), (response.seconds, (int, float))
    if not all(isinstance(value, kind) for value, kind in kinds):
        return False
    return check is None or check == check_of(key, response)


def prepare(db: sqlite3.Connection) -> None:
    """Makes the tables that are not there yet."""
    db.execute("PRAGMA journal_mode=WAL")
    # With NORMAL a power cut would take the last commits, which may have cost a judge's fees. One comes every
    # 64 answers or 3 seconds; to flush it takes milliseconds.
    db.execute("PRAGMA synchronous=FULL")
    db.execute(
        "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, text TEXT NOT NULL,"
        " n_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL, seconds REAL NOT NULL)"
        " WITHOUT ROWID"
    )
    # What servers give apart from the text, and what tells whether the disk has changed a row. Beside
    # it, so that other versions can use the file.
    for name, column in (("thinking", "text TEXT"), ("checks", "crc INTEGER")):
        db.execute(
            f"CREATE TABLE IF NOT EXISTS {name} (key TEXT PRIMARY KEY, {column} NOT NULL) WITHOUT ROWID"
        )


def get_rows(db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Response]:
    """The answers among those keys.

    Raises:
        Damaged: One is not what was written.
    """
    found: dict[str, Response] = {}
    for start in range(0, len(keys), 500):
        part = keys[start : start + 500]
        marks = ",".join("?" * len(part))
        for key, text, count, reason, seconds, thinking, check in db.execute(
            "SELECT key, r.text, n_tokens, finish_reason, seconds, coalesce(t.text, ''), crc FROM responses r"
            f" LEFT JOIN thinking t USING (key) LEFT JOIN checks USING (key) WHERE key IN ({marks})",
            part,
        ):
            found[key] = Response(text, count, reason, seconds, thinking=thinking)
            if not is_whole(key, found[key], check):
                raise Damaged("a row is not what was written")
    return found


def put_rows(db: sqlite3.Connection, responses: Mapping[str, Response], replace: bool = False) -> None:
    """Stores answers in one commit; those that are there stay, or give way."""
    rule = "REPLACE" if replace else "IGNORE"
    new = "" if replace else " WHERE NOT EXISTS (SELECT 1 FROM responses WHERE key = ?1)"
    db.execute("BEGIN IMMEDIATE")
    try:
        if replace:
            db.executemany("DELETE FROM thinking WHERE key = ?", [(key,) for key in responses])
        db.executemany(
            f"INSERT OR REPLACE INTO thinking SELECT ?1, ?2{new}",
            [(key, response.thinking) for key, response in responses.items() if response.thinking],
        )
        db.executemany(
            f"INSERT OR REPLACE INTO checks SELECT ?1, ?2{new}",
            [(key, check_of(key, response)) for key, response in responses.items()],
        )
        db.executemany(
            f"INSERT OR {rule} INTO responses VALUES (?, ?, ?, ?, ?)",
            [(k, r.text, r.n_tokens, r.finish_reason, r.seconds) for k, r in responses.items()],
        )
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # of a full disk SQLite has done it by itself
            db.execute("ROLLBACK")
        raise
