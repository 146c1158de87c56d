"""What outlives a process on disk: content keys, atomic files, cached responses; `stage_store.py` has stages.

Whatever is written here survives `kill -9` at any point, and a power cut: files appear whole or not at all, a
torn last JSONL line is dropped, a response batch is one SQLite commit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import platformdirs

from stic_eval import durable_files, salvage
from stic_eval.digests import cached_digests
from stic_eval.digests import file_sha256 as file_sha256  # noqa: PLC0414 - is imported from here
from stic_eval.errors import ELSEWHERE, UserError, write_failure
from stic_eval.response_rows import get_rows, prepare, put_rows
from stic_eval.types import Request, Response

# Bumped when the way a request becomes model input changes, so that old answers are not reused.
REQUEST_VERSION = 1

_CHUNK = 1 << 20
T = TypeVar("T")


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


def atomic_write(path: Path | str, data: bytes | str | Iterator[bytes], *, flush: bool = True) -> None:
    """Writes a file so that it is there whole or as it was before, whatever happens meanwhile.

    Args:
        data: What it holds, also piece by piece.
        flush: To the disk, so that it is there after a power cut as well; False: for what nobody relies on.

    Raises:
        UserError: The folder cannot be written to.
        RunError: No space is left, or the disk fails.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        durable_files.make_folder(path.parent)
        durable_files.sweep_once(path.parent)
        temporary = durable_files.temporary_name(path)
        with temporary.open("wb") as file:
            if isinstance(data, Iterator):
                file.writelines(data)
            else:
                file.write(data.encode() if isinstance(data, str) else data)
        if flush:
            durable_files.publish(temporary, path)
        else:
            os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise write_failure(path, error) from error
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
        """Opens or creates the file; what can be read of a damaged one is put into a new one.

        Raises:
            UserError: The file cannot be written.
            RunError: No space is left, or the disk fails.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._inode = 0  # of the file that is open
        self._do(lambda db: None)

    def _open(self) -> sqlite3.Connection:
        try:
            durable_files.make_folder(self.path.parent)
        except OSError as error:
            raise write_failure(self.path.parent, error, ELSEWHERE) from error
        db = self._db = sqlite3.connect(self.path, timeout=120, isolation_level=None, check_same_thread=False)
        self._inode = self._inode_there()
        prepare(db)
        self._inode = self._inode_there()
        return db

    def _inode_there(self) -> int:
        """Of the file that lies there now, which may be another than is open; 0: none does."""
        try:
            return os.stat(self.path).st_ino
        except OSError:
            return 0

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Works with the database: one that was taken away meanwhile is begun anew, a damaged one mended.

        Raises:
            UserError: The file cannot be written.
            RunError: No space is left, or the disk fails.
        """
        with self._lock:
            try:
                if self._db is not None and self._inode_there() != self._inode:
                    self._db.close()
                    self._db = None
                return work(self._db or self._open())
            except sqlite3.Error as error:
                if not salvage.is_damage(error):
                    raise salvage.failure_of(self.path, error) from error
            try:
                return work(self._mend())
            except sqlite3.Error as error:
                raise salvage.failure_of(self.path, error) from error

    def _mend(self) -> sqlite3.Connection:
        """Puts what can be read of a damaged file into a new one, if no other process has done that."""
        if self._db is not None:
            self._db.close()
        try:
            aside = salvage.set_aside(self.path) if self._inode_there() == self._inode else None
        except OSError as error:
            raise write_failure(self.path, error, ELSEWHERE) from error
        db = self._open()
        if aside is not None:
            logging.getLogger("stic_eval.run").warning(
                "%s was damaged: %s answers could be read and are kept; others will be asked for again "
                "(the damaged file is %s)", self.path, f"{_take(db, aside):,}", aside.name,
            )  # fmt: skip
        return db

    def mend(self) -> None:
        """Puts what can be read of the file into a new one, whatever is wrong with it.

        Raises:
            UserError: The folder cannot be written.
            RunError: No space is left, or the disk fails.
        """
        with self._lock:
            try:
                self._mend()
            except sqlite3.Error as error:
                raise salvage.failure_of(self.path, error) from error

    def take_from(self, aside: Path) -> int:
        """Puts what can be read of a file that was set aside here, as a salvage that was killed has not.

        Returns:
            How many answers were not here.
        """
        before = len(self)
        self._do(lambda db: _take(db, aside))
        return len(self) - before

    def get_many(self, keys: Iterable[str]) -> dict[str, Response]:
        """The stored responses among `keys`."""
        wanted = list(dict.fromkeys(keys))
        return self._do(lambda db: get_rows(db, wanted))

    def put_many(self, responses: Mapping[str, Response], *, replace: bool = False) -> None:
        """Stores responses in one commit; keys that are there already keep their first response.

        Args:
            replace: Let the new ones take the place of those that are there.
        """
        self._do(lambda db: put_rows(db, responses, replace))

    def __len__(self) -> int:
        count: int = self._do(lambda db: db.execute("SELECT COUNT(*) FROM responses").fetchone()[0])
        return count

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()


def _take(db: sqlite3.Connection, aside: Path) -> int:
    """Puts the answers that can be read of a damaged file into a database; how many they are."""
    rows, count = salvage.readable_rows(aside), 0
    while part := dict(islice(rows, 1000)):
        put_rows(db, part)
        count += len(part)
    return count
