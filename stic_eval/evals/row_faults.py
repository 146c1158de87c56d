"""What does not fit in a row, told by column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from stic_eval.errors import UserError, first_line, headline, quote
from stic_eval.errors import shorten as shorten_text
from stic_eval.images import ImageError

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that does not fit.

    Attributes:
        column: The column as the file calls it, e.g. `metadata.task`; empty if it is the whole row.
        message: What is wrong with it; `is missing` where there is no such column.
    """

    column: str
    message: str

    def __str__(self) -> str:
        if not self.column:
            return self.message
        if self.message.startswith("is "):
            return f'column "{self.column}" {self.message}'
        return f'column "{self.column}": {self.message}'


# What a row that does not fit makes a benchmark raise; anything else is a mistake in its code.
RAISED = (ImageError, KeyError, TypeError, ValueError, IndexError, AttributeError)


def faults(error: Exception) -> list[Fault]:
    """The faults behind an error that a row raised, in the order of the benchmark's columns."""
    if isinstance(error, ValidationError):
        return [_of_field(detail) for detail in error.errors(include_url=False)]
    if isinstance(error, ImageError):
        return [Fault("image", f"{error.source}: {error.reason}")]
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], (str, int)):
        return [Fault(_first_line(str(error.args[0])), "is missing")]
    if not isinstance(error, RAISED):
        return [Fault("", headline(error).removesuffix(": "))]  # whose words alone mean little
    try:
        text = _first_line(str(error))
    except Exception:  # of a class of the benchmark's own
        text = ""
    return [Fault("", text or first_line(error))]


def _of_field(detail: Mapping[str, Any]) -> Fault:
    column = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return Fault(column, "is missing")
    cause = detail.get("ctx", {}).get("error")
    if detail["type"] in ("value_error", "assertion_error") and cause is not None:
        # A validator's own words, which know better than we whether the value belongs in them.
        return Fault(column, _first_line(str(cause)))
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    return Fault(column, _first_line(f"{message}, not {shorten(detail['input'])}"))


def shorten(value: Any) -> str:
    """A value as text of at most 60 characters."""
    text = quote(value, 10 * _SHOWN)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _first_line(text: str) -> str:
    return shorten_text(" ".join(text.split()), 500)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Turns what a row that does not fit raises into one line that names the row and the column.

    Raises:
        UserError: The block raised one of `RAISED`.
    """
    try:
        yield
    except RAISED as error:
        raise UserError(fault_line(where, error)) from error


def fault_line(where: str, error: Exception) -> str:
    """One line that names a row, and what is wrong with it."""
    found = faults(error)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{where}: {found[0]}{more}"
