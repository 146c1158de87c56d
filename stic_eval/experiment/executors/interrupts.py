"""Ctrl-C and a scheduler's SIGTERM, held back from code that must not be left in the middle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def held_back() -> Iterator[None]:
    """Has whatever interrupts this process do so at the end of the block, which should last a second at most.

    Ray calls back into Python while it waits, where an exception is printed with its traceback or lost, and
    what it has begun is not ended. Signals that nobody handles, or that are ignored, stay as they are; so do
    all of them outside of the main thread, which they never interrupt.
    """
    came: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, lambda *got: came.append(got))
                handlers[number] = handler
    except ValueError:  # not in the main thread
        pass
    try:
        yield
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)
        for which, frame in came[:1]:
            handlers[which](which, frame)
