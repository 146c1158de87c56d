"""How long a person waits for help: `trl dpo --help` against `stic-eval run --help`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from bench.ratio import Ratio, command, side_by_side

TASK_MANAGER = "from lmms_eval.tasks import TaskManager; TaskManager()"


def measure() -> list[Ratio]:
    """Times the start of this program and of its rivals; lmms-eval only where it is installed."""
    folder = Path(sys.executable).parent
    ours = str(folder / "stic-eval")
    ratios = [
        side_by_side(
            "help of the main command",
            "trl dpo --help",
            8.0,
            command([str(folder / "trl"), "dpo", "--help"]),
            command([ours, "run", "--help"]),
        )
    ]
    if find_spec("lmms_eval"):
        ratios.append(
            side_by_side(
                "listing benchmarks",
                "lmms-eval's TaskManager",
                20.0,
                command([sys.executable, "-c", TASK_MANAGER]),
                command([ours, "ls", "benchmarks"]),
                rounds=3,
            )
        )
    return ratios
