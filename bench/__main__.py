"""`make bench`: measures this program, prints what came out, writes bench/results/*.json.

`python -m bench NAME` runs only the benches that are named.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from bench import busy, cluster, generation, load, memory, pocket, scoring, sharing, startup, training
from bench.generation import Compared
from bench.pocket import Measured
from bench.ratio import Ratio

RESULTS = Path(__file__).parent / "results"
BENCHES: dict[str, Callable[[], Sequence[Ratio]]] = {
    "startup": startup.measure,
    "sharing": sharing.measure,
    "training": training.measure,
    "generation": generation.measure,
    "cluster": cluster.measure,
}
CEILINGS: dict[str, Callable[[], Sequence[Measured]]] = {
    "scoring": scoring.measure,
    "pocket": pocket.measure,
    "overhead": generation.overhead,
    "memory": memory.measure,
    "busy": busy.measure,
    "load": load.measure,
}
NAMES = (*BENCHES, *CEILINGS)


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    import psutil

    packages = ("stic-eval", "torch", "transformers", "trl", "ray")
    there = {name: version(name) for name in packages if name != "ray" or find_spec(name)}
    return {
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": there,
    }


def write(name: str, facts: Mapping[str, object], measured: Mapping[str, object]) -> None:
    """Writes bench/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    data = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": facts, **measured}
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def main(names: Sequence[str]) -> None:
    """Runs benches in turn: ratios to rivals measured in this very run, then figures under ceilings."""
    from rich.console import Console
    from rich.table import Table

    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        sys.exit(f"no bench {', '.join(unknown)}: there are {', '.join(NAMES)}")
    chosen = names or NAMES
    table = Table("work", "rival", "rival s", "ours s", "ratio", "goal", "same answers")
    for name in filter(BENCHES.__contains__, chosen):
        facts = machine()
        ratios = BENCHES[name]()
        write(name, facts, {"ratios": [ratio.as_dict() for ratio in ratios]})
        for ratio in ratios:
            row = (f"{ratio.rival_seconds:.2f}", f"{ratio.our_seconds:.2f}", f"{ratio.value:.1f}x")
            same = f"{ratio.equal:,} of {ratio.answers:,}" if isinstance(ratio, Compared) else ""
            table.add_row(ratio.work, ratio.rival, *row, f">= {ratio.goal:g}x", same)
    if table.rows:
        Console().print(table)
    table = Table("work", "measured", "ceiling")
    for name in filter(CEILINGS.__contains__, chosen):
        facts = machine()
        figures = CEILINGS[name]()
        write(name, facts, {"figures": [figure.as_dict() for figure in figures]})
        for f in figures:
            table.add_row(f.work, f"{f.value:.1f} {f.unit}", f"< {f.ceiling:g} {f.unit}")
    if table.rows:
        Console().print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
