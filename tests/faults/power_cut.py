"""What a power cut leaves of a folder: nothing is sure to be there that was not flushed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A name in a folder."""

    inode: int
    is_folder: bool
    name: str


@dataclass(frozen=True)
class Disk:
    """A folder as it seems to be, and what of it was flushed.

    Attributes:
        folder: The folder as it was when the power was cut.
        flushed: What `file_operations.c` has recorded of it.
    """

    folder: Path
    flushed: Path

    @cached_property
    def _paths(self) -> dict[int, Path]:
        """Inode -> path, of what is there now."""
        return {path.lstat().st_ino: path for path in (self.folder, *self.folder.rglob("*"))}

    def leave(self, target: Path, survives: Callable[[str], bool]) -> None:
        """Writes what is left of the folder.

        Args:
            target: A new folder.
            survives: Whether what was not flushed of something has reached the disk all the same: asked of
                `names` for each folder, of `content` for each file.
        """
        self._leave_folder(self.folder.stat().st_ino, target, survives)

    def _leave_folder(self, inode: int, target: Path, survives: Callable[[str], bool]) -> None:
        target.mkdir()
        for entry in self._entries(inode, survives("names")):
            if entry.is_folder:
                self._leave_folder(entry.inode, target / entry.name, survives)
            elif not entry.name.endswith("-shm"):
                self._leave_file(entry.inode, target / entry.name, survives("content"))

    def _entries(self, inode: int, survived: bool) -> list[Entry]:
        record = self.flushed / f"{inode}.names"
        if inode in self._paths and survived:
            return entries(self._paths[inode])
        return read_entries(record) if record.exists() else []

    def _leave_file(self, inode: int, target: Path, survived: bool) -> None:
        record, path = self.flushed / str(inode), self._paths.get(inode)
        if survived and path is not None:
            shutil.copyfile(path, target)
        elif record.exists():
            shutil.copyfile(record, target)
        else:
            target.touch()


def entries(folder: Path) -> list[Entry]:
    """What a folder holds now."""
    return [Entry(path.lstat().st_ino, path.is_dir(), path.name) for path in folder.iterdir()]


def read_entries(record: Path) -> list[Entry]:
    """What a folder held when it was flushed."""
    lines = [line.split(" ", 2) for line in record.read_text().split("\0") if line]
    return [Entry(int(inode), kind == "d", name) for inode, kind, name in lines if name not in (".", "..")]


def flush_all(folder: Path, flushed: Path) -> None:
    """Records a folder as flushed as it is: what was there before anything began."""
    flushed.mkdir(exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        inode = path.lstat().st_ino
        if path.is_dir():
            lines = [f"{one.inode} {'d' if one.is_folder else 'f'} {one.name}\0" for one in entries(path)]
            (flushed / f"{inode}.names").write_text("".join(lines))
        else:
            shutil.copyfile(path, flushed / str(inode))
