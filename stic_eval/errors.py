"""The errors that end a command with one clear line instead of a traceback, and others' first lines."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any


class UserError(Exception):
    """Something the user can put right: a flag, a file, a row.

    The message is one line that names it and says what to do. The command exits with 2.

    Attributes:
        result: Of a run that got further: what is done (`RunResult`); None: nothing is.
    """

    result: Any = None


class RunError(Exception):
    """A run that failed although its input was fine. The command exits with 1.

    Attributes:
        result: What is done all the same (`RunResult`); None: nothing is.
    """

    result: Any = None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, or a scheduler's SIGTERM, with one line that says what is kept. The command exits with 130.

    Attributes:
        result: What is done (`RunResult`); None: nothing is.
    """

    result: Any = None


NO_SPACE = "no space is left there; free some, and start the same command again: it goes on"
ELSEWHERE = "make it writable, or set STIC_EVAL_CACHE to another folder"  # of what a cache cannot take
SHOWN = 200  # characters of a quoted value, and of a word in a message
_LINE = 500  # of what somebody else's error says


def shorten(text: str, most: int = SHOWN) -> str:
    """A text of at most about so many characters; of a longer one the beginning, and how long it is."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def count_of(n: int, what: str) -> str:
    """A number of things, e.g. `1 row`, `12 rows`."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def quote(value: object, most: int = SHOWN) -> str:
    """A value as Python writes it, for a message: cut, and whatever it is."""
    try:
        # Of a text that is far too long only what is shown is written.
        text = repr(value[: most + 1] if isinstance(value, str) else value)
    except Exception:  # of a plug-in's object, or an integer with too many digits
        return f"a {type(value).__name__}"
    if isinstance(value, str) and len(value) > most:
        return f"{text[:most]}... ({len(value):,} characters)"
    return shorten(text, most)


def fault_of(detail: Mapping[str, Any]) -> str:
    """What pydantic says of one field, without its own words about where that comes from; cut.

    Args:
        detail: One of `ValidationError.errors()`.
    """
    said = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    said = (said.strip().splitlines() or [""])[0]
    return shorten(said[:1].lower() + said[1:], _LINE)


_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # not the user's mistake
# Where a library has made a text of the error: SQLite, safetensors, datasets, and torch, which says no more.
_SAID_FULL = re.compile(
    r"os error 28\b|No space left on device|database or disk is full|Not enough disk space"
    r"|PytorchStreamWriter failed writing|unexpected pos \d+ vs \d+",
    re.IGNORECASE,
)


def write_failure(path: object, error: OSError, advice: str = "") -> UserError | RunError:
    """What keeps a file from being written, in a line that says what to do.

    Args:
        advice: Where it is no full disk.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"cannot write {path}: {NO_SPACE}")
    kind = RunError if error.errno in _STORAGE else UserError
    return kind(f"cannot write {path}: {error.strerror or error}{advice and f'; {advice}'}")


def storage_failure(error: BaseException) -> str:
    """What an error that nobody has caught says of a full or failing disk; empty if it is of another kind."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _STORAGE:
            where = seen.filename or "a file"
            full = seen.errno in (errno.ENOSPC, errno.EDQUOT)
            return f"cannot write {where}: {NO_SPACE if full else seen.strerror}"
        if not isinstance(seen, OSError) and _SAID_FULL.search(_said(seen)):
            return f"{_said(seen)}: {NO_SPACE}"
        seen = seen.__cause__ or seen.__context__
    return ""


class Stopped(Exception):
    """What code of others has raised that is no `Exception`; `__cause__` is it."""


class Contained:
    """Has code of others, within `with`, raise what `except Exception` takes; Ctrl-C stays Ctrl-C.

    Nothing may be yielded inside, for `GeneratorExit` is what ends a generator.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and not isinstance(error, (Exception, KeyboardInterrupt)):
            raise Stopped(headline(error)).with_traceback(trace) from error


def _said(error: BaseException) -> str:
    """The first line of what an error says, which may be nothing; it may be anybody's class."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "what it says cannot be read"
    return shorten((text[: 100 * _LINE].strip().splitlines() or [""])[0], _LINE)


def first_line(error: BaseException) -> str:
    """What an error says, up to the end of its first line; of one that says nothing its kind."""
    return _said(error) or type(error).__name__


def headline(error: BaseException) -> str:
    """An error's kind and the first line of what it says, which may be nothing."""
    if isinstance(error, Stopped) and error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {_said(error)}"
