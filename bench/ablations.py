"""The evidence in results/pocket: shipped ablations over training seeds, their tables and their figures.

`python -m bench.ablations` runs every shipped ablation on the embedded model (what is cached is not
computed again), then draws. `--draw` computes nothing: tables and figures of what is there, by the statistics
of now.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.committed import ABLATIONS, ABLATIONS_FOLDER, METHODS, POCKET, ROOT
from bench.retable import retable


def stic_eval(*argv: str) -> None:
    """Runs the command in the project's folder.

    Raises:
        CalledProcessError: It failed.
    """
    command = [str(Path(sys.executable).parent / "stic-eval"), *argv]
    subprocess.run(command, cwd=ROOT, check=True)


def run(names: Sequence[str], jobs: int) -> None:
    """Runs ablations, each into a folder of its own, with so many workers."""
    for name in names:
        folder = ABLATIONS_FOLDER / name
        # Evaluations are made anew from the cached answers, so that whatever is in the folder is of now.
        (folder / "scores.json").unlink(missing_ok=True)
        seeds = ",".join(map(str, ABLATIONS[name].seeds))
        argv = ["ablate", name, *ABLATIONS[name].spared, "--seeds", seeds, "--jobs", str(jobs), "--quiet"]
        stic_eval(*argv, "--output", str(folder.relative_to(ROOT)))


def draw(names: Sequence[str]) -> None:
    """Draws figures of ablations as SVG."""
    for name in names:
        for kind in ("gains", *ABLATIONS[name].figures):
            stic_eval("plot", str(ABLATIONS_FOLDER / name), "--kind", kind, "--format", "svg")


def draw_main() -> None:
    """Draws figures of the main run as SVG."""
    for kind in ("gains", "progression", "training"):
        stic_eval("plot", str(POCKET), "--kind", kind, "--format", "svg")


def main(argv: Sequence[str]) -> None:
    """Runs and draws what is named, or everything."""
    parser = argparse.ArgumentParser(prog="python -m bench.ablations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ABLATIONS)}; default: all")
    parser.add_argument("--draw", action="store_true", help="compute nothing; the main run's figures as well")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="workers (default: %(default)s)"
    )
    given = parser.parse_args(argv)
    unknown = sorted(set(given.names) - set(ABLATIONS))
    if unknown:
        parser.error(f"no ablation {', '.join(unknown)}: there are {', '.join(ABLATIONS)}")
    names = given.names or list(ABLATIONS)
    if given.draw:
        for folder in (POCKET, METHODS, *(ABLATIONS_FOLDER / name for name in names)):
            retable(folder)
        draw_main()
    else:
        run(names, given.jobs)
    draw(names)


if __name__ == "__main__":
    main(sys.argv[1:])
