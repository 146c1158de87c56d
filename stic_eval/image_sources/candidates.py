"""What a source offers before anybody has looked whether it is an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# What people expect to be an image by its name; some of it, such as HEIC, is not read here and said so.
SUFFIXES = frozenset({
    ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".jxl", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".svg", ".tif", ".tiff", ".webp",
})  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """Something that may be an image.

    Attributes:
        source: What it is, for people and in skipped.jsonl.
        place: Its file, or what reads its bytes.
        reason: Why it is left out unseen; empty: it is looked at.
        fault: Whether something is lost where it is left out unseen.
    """

    source: str
    place: Path | Callable[[], bytes]
    reason: str = ""
    fault: bool = True


def is_named_as_image(name: str) -> bool:
    """Whether a file's name says that it is an image; macOS puts `._NAME` beside each on foreign disks."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith("._")
