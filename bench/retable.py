"""Tables of committed runs, made anew from the units that are committed with them.

`python -m bench.retable` goes through every run of the embedded model below `results/`; folders that are
named are done alone. What a run was written without is added to its scores.json: in which clusters its rows
lie (rows of the embedded world are the same everywhere, so that ids say which image they are about), the
version of the benchmark that graded them, and what the best constant answer scores. Whether answers are
constant is taken from the main run, if it has the same evaluation, or if its base is right in the same rows.
Then table.md, .tex, .html, .csv and .json are written. Nothing is asked or trained, and no answer scored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stic_eval import config_layers, registry
from stic_eval.benchmark_protocols import with_options
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.errors import UserError
from stic_eval.evals import clusters, constant_answers, runner
from stic_eval.evals.data_places import is_pocket
from stic_eval.evals.sources import samples
from stic_eval.report import runs, table_formats
from stic_eval.report.table_layouts import lay_out
from stic_eval.types import DIRECT, Record, Response, Sample, Score, SolverLabel, Summary

RESULTS = Path(__file__).parent.parent / "results"
UNKNOWN = (
    "Answers were not kept: whether nearly all of a row's are the same is known only where the main run has "
    "that row as well, or its base is right in the same questions."
)
UNRECORDED = 2  # version of each benchmark when runs did not yet say which one graded them


def retable(folder: Path) -> None:
    """Adds what a run lacks, and writes its tables.

    Raises:
        UserError: Its rows are no embedded ones, or not those that it was evaluated on.
    """
    scores = runs.load(folder)
    # As it was written: options may have come since.
    settings = config_layers.read_file(folder / "config.yaml")
    noted, main, unknown = _noted(scores, folder), _main(), False
    columns = []
    for column in scores.columns:
        source = settings["rows"].get(column.name, settings["rows"].get("all", "auto"))
        source = "pocket" if (source, settings["model"]) == ("auto", "pocket") else source
        if not is_pocket(source):
            raise UserError(f"{folder}: {column.title} has rows of {source}, and no embedded ones")
        benchmark = with_options(
            registry.benchmarks().get(column.name), settings["benchmark_options"].get(column.name, {})
        )
        asked, records = _rows(benchmark, source, settings["limit"])
        best = constant_answers.best_constant(benchmark, asked, records)
        shared = clusters.clusters(benchmark, records)
        known = {clusters.unit_of(record) for record in records}
        for entry in scores.entries:
            if (summary := entry.summaries.get(column.name)) is not None:
                if not set(summary.units) <= known or summary.n != len(known):
                    raise UserError(f"{folder}: {column.title}: {entry.folder} was asked other rows")
                summary = replace(summary, clusters=shared, best_constant=summary.best_constant or best)
                if (entry.folder, column.name) not in noted:
                    found = _constant(entry, column.name, summary, main)
                    unknown, summary = unknown or found is None, found or summary
                entry.summaries[column.name] = summary
        columns.append(replace(column, version=column.version or UNRECORDED))
    scores.columns[:] = columns
    scores.notes[:] = [note for note in scores.notes if note != UNKNOWN] + [UNKNOWN] * unknown
    runs.save(scores, folder)
    table_formats.write(lay_out([scores]), folder)


_Main = dict[tuple[str, SolverLabel, int | None, str], Summary]


def _constant(entry: runs.Entry, name: str, summary: Summary, main: _Main) -> Summary | None:
    """A result with what the main run knows of such answers; None if it does not."""
    same = main.get((entry.method, entry.solver, entry.seed, name))
    if same is not None and same.units == summary.units:
        return replace(summary, constant=same.constant, blank=same.blank, cut=same.cut)
    base = main.get(("baseline", DIRECT, None, name))
    mixed = len(set(summary.units.values())) > 1  # all wrong may be wrong in any way
    if mixed and base is not None and base.units == summary.units:
        return replace(summary, constant=base.constant)
    return None


def _noted(scores: runs.Scores, folder: Path) -> set[tuple[str, str]]:
    """(entry's folder, benchmark) of evaluations that looked whether their answers are constant."""
    if UNKNOWN in scores.notes:
        return set()
    data = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return {
        (variant["folder"], name)
        for variant in data["variants"]
        for name, summary in variant["summaries"].items()
        if "constant" in summary
    }


def _main() -> _Main:
    """(method, describe-and-respond, seed, benchmark) -> result in the main run, if it looked at answers."""
    folder = RESULTS / "pocket"
    if not (folder / "scores.json").is_file():
        return {}
    scores = runs.load(folder)
    noted = _noted(scores, folder)
    return {
        (entry.method, entry.solver, entry.seed, name): summary
        for entry in scores.entries
        for name, summary in entry.summaries.items()
        if (entry.folder, name) in noted
    }


_CACHE: dict[tuple[str, str, str, float | None], tuple[list[Sample], list[Record]]] = {}


def _rows(benchmark: Benchmark, source: str, limit: float | None) -> tuple[list[Sample], list[Record]]:
    """The rows, and as records without an answer: enough to tell which belong together."""
    key = benchmark.name, benchmark.variant, source, limit
    if key not in _CACHE:
        none = Response("", 0, "failed")
        asked = samples(benchmark, source, limit=limit)
        _CACHE[key] = asked, [runner.record_of(runner.Answered(one, none, Score(None))) for one in asked]
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
