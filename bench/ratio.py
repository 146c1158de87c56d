"""A ratio of two times, measured side by side so that what else the machine does hits both."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median


@dataclass(frozen=True)
class Ratio:
    """The rival's median time over ours, with all times that were taken (seconds)."""

    work: str
    rival: str
    goal: float
    rival_times: tuple[float, ...]
    our_times: tuple[float, ...]

    @property
    def rival_seconds(self) -> float:
        """Median time of the rival."""
        return median(self.rival_times)

    @property
    def our_seconds(self) -> float:
        """Median time of this program."""
        return median(self.our_times)

    @property
    def value(self) -> float:
        """How many times faster this program is."""
        return self.rival_seconds / self.our_seconds

    def as_dict(self) -> dict[str, object]:
        """For the result file."""
        return {**asdict(self), "ratio": round(self.value, 2)}


def side_by_side(
    work: str, rival: str, goal: float, theirs: Callable[[], None], ours: Callable[[], None], rounds: int = 5
) -> Ratio:
    """Times both in turn, `rounds` times, after one untimed round that warms the disk cache."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for action, taken in zip((theirs, ours), times, strict=True):
            start = time.perf_counter()
            action()
            if number:
                taken.append(time.perf_counter() - start)
    return Ratio(work, rival, goal, tuple(times[0]), tuple(times[1]))


def command(argv: Sequence[str]) -> Callable[[], None]:
    """Running a command to its end; an error of its is an error of the bench."""

    def action() -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return action
