"""What a power cut leaves of a folder: nothing is sure to be there that was not flushed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


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
        for name, inner in self._names(inode, survives("names")).items():
            if self._is_folder(inner):
                self._leave_folder(inner, target / name, survives)
            elif not name.endswith("-shm"):
                self._leave_file(inner, target / name, survives("content"))

    def _names(self, inode: int, survived: bool) -> dict[str, int]:
        record = self.flushed / f"{inode}.names"
        if inode in self._paths and survived:
            return {path.name: path.lstat().st_ino for path in self._paths[inode].iterdir()}
        if not record.exists():
            return {}
        lines = [line.split(" ", 1) for line in record.read_text().split("\0") if line]
        return {name: int(inner) for inner, name in lines if name not in (".", "..")}

    def _is_folder(self, inode: int) -> bool:
        path = self._paths.get(inode)
        if path is not None:  # the record may be of a folder that had the number before
            return path.is_dir()
        return (self.flushed / f"{inode}.names").exists()

    def _leave_file(self, inode: int, target: Path, survived: bool) -> None:
        record, path = self.flushed / str(inode), self._paths.get(inode)
        if survived and path is not None:
            shutil.copyfile(path, target)
        elif record.exists():
            shutil.copyfile(record, target)
        else:
            target.touch()


def flush_all(folder: Path, flushed: Path) -> None:
    """Records a folder as flushed as it is: what was there before anything began."""
    flushed.mkdir(exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        inode = path.lstat().st_ino
        if path.is_dir():
            names = "".join(f"{inner.lstat().st_ino} {inner.name}\0" for inner in path.iterdir())
            (flushed / f"{inode}.names").write_text(names)
        else:
            shutil.copyfile(path, flushed / str(inode))
