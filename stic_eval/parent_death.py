"""Processes that the system ends when the one that started them has ended, however that was."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def end_with_parent(parent: int, number: int = signal.SIGKILL) -> bool:
    """Has a signal sent to this process at its parent's end; at once if that has ended already.

    What the signal is sent at is the end of the parent's thread that has started this process.

    Args:
        parent: The process that has started this one, as that one or this one's beginning knows it.
        number: Signal to send.

    Returns:
        Whether the system does so. Linux does; elsewhere the parent has to be watched.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number) != 0:
            return False
    except (OSError, AttributeError):  # a C library without it
        return False
    if os.getppid() != parent:  # it had ended before: nothing would be sent any more
        os.kill(os.getpid(), number)
    return True
