"""The two errors that end a command with one clear line instead of a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: a flag, a file, a row.

    The message is one line that names it and says what to do. The command exits with 2.
    """


class RunError(Exception):
    """A run that failed although its input was fine. The command exits with 1."""
