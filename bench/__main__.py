"""`make bench`: runs every benchmark of this program, prints the ratios, writes bench/results/*.json."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import startup
from bench.ratio import Ratio

RESULTS = Path(__file__).parent / "results"
BENCHES: dict[str, Callable[[], Sequence[Ratio]]] = {"startup": startup.measure}


def machine() -> dict[str, object]:
    """What the numbers were measured on."""
    import psutil

    packages = ("stic-eval", "torch", "transformers", "trl")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def main() -> None:
    """Runs all benches in turn; each line is a ratio measured in this very run."""
    from rich.console import Console
    from rich.table import Table

    RESULTS.mkdir(exist_ok=True)
    table = Table("work", "rival", "rival s", "ours s", "ratio", "goal")
    for name, measure in BENCHES.items():
        facts = machine()
        ratios = measure()
        data = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": facts,
            "ratios": [ratio.as_dict() for ratio in ratios],
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        for ratio in ratios:
            row = (f"{ratio.rival_seconds:.2f}", f"{ratio.our_seconds:.2f}", f"{ratio.value:.1f}x")
            table.add_row(ratio.work, ratio.rival, *row, f">= {ratio.goal:g}x")
    Console().print(table)


if __name__ == "__main__":
    main()
