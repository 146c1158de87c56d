"""Tables of committed runs, made anew from the units that are committed with them.

`python -m bench.retable` goes through every run of the embedded model below `results/`; folders that are
named are done alone. What a run was written without is added to its scores.json: in which clusters its rows
lie (rows of the embedded world are the same everywhere, so that ids say which image they are about), and the
version of the benchmark that graded them. Then its table.md, .tex, .html, .csv and .json are written. Nothing
is asked, trained or scored.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stic_eval import config, registry
from stic_eval.errors import UserError
from stic_eval.evals import clusters, runner
from stic_eval.evals.benchmark import Benchmark
from stic_eval.evals.sources import is_pocket, samples
from stic_eval.report import render, runs
from stic_eval.report.layouts import lay_out
from stic_eval.types import Record, Response, Score
from stic_eval.variants import with_options

RESULTS = Path(__file__).parent.parent / "results"
UNRECORDED = 2  # version of each benchmark when runs did not yet say which one graded them


def retable(folder: Path) -> None:
    """Adds what a run lacks, and writes its tables.

    Raises:
        UserError: Its rows are no embedded ones, or not those that it was evaluated on.
    """
    scores = runs.load(folder)
    settings = config.read_file(folder / "config.yaml")  # as it was written: options may have come since
    columns = []
    for column in scores.columns:
        source = settings["rows"].get(column.name, settings["rows"].get("all", "auto"))
        source = "pocket" if (source, settings["model"]) == ("auto", "pocket") else source
        if not is_pocket(source):
            raise UserError(f"{folder}: {column.title} has rows of {source}, and no embedded ones")
        benchmark = with_options(
            registry.benchmarks().get(column.name), settings["benchmark_options"].get(column.name, {})
        )
        records = _records(benchmark, source, settings["limit"])
        shared = clusters.clusters(benchmark, records)
        known = {clusters.unit_of(record) for record in records}
        for entry in scores.entries:
            if (summary := entry.summaries.get(column.name)) is not None:
                if not set(summary.units) <= known or summary.n != len(known):
                    raise UserError(f"{folder}: {column.title}: {entry.folder} was asked other rows")
                entry.summaries[column.name] = replace(summary, clusters=shared)
        columns.append(replace(column, version=column.version or UNRECORDED))
    scores.columns[:] = columns
    runs.save(scores, folder)
    render.write(lay_out([scores]), folder)


_CACHE: dict[tuple[str, str, str, float | None], list[Record]] = {}


def _records(benchmark: Benchmark, source: str, limit: float | None) -> list[Record]:
    """The rows as records without an answer: enough to tell which belong together."""
    key = benchmark.name, benchmark.variant, source, limit
    if key not in _CACHE:
        none = Response("", 0, "failed")
        asked = samples(benchmark, source, limit=limit)
        _CACHE[key] = [runner.record_of(runner.Answered(one, none, Score(None))) for one in asked]
    return _CACHE[key]


def main(argv: Sequence[str]) -> int:
    """Does the folders that are named, or all below `results/`."""
    folders = [Path(name) for name in argv] or sorted(path.parent for path in RESULTS.rglob("scores.json"))
    for folder in folders:
        retable(folder)
        print(folder)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"bench.retable: {error}")
