"""What workers save, and what Ray costs: twelve cells by one and two workers, here and on a cluster.

The cells are those of `bench.sharing`. Every side begins with an empty cache, and Ray's with starting it.
Cores that other processes use show in every ratio: nothing else should run. `python -m bench.cluster --small`
does the same at a size of seconds, says what came out and writes nothing: whether it works, not how fast.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.ratio import Ratio
from bench.sharing import COMPONENTS, LIMIT, SEEDS, SIZE, run_command

SMALL = (
    "-o",
    "stage1.images=8",
    "-o",
    "stage2.items=8",
    "--limit",
    "2",
    "--benchmarks",
    "textvqa",
    "--quiet",
)
SIDES = {
    "local, 1 worker": ("--jobs", "1"),
    "local, 2 workers": ("--jobs", "2"),
    "Ray, 1 worker": ("--cluster", "ray", "--jobs", "1"),
    "Ray, 2 workers": ("--cluster", "ray", "--jobs", "2"),
}
# (ours, rival, goal): two workers on two cores, and Ray's start and messages against processes.
COMPARED = (
    ("local, 2 workers", "local, 1 worker", 1.5),
    ("Ray, 2 workers", "Ray, 1 worker", 1.4),
    ("Ray, 1 worker", "local, 1 worker", 0.8),
    ("Ray, 2 workers", "local, 2 workers", 0.8),
)


def measure(size: Sequence[str] = (*SIZE, *LIMIT)) -> list[Ratio]:
    """Runs every side once.

    Raises:
        RuntimeError: A command failed, or two sides give different tables.
    """
    spec = {"vary": {"components": {label: sets for label, (_, sets) in COMPONENTS.items()}}}
    took: dict[str, float] = {}
    tables = set()
    with tempfile.TemporaryDirectory() as name:
        for side, options in SIDES.items():
            here = Path(name) / side.replace(", ", "-").replace(" ", "-")
            here.mkdir()
            (here / "figure5.yaml").write_text(json.dumps(spec))
            command = [
                str(Path(sys.executable).parent / "stic-eval"),
                "ablate",
                "figure5.yaml",
                *size,
                *options,
            ]
            seeds = ",".join(map(str, SEEDS))
            took[side] = run_command([*command, "--seeds", seeds, "--output", "run"], here)
            rows = json.loads((here / "run" / "table.json").read_text())["rows"]
            tables.add(json.dumps(rows, sort_keys=True))
    if len(tables) > 1:
        raise RuntimeError("the sides give different tables")
    work = "12 cells: components x seeds"
    return [
        Ratio(f"{work}, {ours}", rival, goal, (took[rival],), (took[ours],)) for ours, rival, goal in COMPARED
    ]


def main(argv: Sequence[str]) -> None:
    """Says what came out at a small size."""
    if list(argv) != ["--small"]:
        sys.exit("python -m bench.cluster --small, or python -m bench cluster to measure")
    for ratio in measure(SMALL):
        print(f"{ratio.work} against {ratio.rival}: {ratio.our_seconds:.1f} s, {ratio.rival_seconds:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
