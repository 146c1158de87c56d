"""A page of which a command writes parts: written anew, or checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path


def rewrite(path: Path, page: Callable[[str], str], argv: Sequence[str]) -> int:
    """Writes a page anew from what it is now; with `--check` it only looks.

    Returns:
        The command's exit code: 1 if the page was looked at and is not up to date.
    """
    before = path.read_text(encoding="utf-8")
    after = page(before)
    if "--check" in argv:
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of a page, cells with their bars escaped."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
