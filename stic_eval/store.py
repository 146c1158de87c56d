"""What outlives a process on disk: content keys, atomic files, cached responses; `stage_store.py` has stages.

Whatever is written here survives `kill -9` at any point, and a power cut: files appear whole or not at all, a
torn last JSONL line is dropped, a response batch is one SQLite commit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import platformdirs

from stic_eval import durable_files
from stic_eval.digests import cached_digests
from stic_eval.digests import file_sha256 as file_sha256  # noqa: PLC0414 - is imported from here
from stic_eval.errors import UserError
from stic_eval.types import Request, Response

# Bumped when the way a request becomes model input changes, so that old answers are not reused.
REQUEST_VERSION = 1

_CHUNK = 1 << 20


def cache_dir() -> Path:
    """The folder of cached responses and stages: `$STIC_EVAL_CACHE`, else the platform's cache folder."""
    chosen = os.environ.get("STIC_EVAL_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("stic-eval", False))


def file_name(name: str) -> str:
    """A benchmark's name as a file's: `lmms:mme` is `lmms%3Amme`, for not every system takes a colon."""
    return re.sub(r'[%<>:"/\\|?*\x00-\x1f]', lambda match: f"%{ord(match[0]):02X}", name)


def named_by(file: str) -> str:
    """The name that `file_name` made a file's of."""
    return unquote(file)


def file_digests(paths: Sequence[Path]) -> list[str]:
    """The sha256 of files; many or large ones are read once on a machine, as long as they stay.

    Raises:
        OSError: A file cannot be read.
    """
    return cached_digests(paths, cache_dir() / "digests.sqlite")


# ---------------------------------------------------------------- content keys


def _to_plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
    if isinstance(value, Mapping):
        return {str(k): _to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_to_plain(v) for v in value), key=repr)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)  # 1 and 1.0 are the same parameter
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"{type(value).__name__} has no content key: use JSON values, dataclasses or sets of them"
    )


def content_key(obj: Any) -> str:
    """The sha256 (64 hex digits) of `obj` as canonical JSON.

    Key order, tuple or list, `1` or `1.0` make no difference. Dataclasses count by their compared fields.

    Raises:
        TypeError: `obj` holds something that is neither JSON nor a dataclass (a path, for one: keys
            never depend on where a file lies).
        ValueError: `obj` holds NaN or infinity.
    """
    text = json.dumps(
        _to_plain(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def request_key(request: Request) -> str:
    """The content key of a request: its turns, its images by hash, and whatever of its decoding matters."""
    generation = request.generation
    decoding: dict[str, Any] = {"max_new_tokens": generation.max_new_tokens}
    if generation.temperature > 0:
        decoding |= {
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "seed": generation.seed,
        }
    if generation.stop:
        decoding["stop"] = generation.stop
    return content_key(
        {
            "version": REQUEST_VERSION,
            "messages": [[m.role, m.text] for m in request.messages],
            "images": [image.sha256 for image in request.images],
            "decoding": decoding,
        }
    )


# ---------------------------------------------------------------- files


def atomic_write(path: Path | str, data: bytes | str, *, flush: bool = True) -> None:
    """Writes a file so that it is there whole or as it was before, whatever happens meanwhile.

    Args:
        flush: To the disk, so that it is there after a power cut as well; False: for what nobody relies on.

    Raises:
        UserError: The folder cannot be written to.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        durable_files.make_folder(path.parent)
        durable_files.sweep_once(path.parent)
        temporary = durable_files.temporary_name(path)
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        if flush:
            durable_files.publish(temporary, path)
        else:
            os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            durable_files.remove(temporary)


def append_jsonl(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends rows to a JSONL file in one write and flushes it to disk.

    A torn last line, left by a kill, is cut off first.
    """
    path = Path(path)
    durable_files.make_folder(path.parent)
    is_new = not path.exists()
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    with open(path, "ab+") as file:
        _cut_torn_line(file)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        durable_files.sync(path.parent)


def _cut_torn_line(file: Any) -> None:
    end = file.seek(0, os.SEEK_END)
    position, tail = end, b""
    while position > 0 and b"\n" not in tail:
        step = min(_CHUNK, position)
        position -= step
        file.seek(position)
        tail = file.read(step)
    keep = position + tail.rfind(b"\n") + 1
    if keep < end:
        file.truncate(keep)
    file.seek(0, os.SEEK_END)


def read_jsonl(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yields the rows of a JSONL file; a missing file has none, a torn last line is dropped.

    Raises:
        UserError: A line in the middle is not a JSON object.
    """
    path = Path(path)
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # torn: the newline is the last byte of a write
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number}: not a JSON object")
            yield row


def read_object(path: Path | None) -> Mapping[str, Any]:
    """A JSON file's object; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


# ---------------------------------------------------------------- responses


class ResponseStore:
    """Answers by content key, in one SQLite file that several processes may share.

    The first answer stored under a key stays; another one under the same key is dropped.
    """

    def __init__(self, path: Path | str):
        """Opens or creates the file.

        Raises:
            UserError: The file cannot be written, or is no SQLite database.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            durable_files.make_folder(self.path.parent)
            self._db = sqlite3.connect(self.path, timeout=120, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            # With NORMAL a power cut would take the last commits, which may have cost a judge's fees. There
            # is a commit every 64 answers or 3 seconds; to flush it takes milliseconds.
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, text TEXT NOT NULL,"
                " n_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL, seconds REAL NOT NULL)"
                " WITHOUT ROWID"
            )
            # What servers give apart from the text. Beside it, so that other versions can use the file.
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS thinking (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cannot use the response cache {self.path}: {error}; delete that file or set STIC_EVAL_CACHE"
            ) from error

    def get_many(self, keys: Iterable[str]) -> dict[str, Response]:
        """The stored responses among `keys`."""
        keys = list(dict.fromkeys(keys))
        found: dict[str, Response] = {}
        with self._lock:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                for key, text, count, reason, seconds, thinking in self._db.execute(
                    "SELECT key, r.text, n_tokens, finish_reason, seconds, coalesce(t.text, '')"
                    f" FROM responses r LEFT JOIN thinking t USING (key) WHERE key IN ({marks})",
                    part,
                ):
                    found[key] = Response(text, count, reason, seconds, thinking=thinking)
        return found

    def put_many(self, responses: Mapping[str, Response], *, replace: bool = False) -> None:
        """Stores responses in one commit; keys that are there already keep their first response.

        Args:
            replace: Let the new ones take the place of those that are there.
        """
        rule = "REPLACE" if replace else "IGNORE"
        new = "" if replace else " WHERE NOT EXISTS (SELECT 1 FROM responses WHERE key = ?1)"
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if replace:
                    self._db.executemany("DELETE FROM thinking WHERE key = ?", [(key,) for key in responses])
                self._db.executemany(
                    f"INSERT OR REPLACE INTO thinking SELECT ?1, ?2{new}",
                    [(key, response.thinking) for key, response in responses.items() if response.thinking],
                )
                self._db.executemany(
                    f"INSERT OR {rule} INTO responses VALUES (?, ?, ?, ?, ?)",
                    [(k, r.text, r.n_tokens, r.finish_reason, r.seconds) for k, r in responses.items()],
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._db.execute("SELECT COUNT(*) FROM responses").fetchone()
        return int(count)

    def close(self) -> None:
        with self._lock:
            self._db.close()
