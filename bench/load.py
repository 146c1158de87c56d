"""Large inputs: 200,000 answers to score, a run of 140,000 records to compare and report, 300 runs to list.

Rows and answers are made up as in the bench `scoring`, in the real schemas; records and summaries are made of
them by the program itself. The run has seven benchmarks of 5,000 rows and four variants: the baseline and a
method trained with one seed, each with and without describe-and-respond; some rows share an image. Every
command is a process of its own, its start included. Measured are processor seconds: on an idle machine they
are the time that a person waits, and other work changes them less than that. `python -m bench.load FOLDER`
makes the load and measures nothing.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import scoring
from bench.pocket import Measured, watched
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.contracts.engine import ProgressUpdate
from stic_eval.types import DESCRIBED, DIRECT, ImageRef, Response, Sample, Score

if TYPE_CHECKING:
    from stic_eval.evals import runner

SCORED, ANSWERS = "textvqa", 200_000  # ten reference answers a row: the largest rows of the seven
ROWS, FEWER_ROWS = 5_000, 500  # of a benchmark
RUNS, SMALL_ROWS = 300, 50
IMAGES_SHARED = 3  # of three rows in a row, the last is about the image of the first
DESCRIPTION_WORDS = 200
# (folder, method, title, described, training seed)
VARIANTS: tuple[tuple[str, str, str, bool, int | None], ...] = (
    ("baseline", "baseline", "Baseline", False, None),
    ("baseline+dar", "baseline", "Baseline", True, None),
    ("stic@seed0", "stic", "STIC", False, 0),
    ("stic+dar@seed0", "stic", "STIC", True, 0),
)
# Ceilings of processor seconds, and of resident memory in MB (10^6 bytes).
SCORE, TABLE, COMPARE, REPORT, LIST = (7.0, 285.0), (3.6, 250.0), (5.0, 250.0), (12.0, 250.0), (1.0, 100.0)
GROWTH_MB = 50.0  # from 500 to 5,000 rows of a benchmark


class _Grades:
    """A judge that gives points by chance: what a summary is made of is none of a judge's here."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def grade(
        self, benchmark: Benchmark, cases: Sequence[tuple[Sample, str]], progress: ProgressUpdate
    ) -> Iterator[tuple[int, Score, Mapping[str, Any]]]:
        for number in range(len(cases)):
            points = self._rng.randint(0, 10) / 10
            info = {
                "model": "judge", "protocol": "stic-eval-1", "replies": [scoring.text(self._rng, 40)],
                "values": [points], "weights": [1.0],
            }  # fmt: skip
            yield number, Score(points), info


def write_answers(folder: Path) -> None:
    """Writes `rows.jsonl` and `answers.jsonl`."""
    rng = random.Random(SCORED)
    _, make = scoring.MAKERS[SCORED]
    with open(folder / "rows.jsonl", "w") as rows, open(folder / "answers.jsonl", "w") as answers:
        for number in range(ANSWERS):
            row, answer = make(rng, number)
            rows.write(json.dumps(row) + "\n")
            answers.write(json.dumps({"id": number, "response": answer}) + "\n")


def write_run(folder: Path, n: int) -> None:
    """Writes the folder of a run of so many rows of each benchmark: settings, scores and records."""
    from stic_eval import registry
    from stic_eval.config import load
    from stic_eval.evals import runner
    from stic_eval.experiment.grading import protocol_text
    from stic_eval.report import runs
    from stic_eval.report.table_rows import Column
    from stic_eval.store import atomic_write

    found = [registry.benchmarks().get(name) for name in scoring.MAKERS]
    columns = [Column(b.name, b.title, protocol_text(b), version=b.version) for b in found]
    entries = [
        runs.Entry(
            name, method, title, DESCRIBED if described else DIRECT, seed, has_adapter=seed is not None
        )
        for name, method, title, described, seed in VARIANTS
    ]
    for benchmark in found:
        rows = _samples(benchmark, n)
        for entry in entries:
            rng = random.Random(f"{entry.folder}/{benchmark.name}")
            answered = [_answered(benchmark, sample, rng, not entry.solver.plain) for sample in rows]
            records, summary = runner.conclude(benchmark, answered, _Grades(rng))
            entry.summaries[benchmark.name] = summary
            entry.keys[benchmark.name] = sha256(f"{entry.folder}/{benchmark.name}".encode()).hexdigest()
            atomic_write(
                folder / "records" / entry.folder / f"{benchmark.name}.jsonl", runner.encode(records)
            )
    runs.save(runs.Scores(folder.name, columns, entries, model="pocket"), folder)
    atomic_write(folder / "config.yaml", load(flags={"methods": ["stic"]}).to_yaml())


def _samples(benchmark: Benchmark, n: int) -> list[Sample]:
    """So many made-up samples, with images that cannot be loaded."""
    from stic_eval.evals.rows import ListRows
    from stic_eval.evals.sources import samples

    rng = random.Random(benchmark.name)
    _, make = scoring.MAKERS[benchmark.name]
    rows = [make(rng, number)[0] for number in range(n)]
    return [
        replace(sample, images=(_image(f"{benchmark.name}/{number}"),))
        for number, sample in enumerate(samples(benchmark, ListRows("made up", rows), images=False))
    ]


def _image(name: str) -> ImageRef:
    """The reference of an image that there is not."""
    benchmark, _, number = name.partition("/")
    own = int(number) - (2 if int(number) % IMAGES_SHARED == 2 else 0)

    def load() -> Any:
        raise OSError(f"{name}: made up")

    return ImageRef(sha256(f"{benchmark}/{own}".encode()).hexdigest(), name, load)


def _answered(benchmark: Benchmark, sample: Sample, rng: random.Random, described: bool) -> runner.Answered:
    """A sample with an answer, right in about half of the cases where what is right is a plain text."""
    from stic_eval.evals import runner

    _, answer = scoring.MAKERS[benchmark.name][1](rng, rng.randrange(ROWS))
    if rng.random() < (0.6 if described else 0.45):
        target = sample.target
        target = target[0] if isinstance(target, (list, tuple)) and target else target
        answer = target if isinstance(target, str) else answer
    response = Response(answer, rng.randint(2, 100), "stop", seconds=rng.random())
    verdict = runner.verdict_of(benchmark, sample, answer)
    description = scoring.text(rng, DESCRIPTION_WORDS) if described else None
    return runner.Answered(sample, response, verdict, description)


def write_runs(folder: Path) -> None:
    """Writes the folders of many small runs, whose records are one and the same files."""
    from stic_eval.report import runs

    first = folder / "small-000"
    write_run(first, SMALL_ROWS)
    for number in range(1, RUNS):
        other = folder / f"small-{number:03}"
        shutil.copytree(first, other, copy_function=os.link)
        scores = runs.load(first)
        runs.save(replace(scores, run=other.name), other)


def write(folder: Path) -> None:
    """Makes the load: two places with `results/`, one with the large runs, one with the many."""
    folder.mkdir(parents=True, exist_ok=True)
    write_answers(folder)
    write_run(folder / "results" / "large", ROWS)
    write_run(folder / "results" / "fewer", FEWER_ROWS)
    write_runs(folder / "many" / "results")


def measure() -> list[Measured]:
    """Runs every command once on the load; some minutes.

    Raises:
        RuntimeError: A command failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: a child begins with its parent's memory, which is counted as its own.
        subprocess.run(
            [sys.executable, "-m", "bench.load", name], cwd=Path(__file__).parent.parent, check=True
        )
        size = f"7 x {ROWS:,} rows"
        found = _measured(folder, ("score", SCORED, *_ANSWERED), f"score {ANSWERS:,} answers", SCORE)
        found += _on_run(folder, ("table", "{run}"), f"table of {size} in 4 variants", TABLE)
        found += _on_run(folder, ("compare", "{run}:baseline", "{run}:stic+dar"), f"compare {size}", COMPARE)
        found += _on_run(folder, ("report", "{run}", *_PAGE), f"report of {size} in 4 variants", REPORT)
        return found + _measured(folder / "many", ("ls", "runs"), f"ls runs, {RUNS} of them", LIST)


_ANSWERED = ("--predictions", "answers.jsonl", "--rows", "rows.jsonl")
_PAGE = ("--output", "report.html", "--no-images", "--quiet")


def _on_run(folder: Path, argv: Sequence[str], work: str, ceilings: tuple[float, float]) -> list[Measured]:
    """What a command takes on the large run, and how much memory beyond that on the one of fewer rows."""
    fewer, large = (
        _measured(folder, [part.format(run=run) for part in argv], work, ceilings)
        for run in ("fewer", "large")
    )
    more = large[1].value - fewer[1].value
    return [*large, Measured(f"{work}: memory beyond 7 x {FEWER_ROWS} rows", "MB", more, GROWTH_MB)]


def _measured(folder: Path, argv: Sequence[str], work: str, ceilings: tuple[float, float]) -> list[Measured]:
    """Processor seconds of a command in a folder, and its resident memory."""
    program = str(Path(sys.executable).parent / "stic-eval")
    cache = str(folder / "cache")
    environment = {**os.environ, "STIC_EVAL_CACHE": cache, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _, gigabytes, _ = watched([program, *argv], folder, environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [
        Measured(work, "s", seconds, ceilings[0]),
        Measured(f"{work}: memory", "MB", 1000 * gigabytes, ceilings[1]),
    ]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
