"""What a command does to the machine, seen by Python's audit hook: files, programs, connections."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Events that name one path to change, or two.
_CHANGES = {
    "os.remove": 1,
    "os.rename": 2,
    "os.mkdir": 1,
    "os.rmdir": 1,
    "os.link": 2,
    "os.symlink": 2,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
    "os.utime": 1,
    "shutil.rmtree": 1,
    "shutil.move": 2,
}
_RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.startfile", "subprocess.Popen", "pty.spawn")
# What the platform's name and the fonts for figures are asked of, with arguments that no input is part of.
_KNOWN = (["uname", "-p"], ["fc-list", "--help"], ["fc-list", "--format=%{file}\\n"])
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Watch:
    """What is allowed while a block runs, and what was done all the same.

    Attributes:
        folders: Where files may be written.
        secrets: Files that may not even be read.
        ports: Of this machine, that may be connected to.
        seen: What was done and is not allowed, one line each.
    """

    folders: Sequence[str]
    secrets: Sequence[str] = ()
    ports: Sequence[int] = ()
    seen: list[str] = field(default_factory=list)

    def see(self, event: str, args: tuple[Any, ...]) -> None:
        """Takes in one event."""
        if event == "open":
            path, mode, flags = args
            if not isinstance(path, (str, bytes)):
                return  # a handle that is open already
            where = os.path.abspath(os.fsdecode(path))
            if where in self.secrets:
                self.seen.append(f"reads {where}")
            writes = flags & _WRITES if isinstance(flags, int) else set(str(mode)) & set("wax+")
            if writes and not self._may_write(where):
                self.seen.append(f"writes {where}")
        elif event in _CHANGES:
            for path in args[: _CHANGES[event]]:
                if isinstance(path, (str, bytes, os.PathLike)):
                    where = os.path.abspath(os.fsdecode(path))
                    # `dir_fd` is used by shutil.rmtree, whose own event names the folder.
                    relative = (
                        not os.path.isabs(os.fsdecode(path)) and isinstance(args[-1], int) and args[-1] >= 0
                    )
                    if not relative and not self._may_write(where):
                        self.seen.append(f"{event} {where}")
        elif event in _RUNS and not (event == "subprocess.Popen" and _is_known(args[1])):
            self.seen.append(f"{event} {args[:2]!r}")
        elif event == "socket.connect":
            address = args[1]
            if not (
                isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1") and address[1] in self.ports
            ):
                self.seen.append(f"connects to {address!r}")
        elif event == "pickle.find_class":
            self.seen.append(f"unpickles {args!r}")

    def _may_write(self, path: str) -> bool:
        return path.startswith(("/dev/", "/proc/self/")) or any(
            path == folder or path.startswith(folder + os.sep) for folder in self.folders
        )


def _is_known(command: Sequence[str]) -> bool:
    # Python itself, without any file of the working directory, compares an adapter's patterns.
    return list(command) in _KNOWN or list(command[:4]) == [sys.executable, "-I", "-S", "-c"]


_watches: list[Watch] = []
_hooked: list[bool] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    for watch in _watches:
        watch.see(event, args)


@contextmanager
def watching(
    folders: Sequence[Path], secrets: Sequence[Path] = (), ports: Sequence[int] = ()
) -> Iterator[Watch]:
    """Watches what this process does while the block runs; a hook cannot be taken away, so one stays."""
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    watch = Watch([str(folder) for folder in folders], [str(path) for path in secrets], ports)
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)
