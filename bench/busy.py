"""What other work on the same cores costs: an evaluation beside a process that spins on every core.

Two that share a core have half of it each, so that twice the time is fair; threads that spin while they wait
for each other took many times as long. Once as a command, and once by the Python API in a process whose torch
was loaded, and whose threads were started, before `stic_eval` was imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from bench.pocket import Measured, watched
from stic_eval.waiting_threads import VARIABLES

CEILING = 2.5
ROUNDS, LIMIT = 3, 40  # rows of each benchmark
# The size of torch's own products in an evaluation: enough for all its threads.
CALL = f"""
import torch
torch.ones(1024, 1024) @ torch.ones(1024, 1024)
import stic_eval
stic_eval.evaluate("pocket", limit={LIMIT}, output="api", quiet=True)
"""


@contextmanager
def spinning() -> Iterator[None]:
    """As many processes as cores, each as busy as it can be."""
    argv = [sys.executable, "-c", "while True: pass"]
    started = [subprocess.Popen(argv) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def measure() -> list[Measured]:
    """Times both, idle and busy in turn, each from an empty cache.

    Raises:
        RuntimeError: A run failed.
    """
    command = str(Path(sys.executable).parent / "stic-eval")
    works = {
        "an evaluation, beside a process that spins on every core": [
            command, "eval", "--model", "pocket", "--limit", str(LIMIT), "--output", "cli", "--quiet",
        ],
        "the same by the Python API, torch loaded before": [sys.executable, "-c", CALL],
    }  # fmt: skip
    found = []
    for work, argv in works.items():
        ratios = []
        for _ in range(ROUNDS):
            idle = _seconds(argv)
            with spinning():
                ratios.append(_seconds(argv) / idle)
        found.append(Measured(work, "times as long", median(ratios), CEILING))
    return found


def _seconds(argv: list[str]) -> float:
    own = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    with tempfile.TemporaryDirectory() as name:
        environment = {**own, "STIC_EVAL_CACHE": str(Path(name) / "cache"), "HF_HUB_OFFLINE": "1"}
        return watched(argv, Path(name), environment)[0]
