"""Servers that are one model: which of them is asked next, and which rests because it has failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_REST, _LONGEST = 2.0, 60.0  # seconds that one rests after its first failure, doubled with each; at most


@dataclass
class Replica:
    """A server.

    Attributes:
        base_url: Its address.
        url: Where chat completions are posted to.
        busy: Requests under way.
        misses: Failures in a row.
        rests_until: When it may be asked again, by the clock.
    """

    base_url: str
    url: str
    busy: int = 0
    misses: int = 0
    rests_until: float = 0.0


class Replicas:
    """Several servers; usable by many threads.

    Args:
        found: (address, where chat completions are posted to) of each.
        clock: In seconds; for tests.
    """

    def __init__(self, found: Sequence[tuple[str, str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._all = [Replica(base_url, url) for base_url, url in found]
        self._clock, self._lock = clock, threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    @contextmanager
    def borrow(self) -> Iterator[Replica]:
        """The least loaded of those that do not rest; if all do, the one that has done so for longest."""
        now = self._clock()
        with self._lock:
            awake = [one for one in self._all if one.rests_until <= now]
            if awake:
                chosen = min(awake, key=lambda one: one.busy)
            else:
                chosen = min(self._all, key=lambda one: one.rests_until)
            chosen.busy += 1
        try:
            yield chosen
        finally:
            with self._lock:
                chosen.busy -= 1

    def succeeded(self, replica: Replica) -> None:
        """Takes down that one has answered."""
        with self._lock:
            replica.misses, replica.rests_until = 0, 0.0

    def failed(self, replica: Replica) -> bool:
        """Has one rest that has failed, and tells whether another is awake, which can be asked at once."""
        now = self._clock()
        with self._lock:
            replica.misses += 1
            replica.rests_until = now + min(_LONGEST, _REST * 2.0 ** (replica.misses - 1))
            return any(one.rests_until <= now for one in self._all)
