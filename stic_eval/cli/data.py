"""`stic-eval data`: checks a benchmark's data, and puts it into one format."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.cli.help_types import Command, Group
from stic_eval.errors import count_of
from stic_eval.flags import Flag, flag

if TYPE_CHECKING:
    from stic_eval.contracts.benchmark import Benchmark
    from stic_eval.evals.data_check import DataCheck
    from stic_eval.experiment.progress import Update

app = typer.Typer(cls=Group, help="Check a benchmark's data, or convert it.", no_args_is_help=True)

_SHOWN = 50

Source = Annotated[
    str,
    Flag("`hub`, `vlmeval` (the folder `$LMUData`), `pocket`, or a local copy: parquet, arrow, JSON or "
         "JSONL, VLMEvalKit's TSV, or LLaVA's folder of questions and images.", names="--from"),
]  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """How a benchmark's rows are read."""

    protocol: f.Protocol = None
    option: list[str] | None = flag(
        "An option of the benchmark, or `rows.BENCHMARK.root=DIR`: where paths of images start. Repeatable.",
        metavar="KEY=VALUE",
        names="--option -o",
        path="",
    )
    allow_remote_images: f.RemoteImages = None
    offline: f.Offline = None


@app.command("check", cls=Command)
@o.command
def check(
    benchmark: f.Benchmark,
    reading: Reading,
    source: Source = "hub",
    images: Annotated[
        bool,
        Flag("Decode every image; rows that are only scored need none.", names="--images/--no-images"),
    ] = True,
    json_out: f.JsonFile = None,
    quiet: f.Quiet = False,
) -> None:
    """Report every problem in a benchmark's rows: schema, ids, images, number. Exit code 1 if any."""
    from stic_eval.store import atomic_write

    o.check_file("--json", json_out)
    chosen, root = _find_benchmark(benchmark, reading)
    checked = _check_rows(chosen, source, bool(reading.allow_remote_images), root, quiet, images)
    _print(checked)
    if json_out is not None:
        data = {
            "benchmark": chosen.name,
            "source": source,
            "protocol": chosen.variant or chosen.protocol,
            "rows": len(checked.opened.kept),
            "problems": [asdict(problem) for problem in checked.problems],
            "warnings": list(checked.warnings),
        }
        atomic_write(json_out, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    if checked.problems:
        raise typer.Exit(1)


@app.command("prepare", cls=Command)
@o.command
def prepare(
    benchmark: f.Benchmark,
    source: Source,
    to: Annotated[Path, Flag("Folder to write, new or empty.", names="--output --to")],
    reading: Reading,
    skip_invalid: Annotated[bool, Flag("Leave out rows with problems instead of stopping.")] = False,
    quiet: f.Quiet = False,
) -> None:
    """Check data and write it as parquet with embedded images, for `-o rows.BENCHMARK=FOLDER`."""
    from stic_eval.evals import data_preparation as writing
    from stic_eval.printable import printable

    chosen, root = _find_benchmark(benchmark, reading)
    to = to.expanduser()
    writing.refuse_taken(to)
    checked = _check_rows(chosen, source, bool(reading.allow_remote_images), root, quiet)
    _print(checked)
    if checked.problems and not skip_invalid:
        typer.echo("nothing was written; --skip-invalid leaves out rows with problems", err=True)
        raise typer.Exit(1)
    with _progress("writing", len(checked.samples), quiet) as progress:
        done = writing.prepare(checked, to, progress=progress)
    files = count_of(len(done.files), "file")
    typer.echo(
        printable(
            f"{count_of(done.rows, 'row')} in {files}: {done.folder} (-o rows.{chosen.name}={done.folder})"
        )
    )
    if checked.problems:
        raise typer.Exit(3)


def _find_benchmark(name: str, reading: Reading) -> tuple[Benchmark, Path | None]:
    """The benchmark under its options, which are given as in every other command."""
    from stic_eval import registry
    from stic_eval.benchmark_protocols import with_options
    from stic_eval.experiment.inputs import check_root

    found = registry.benchmarks().get(name)
    # Of a plug-in file, another name than was given.
    built = o.of_benchmark(found.name, reading.option, reading)
    chosen = with_options(found, built.benchmark_options.get(found.name, {}))
    root = built.rows_root(found.name)
    check_root(found.name, root)
    return chosen, root


def _check_rows(
    benchmark: Benchmark, source: str, remote: bool, root: Path | None, quiet: bool, images: bool = True
) -> DataCheck:
    from stic_eval.evals.data_check import check as examine
    from stic_eval.evals.data_places import NAMED

    where = source if source in NAMED else Path(source).expanduser()
    lines: list[str] = []
    with _progress("checking", None, quiet) as progress:
        checked = examine(
            benchmark, where, images=images, remote=remote, root=root, progress=progress,
            hub_use=lambda at, said: lines.extend(said),
        )  # fmt: skip
    for line in lines:
        typer.echo(line, err=True)
    return checked


@contextmanager
def _progress(name: str, total: int | None, quiet: bool) -> Iterator[Update]:
    from stic_eval.experiment.progress import Reporter

    with Reporter(None, quiet=quiet) as report, report.updates(name, total) as update:
        yield update


def _print(checked: DataCheck) -> None:
    """Prints the first problems, the warnings, and a line that sums up."""
    from stic_eval.evals.row_faults import Fault
    from stic_eval.printable import printable

    def line(text: str) -> None:
        typer.echo(" ".join(printable(text).split("\n")))

    rows = len(checked.opened.kept)
    alike = Counter((problem.column, problem.message) for problem in checked.problems)
    # A column that no row has is one line, not thousands.
    common = [fault for fault, count in alike.items() if count == rows > 1]
    for column, message in common:
        line(f"all {rows} rows: {Fault(column, message)}")
    single = [problem for problem in checked.problems if (problem.column, problem.message) not in common]
    for problem in single[:_SHOWN]:
        line(str(problem))
    if len(single) > _SHOWN:
        line(f"... and {len(single) - _SHOWN} more problems (`data check --json FILE` lists all)")
    for warning in checked.warnings:
        line(f"warning: {warning}")
    bad = (
        f"{count_of(len(checked.problems), 'problem')} in {count_of(checked.bad_rows, 'row')}"
        if checked.problems
        else "no problems"
    )
    opened = checked.opened
    line(f"{opened.benchmark.title}: {opened.rows.where}: {count_of(rows, 'row')}, {bad}")
