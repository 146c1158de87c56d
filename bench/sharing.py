"""What sharing saves: a grid of twelve cells against a run of its own for each of them.

The cells are figure 5's components (nothing, stage 1, both stages, both with describe-and-respond) for
three seeds, on the embedded model at a quarter of its preset's size. The rival is `stic-eval run` for each
cell, from an empty cache, as a user would type it; every such run evaluates the baseline too, for that is
what its scores are compared with. Both sides start with nothing, and use one worker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.ratio import Ratio

SEEDS = (0, 1, 2)
# Component -> what `stic-eval run` is given, and what the grid's cell sets.
COMPONENTS: dict[str, tuple[list[str], dict[str, object]]] = {
    "nothing": (["--method", "baseline", "--no-dar"],
                {"stage1.use": False, "stage2.use": False, "dar": "off"}),
    "stage 1": (["--method", "stic", "--no-dar", "-o", "stage2.use=false"],
                {"stage2.use": False, "dar": "off"}),
    "both stages": (["--method", "stic", "--no-dar"], {"dar": "off"}),
    "both stages, DaR": (["--method", "stic", "-o", "dar=only"], {"dar": "on"}),
}  # fmt: skip
SIZE = ("-o", "stage1.images=250", "-o", "stage2.items=250")
LIMIT = ("--limit", "0.25", "--quiet")
GOAL = 2.5  # at most 40 % of the cost


def measure() -> list[Ratio]:
    """Runs both sides once; they take some minutes.

    Raises:
        RuntimeError: A command failed, or the two give different scores.
    """
    command = str(Path(sys.executable).parent / "stic-eval")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        apart, averages = 0.0, {}
        for component, (options, _) in COMPONENTS.items():
            for seed in SEEDS:
                here = folder / f"{component}-{seed}".replace(" ", "-")
                size = SIZE if "stic" in options else ()
                argv = [command, "run", *options, *size, *LIMIT, "--seed", str(seed), "--output", "run"]
                apart += run_command(argv, here)
                averages[component, seed] = _average(here / "run", component != "nothing")
        spec = {"vary": {"components": {label: sets for label, (_, sets) in COMPONENTS.items()}}}
        here = folder / "grid"
        here.mkdir()
        (here / "figure5.yaml").write_text(json.dumps(spec))
        seeds = ",".join(map(str, SEEDS))
        argv = [command, "ablate", "figure5.yaml", *SIZE, *LIMIT, "--seeds", seeds, "--output", "run"]
        ours = run_command(argv, here)
        _check(here / "run", averages)
    work = "12 cells: components x seeds, quarter size"
    return [Ratio(work, "stic-eval run for each cell", GOAL, (apart,), (ours,))]


def run_command(argv: list[str], folder: Path) -> float:
    """Runs a command in a folder, with an empty cache; gives the seconds that it took.

    Raises:
        RuntimeError: It failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "STIC_EVAL_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def _variants(run: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((run / "scores.json").read_text())["variants"]
    return found


def _scores(variant: dict[str, object]) -> dict[str, float]:
    summaries = variant["summaries"]
    assert isinstance(summaries, dict)
    return {name: summary["score"] for name, summary in summaries.items()}


def _average(run: Path, trained: bool) -> dict[str, float]:
    return next(_scores(v) for v in _variants(run) if (v["seed"] is not None) == trained)


def _check(run: Path, apart: dict[tuple[str, int], dict[str, float]]) -> None:
    """Refuses a comparison of two things that are not the same."""
    for variant in _variants(run):
        settings, seed = variant["settings"], variant["seed"]
        assert isinstance(settings, dict)
        component = settings.get("components", "nothing")
        for number in SEEDS if seed is None else (seed,):
            if _scores(variant) != apart[component, number]:  # type: ignore[index]
                raise RuntimeError(f"{component}, seed {number}: the grid gives other scores than a run")
