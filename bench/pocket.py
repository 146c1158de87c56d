"""The promise of `make run`: STIC on the embedded model in minutes, a second run in seconds.

`stic-eval run --method stic` as a user types it (the pocket preset, seven benchmarks), from an empty
cache in a folder of its own, then the same command again. No rival: times and memory against ceilings,
which hold for two cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# Seconds, and gigabytes (10^9 bytes) of resident memory.
FIRST_SECONDS, SECOND_SECONDS, PEAK_GB = 360.0, 10.0, 3.0
DONE = (0, 3)  # 3: rows are unscored


@dataclass(frozen=True)
class Measured:
    """A quantity and what it has to stay below."""

    work: str
    unit: str
    value: float
    ceiling: float

    def as_dict(self) -> dict[str, object]:
        """For the result file."""
        return {**asdict(self), "value": round(self.value, 3), "below": self.value < self.ceiling}


def watched(argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[float, float, str]:
    """Runs a command in a folder.

    Returns:
        Seconds, the command's largest resident memory in GB as the kernel counts it (of the largest of
        its processes), and its standard output.

    Raises:
        RuntimeError: The command failed; with the last lines that it wrote.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(argv, cwd=folder, env=dict(environment), stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)  # unlike getrusage: of this child alone
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        said, complaint = out.read().decode(), err.read().decode(errors="replace")
    if process.returncode not in DONE:
        raise RuntimeError(f"{' '.join(argv)}: exit code {process.returncode}\n{complaint[-2000:]}")
    scale = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB elsewhere
    return seconds, usage.ru_maxrss * scale / 1e9, said


def measure() -> list[Measured]:
    """Runs the command twice.

    Raises:
        RuntimeError: A run failed, or the second printed another table.
    """
    argv = [str(Path(sys.executable).parent / "stic-eval"), "run", "--method", "stic", "--quiet"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {**os.environ, "STIC_EVAL_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
        first_seconds, first_peak, table = watched(argv, folder, environment)
        second_seconds, second_peak, again = watched(argv, folder, environment)
    if again != table:
        raise RuntimeError(f"the second run printed another table:\n{table}\n{again}")
    return [
        Measured("run --method stic, empty cache", "s", first_seconds, FIRST_SECONDS),
        Measured("the same again", "s", second_seconds, SECOND_SECONDS),
        Measured("peak memory", "GB", max(first_peak, second_peak), PEAK_GB),
    ]
