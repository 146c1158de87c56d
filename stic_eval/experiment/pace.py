"""How fast work goes, as far as that can be told: what was there already says nothing of what is to come."""

from __future__ import annotations

# Answers that are cached, and steps of training that are done, come at once when work begins.
_AT_ONCE = 1.0  # seconds
# The first batch takes along what is done once: weights are loaded, kernels compiled, pictures decoded. A
# batch may come item by item; what comes within this time of its first item belongs to it.
_FIRST_BATCH = 1.0
_SHORTEST = 2.0  # seconds that a rate is measured over


class Pace:
    """The rate of one piece of work, from the times at which items of it were reported done.

    Args:
        start: When it began, in seconds of any clock.
    """

    def __init__(self, start: float) -> None:
        self._start, self._first = start, float("inf")  # when the first batch came
        self._origin = self._last = (start, 0)

    def see(self, now: float, done: int) -> None:
        """Takes in how many items are done."""
        if done > self._last[1] and now - self._start >= _AT_ONCE:
            self._first = min(self._first, now)
        self._last = (now, done)
        if now - self._first < _FIRST_BATCH:
            self._origin = self._last

    @property
    def rate(self) -> float | None:
        """Items a second; None: it cannot be told yet."""
        seconds, items = (after - before for before, after in zip(self._origin, self._last, strict=True))
        return items / seconds if self._first < float("inf") and items and seconds >= _SHORTEST else None

    def seconds_left(self, now: float, total: int | None) -> float | None:
        """Seconds until all items are done; None: it cannot be told yet."""
        if self.rate is None or total is None:
            return None
        return max(0.0, (total - self._last[1]) / self.rate - (now - self._last[0]))

    def text(self, now: float, total: int | None) -> str:
        """Rate and time that is left, for people; empty: neither can be told yet."""
        if self.rate is None:
            return ""
        left = self.seconds_left(now, total)
        return f"{self.rate:.1f}/s" + (f", {_clock(left)} left" if left is not None else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
