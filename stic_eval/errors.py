"""The errors that end a command with one clear line instead of a traceback, and others' first lines."""

from __future__ import annotations

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


def first_line(error: BaseException) -> str:
    """What an error says, up to the end of its first line; of one that says nothing its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def headline(error: BaseException) -> str:
    """An error's kind and the first line of what it says, which may be nothing."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
