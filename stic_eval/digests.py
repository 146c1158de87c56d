"""The sha256 of files, each read once in a process as long as it stays what it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

# A file's path, and its size, times and inode when its digest was taken -> the digest. They tell a change
# that a program makes; one that the disk makes shows when the next process looks.
_known: dict[tuple[str, tuple[int, ...]], str] = {}


def file_sha256(path: Path | str) -> str:
    """The sha256 (hex) of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path: Path) -> str:
    """The same, read once in a process unless the file's path, size, times or inode change.

    Raises:
        OSError: The file cannot be read.
    """
    identity = _identity(path)
    if identity not in _known:
        _known[identity] = file_sha256(path)
    return _known[identity]


def _identity(path: Path) -> tuple[str, tuple[int, ...]]:
    stat = path.stat()
    return str(path.absolute()), (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def digests(folder: Path, files: Iterable[str]) -> dict[str, str]:
    """File below a folder -> its sha256."""
    return {file: digest(folder / file) for file in files}


def changed(folder: Path, recorded: Mapping[str, str]) -> str | None:
    """The first file below a folder whose content is not what was recorded, or that is gone; None: none."""
    for file, sha256 in recorded.items():
        try:
            if digest(folder / file) != sha256:
                return file
        except OSError:
            return file
    return None


def moved(old: Path, new: Path, files: Iterable[str]) -> None:
    """Goes on knowing the files of a folder that was renamed: what was just written is not read again."""
    for file in files:
        name, stat = _identity(new / file)
        known = _known.pop((str((old / file).absolute()), stat), None)
        if known is not None:
            _known[name, stat] = known
