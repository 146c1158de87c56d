"""Files and folders that are there whole or not at all, after `kill -9` and after a power cut.

What is published is written under a temporary name beside its place, flushed to the disk with the folders
that lead to it (fsync), and then renamed, which is flushed as well: a rename may reach the disk before what
is renamed. Temporary names say whose they are. Whoever next writes into a folder removes those of processes
that have ended, and never one of a process that lives.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from stic_eval.process_identity import born, has_ended, machine

# Of what a process of another machine, or of a container that is gone, has left nobody here knows whether it
# lives; so long after its last change it does not.
OTHERS_SECONDS = 7 * 24 * 3600.0
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-([0-9a-f]+)-([0-9a-f]+)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST = 100  # bytes of a name that are repeated in a temporary one; file systems bound names at 255
# File systems, and systems, that cannot flush a folder.
_NO_FLUSHING = {errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES, errno.EPERM}
_swept: set[Path] = set()  # folders that this process has swept, each of them once


# ---------------------------------------------------------------- temporary names


def _machine_digest() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]


def temporary_name(path: Path) -> Path:
    """A name beside a path that nothing has, and that says which process it belongs to."""
    name = path.name.encode()[:_LONGEST].decode(errors="ignore")
    owner = f"{_machine_digest()}-{os.getpid():x}-{born(os.getpid()):x}"
    return path.with_name(f".{name}.{owner}.{uuid4().hex[:8]}.tmp")


def _is_abandoned(path: Path) -> bool:
    """Whether a path is a temporary name of a process that has ended."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match[1] == _machine_digest():
        return has_ended(int(match[2], 16), int(match[3], 16))
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > OTHERS_SECONDS
    return False


def remove(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, as far as that goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sweep(folder: Path, *, deep: bool = False) -> None:
    """Removes what processes that have ended left in a folder under temporary names.

    Args:
        folder: The folder; one that is not there, or cannot be read, holds nothing.
        deep: Its subfolders are swept as well.
    """
    try:
        found = list(folder.iterdir())
    except OSError:
        return
    for path in found:
        if _is_abandoned(path):
            remove(path)
        elif deep and path.is_dir() and not path.is_symlink():
            sweep(path, deep=True)


def sweep_once(folder: Path) -> None:
    """Sweeps a folder, if this process has not done so before."""
    folder = folder.absolute()
    if folder not in _swept:
        _swept.add(folder)
        sweep(folder)


@contextmanager
def temporary_folder(beside: Path, mode: int = 0o777) -> Iterator[Path]:
    """A folder to work in beside a path, which is gone afterwards unless it has been renamed.

    Args:
        beside: The path.
        mode: Who may do what in it, as far as the process lets anybody.

    Raises:
        OSError: It cannot be created.
    """
    sweep_once(beside.parent)
    folder = temporary_name(beside)
    folder.mkdir(mode)
    try:
        yield folder
    finally:
        remove(folder)


# ---------------------------------------------------------------- on the disk


def sync(path: Path) -> None:
    """Flushes a file's content, or a folder's names, to the disk.

    Raises:
        OSError: The disk says that it failed, or there is no such file.
    """
    is_folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        if is_folder and error.errno in _NO_FLUSHING:
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if not is_folder or error.errno not in _NO_FLUSHING:
            raise
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Flushes a file, or a folder with all files and folders below it.

    Raises:
        OSError: As `sync`.
    """
    for folder, _, files in os.walk(path):
        for name in files:
            if not os.path.islink(file := os.path.join(folder, name)):
                sync(Path(file))
        sync(Path(folder))
    if not path.is_dir():
        sync(path)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it that are missing, for good.

    Raises:
        OSError: It cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync(path.parent)


def publish(work: Path, path: Path) -> None:
    """Puts a file or folder in its place, all of it flushed before and its new name afterwards.

    Args:
        work: What is complete, on the same file system.
        path: A file gives way; a folder has to be empty, or not there.

    Raises:
        OSError: It cannot be renamed or flushed.
    """
    sync_tree(work)
    os.replace(work, path)
    sync(path.parent)
