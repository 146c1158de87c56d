"""What others wrote - models, files, data sets - on its way to a terminal or into a table."""

from __future__ import annotations

import re


def printable(text: str) -> str:
    """Text in which control characters, which could drive a terminal, are visible; lines and tabs stay."""
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)
    return shown.encode("utf-8", "backslashreplace").decode()  # names of files may be no text at all
