"""What others wrote - models, files, data sets - on its way to a terminal or into a table."""

from __future__ import annotations

import re
import unicodedata

_UNSEEN = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")


def printable(text: str) -> str:
    """Text in which control characters, which could drive a terminal, are visible; lines and tabs stay.

    So are those that turn the direction of writing, or that some terminals end a line at, and could make a
    line read as another.
    """
    if text.isprintable():  # as nearly all are, which takes a tenth of the time
        return text
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)
    shown = _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", shown)
    return shown.encode("utf-8", "backslashreplace").decode()  # names of files may be no text at all


def csv_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula; control characters are visible, lines stay lines."""
    shown = printable(text)
    # What is not seen in front of a sign hides it from a look, and not from every spreadsheet.
    first = next((c for c in text if not (c.isspace() or unicodedata.category(c) in ("Cc", "Cf"))), "")
    # Full-width and small forms of the signs are read as the signs.
    formula = bool(first) and unicodedata.normalize("NFKC", first) in ("=", "+", "-", "@")
    return f"'{shown}" if formula or text.startswith(("\t", "\r")) else shown
