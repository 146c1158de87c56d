"""What workers and servers save, and what Ray costs.

Twelve cells (those of `bench.sharing`) by one and by two workers, here and on a cluster; every side begins
with an empty cache, and Ray's with starting it. Then stage-1 pairs of the embedded model by one server and by
two: the tests' server, a process of one thread that answers one request at a time.

Cores that other processes use show in every ratio: nothing else should run. `python -m bench.cluster --small`
does the same at a size of seconds and writes nothing: it shows whether everything works, not how fast.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pyarrow.parquet import read_table

from bench.ratio import Ratio
from bench.sharing import COMPONENTS, LIMIT, SEEDS, SIZE, run_command
from stic_eval.models.fingerprint import local_model

SMALL = (
    "-o", "stage1.images=8", "-o", "stage2.items=8", "--limit", "2", "--benchmarks", "textvqa", "--quiet",
)  # fmt: skip
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
IMAGES, ROUNDS, REPLICAS = 100, 3, 1.5


def measure() -> list[Ratio]:
    """Runs every side.

    Raises:
        RuntimeError: A command failed, or two sides give different tables or pairs.
    """
    return [*_cells((*SIZE, *LIMIT)), _replicas(IMAGES, ROUNDS)]


def _replicas(images: int, rounds: int) -> Ratio:
    """The seconds that stage `pairs` takes of the one server, and of both."""
    folder = str(local_model("pocket"))
    made = set()
    took: tuple[list[float], list[float]] = ([], [])
    with _serving(folder) as first, _serving(folder) as second, tempfile.TemporaryDirectory() as name:
        for number in range(rounds + 1):  # the first warms up
            for side, (times, urls) in enumerate(zip(took, ((first,), (first, second)), strict=True)):
                here = Path(name) / f"{number}-{side}"
                command = [
                    str(Path(sys.executable).parent / "stic-eval"), "train", "--method", "stic",
                    "--preset", "pocket", "--engine", "openai", "--base-url", ",".join(urls),
                    "--model", "base", "--model-id", folder, "--images", "pocket:scenes",
                    "-o", "stage2.use=false", "-o", f"stage1.images={images}", "--quiet",
                ]  # fmt: skip
                run_command([*command, "--output", "run"], here)
                (stage,) = here.glob("cache/stages/pairs-*")
                made.add(tuple(map(str, read_table(stage / "pairs.parquet").to_pylist())))
                if number:
                    times.append(json.loads((stage / "manifest.json").read_text())["seconds"])
    if len(made) > 1:
        raise RuntimeError("the sides give different pairs")
    return Ratio(f"pairs of {images} images, two servers", "one server", REPLICAS, *map(tuple, took))


@contextmanager
def _serving(folder: str) -> Iterator[str]:
    """A server of a model, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [sys.executable, "-m", "tests.support.vllm_server", "serve", folder, "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    with subprocess.Popen(argv, cwd=root, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()  # it says when it is ready
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()


def _cells(size: Sequence[str]) -> list[Ratio]:
    """Runs every side of the twelve cells once."""
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
    for ratio in (*_cells(SMALL), _replicas(8, 1)):
        print(f"{ratio.work} against {ratio.rival}: {ratio.our_seconds:.1f} s, {ratio.rival_seconds:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
