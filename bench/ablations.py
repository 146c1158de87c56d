"""The evidence in results/pocket: shipped ablations over three seeds, their tables and their figures.

`python -m bench.ablations` runs every shipped ablation on the embedded model (what is cached is not
computed again), then draws. `--draw` computes nothing: tables and figures of what is there, by the statistics
of now.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.retable import retable

RESULTS = Path(__file__).parent.parent / "results" / "pocket"
# Ablation -> what of it this model and two cores are spared, and the figures that it gives beside the gains.
ABLATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "components": ((), ("progression",)),
    "negatives": ((), ()),
    "prompts": ((), ()),
    "infusion": ((), ()),
    "released-code-quirks": ((), ()),
    "data-fraction": ((), ("scaling",)),
    "alpha-beta": ((), ()),
    # More than half of the model's width.
    "lora-rank": (("--exclude", "rank=128"), ("scaling",)),
    "iterations": (("--exclude", "iterations=3"), ()),
    "corruption": (("--exclude", "corruption=noise,diffusion,crop,blur,blank"), ("heatmap",)),
}
SEEDS = "0,1,2"


def stic_eval(*argv: str) -> None:
    """Runs the command in the project's folder.

    Raises:
        CalledProcessError: It failed.
    """
    command = [str(Path(sys.executable).parent / "stic-eval"), *argv]
    subprocess.run(command, cwd=RESULTS.parent.parent, check=True)


def run(names: Sequence[str]) -> None:
    """Runs ablations, each into a folder of its own."""
    for name in names:
        folder = RESULTS / "ablations" / name
        # Evaluations are made anew from the cached answers, so that whatever is in the folder is of now.
        (folder / "scores.json").unlink(missing_ok=True)
        spared, _ = ABLATIONS[name]
        argv = ["ablate", name, *spared, "--seeds", SEEDS, "--jobs", "2", "--quiet"]
        stic_eval(*argv, "--output", str(folder.relative_to(RESULTS.parent.parent)))


def draw(names: Sequence[str]) -> None:
    """Draws figures as SVG: of the main run, and of ablations."""
    for kind in ("gains", "progression", "training"):
        stic_eval("plot", str(RESULTS), "--kind", kind, "--format", "svg")
    for name in names:
        for kind in ("gains", *ABLATIONS[name][1]):
            stic_eval("plot", str(RESULTS / "ablations" / name), "--kind", kind, "--format", "svg")


def main(argv: Sequence[str]) -> None:
    """Runs and draws what is named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.ablations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ABLATIONS)}; default: all")
    parser.add_argument("--draw", action="store_true", help="compute nothing")
    given = parser.parse_args(argv)
    unknown = sorted(set(given.names) - set(ABLATIONS))
    if unknown:
        parser.error(f"no ablation {', '.join(unknown)}: there are {', '.join(ABLATIONS)}")
    names = given.names or list(ABLATIONS)
    if not given.draw:
        run(names)
    else:
        for folder in (RESULTS, RESULTS / "methods", *(RESULTS / "ablations" / name for name in names)):
            retable(folder)
    draw(names)


if __name__ == "__main__":
    main(sys.argv[1:])
