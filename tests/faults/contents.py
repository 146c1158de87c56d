"""What a folder holds, as far as two runs in peace agree on it: without times and the log."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

# What says when, for how long or where something was computed, and digests of files that say it.
_TIMES = {
    "seconds", "seconds_of", "started", "came_from", "sha256", "files", "command", "jobs", "train_runtime",
}  # fmt: skip
_IN_TEXT = re.compile(r"[, ]*[\d,.]+ ?s\b")
_LOGS = ("run.log",)


def contents(folder: Path) -> dict[str, str]:
    """Path below a folder -> a digest of what the file says; of hidden and temporary files as well.

    What SQLite keeps beside a database that nobody has closed is that database's, and so no file of its own.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        # Nor is what a run says of itself in a cache one: it names the run's folder, which lies elsewhere.
        if name.endswith((".sqlite-wal", ".sqlite-shm")) or path.parent.name == "runs":
            continue
        if path.is_dir():
            found[f"{name}/"] = ""
        elif path.name in _LOGS:
            found[name] = "a log"
        else:
            found[name] = hashlib.sha256(_said(path)).hexdigest()
    return found


def _said(path: Path) -> bytes:
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = {table: [_row(row) for row in db.execute(f"SELECT * FROM {table}")] for table in tables}
        return json.dumps({table: sorted(found) for table, found in rows.items()}, sort_keys=True).encode()
    data = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(_plain(json.loads(data)), sort_keys=True).encode()
    if path.suffix == ".jsonl":
        return "\n".join(
            json.dumps(_plain(json.loads(line)), sort_keys=True) for line in data.splitlines()
        ).encode()
    if path.suffix in (".md", ".tex", ".html", ".csv"):
        return _IN_TEXT.sub("", data.decode()).encode()
    return data


def _row(row: tuple[Any, ...]) -> list[str]:
    return [str(value) for value in row if not isinstance(value, float)]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items() if key not in _TIMES}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return _IN_TEXT.sub("", value) if isinstance(value, str) else value


def differences(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """What is missing, left over or another, by name; empty: nothing."""
    return [
        *(f"missing: {name}" for name in sorted(expected.keys() - found.keys())),
        *(f"left over: {name}" for name in sorted(found.keys() - expected.keys())),
        *(f"another: {name}" for name in sorted(found) if name in expected and found[name] != expected[name]),
    ]
