"""Which process something on disk belongs to, and whether that process has ended."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil


@cache
def machine() -> str:
    """What tells this system's process numbers from those of others; the host's name stands first."""
    found = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            found.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text().strip())
    return " ".join(found)


def born(pid: int) -> int:
    """Ticks from the system's start to a process's: a clock that is set changes nothing of them.

    0 where the system does not say: of the next process with that number it is not known then that it is
    another.
    """
    try:
        # The second field is the name in brackets, which may hold anything; this is the 22nd (proc(5)).
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def has_ended(pid: int, started: int) -> bool:
    """Whether a process of this machine has ended.

    Args:
        pid: Its number.
        started: What `born` said of it; 0: not known.
    """
    try:
        process = psutil.Process(pid)
        now = born(pid)
        another = 0 not in (now, started) and now != started
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
