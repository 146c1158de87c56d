"""`stic-eval score`: scores answers that were given elsewhere, or anew what was given here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.errors import Interrupted, count_of
from stic_eval.flags import Flag

if TYPE_CHECKING:
    from stic_eval.contracts.benchmark import Benchmark
    from stic_eval.evals import runner
    from stic_eval.evals.judging import CachedJudge
    from stic_eval.types import Record, Summary

_SHOWN = 5


def score(
    benchmark: f.Benchmark,
    predictions: Annotated[
        Path,
        Flag("Answers: records of a run, JSONL with id and response, lmms-eval's logged samples, "
             "VLMEvalKit's xlsx, TSV or JSON, OpenCompass's, Inspect's logs, LLaVA's answers or summary."),
    ],
    judging: f.Judge,
    rows: Annotated[
        str | None,
        Flag("Rows that were asked: `hub`, `pocket`, `vlmeval`, or a local copy. Images are not needed.",
             "what comes with the answers, else hub"),
    ] = None,
    protocol: f.Protocol = None,
    option: Annotated[
        list[str] | None,
        Flag("An option of the benchmark, e.g. `-o strict=true`, or of the judge, e.g. "
             "`-o judge.timeout=120`. Repeatable.", metavar="KEY=VALUE", names="--option -o"),
    ] = None,
    json_out: f.JsonFile = None,
    offline: f.Offline = None,
    answered_only: Annotated[
        bool,
        Flag("Leave out rows without an answer (after --limit, say) instead of counting them as unscored."),
    ] = False,
    dry_run: Annotated[bool, Flag("Read and match everything, but send nothing to the judge.")] = False,
    resume: Annotated[
        bool,
        Flag("Ask the judge only about answers that it has not graded yet, or about all again.",
             names="--resume/--fresh"),
    ] = True,
    quiet: f.Quiet = False,
) -> None:  # fmt: skip
    """Score existing answers, without a model: by rules, and by a judge where rules cannot decide."""
    from stic_eval import registry
    from stic_eval.benchmark_protocols import decoding, with_options
    from stic_eval.errors import UserError
    from stic_eval.evals import runner
    from stic_eval.evals.given_answers import answered_rows, response_of, rows_of
    from stic_eval.evals.predictions import read_predictions
    from stic_eval.experiment import grading
    from stic_eval.experiment.progress import Reporter
    from stic_eval.printable import printable
    from stic_eval.store import atomic_write, cache_dir

    benchmark = registry.benchmarks().get(benchmark).name
    # A run's settings, of which only the benchmark's and the judge's are used: said in one way everywhere.
    built = o.of_benchmark(benchmark, option, judging, protocol=protocol, offline=offline)
    if any(item.partition("=")[0].partition(".")[0].strip() == "rows" for item in option or ()):
        raise UserError("-o rows: --rows names the rows here, and their images are not needed")
    options = built.benchmark_options.get(benchmark, {})
    chosen = with_options(registry.benchmarks().get(benchmark), options)
    if asked_for := decoding(registry.benchmarks().get(benchmark), options):
        raise UserError(
            f"-o benchmarks.{benchmark}.{next(iter(asked_for))}: is for asking, and these answers "
            "already exist"
        )
    given = read_predictions(predictions)
    where, asked, found = rows_of(chosen, given, rows, note=lambda line: typer.echo(line, err=True))
    del given  # of which each answer goes once it is scored
    if answered_only:
        asked = (sample for sample in asked if sample.id in found)
    answers, taken = len(found), sum(item.extraction is not None for item in found.values())
    responses = (response_of(item, built.thinking) for item in found.values())
    closed, told = runner.closing(responses, finished=True)
    prompts_open = runner.prompts_open_thinking(closed, told)
    answered = answered_rows(chosen, asked, found, predictions.name, built.thinking, prompts_open)
    o.check_file("--json", json_out)
    grader = grading.judge_of(built.judge, cache_dir(), fresh=not resume)
    if dry_run:
        _print_plan(chosen, answered, answers, grader, fresh=not resume)
        return
    with Reporter(None, quiet=quiet) as report, _telling_of_interruption():
        records, summary = runner.conclude(chosen, answered, grader, report.updates)
    if json_out is not None:
        data = _json(chosen, records, summary, grading.identity(grader))
        text = StringIO()
        json.dump(data, text, indent=1, ensure_ascii=False)
        atomic_write(json_out, text.getvalue() + "\n")
    if taken and not quiet:
        typer.echo(f"{count_of(taken, 'extraction')} taken from {printable(predictions.name)}", err=True)
    if grader is not None and summary.judged and not quiet:
        typer.echo(
            f"{count_of(grader.requests, 'request')} sent to judge {printable(grader.model)}", err=True
        )
    print_summary(chosen, summary, grading.grader_text(chosen, where, grader))
    _print_suspects(records)
    if closed and not prompts_open and not built.thinking.opened:
        _print_closing(closed, told)
    _print_unscored(records)
    if summary.unscored:
        raise typer.Exit(3)


@contextmanager
def _telling_of_interruption() -> Iterator[None]:
    """Says on Ctrl-C that what was paid for is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the judge's replies are kept: the same command resumes") from None


def _print_plan(
    chosen: Benchmark,
    answered: Iterable[runner.Answered],
    given: int,
    grader: CachedJudge | None,
    *,
    fresh: bool,
) -> None:
    """Says how far rules get, and what would be asked of the judge."""
    from stic_eval.printable import printable

    verdicts = [item.verdict for item in answered]
    left = sum(verdict.open for verdict in verdicts) if chosen.judging is not None else 0
    unscored = sum(verdict.value is None for verdict in verdicts)
    scored = sum(verdict.value is not None and not (left and verdict.open) for verdict in verdicts)
    rules = f"rules score {scored} and leave {left} to a judge"
    counts = f"{count_of(len(verdicts), 'row')}, {count_of(given, 'answer')}"
    typer.echo(f"{printable(chosen.title)}: {counts}; {rules}")
    if left and grader is not None:
        asked = left * grader.settings.samples
        most = count_of(min(asked, grader.settings.max_requests or asked), "request")
        reused = "" if fresh else "; cached replies are reused"
        typer.echo(f"judge {printable(grader.model)}: at most {most}{reused}")
    elif unscored:
        waiting = sum(verdict.open and verdict.value is None for verdict in verdicts)
        typer.echo(f"unscored: {unscored}" + (f" ({waiting} need --judge MODEL)" if waiting else ""))


def print_summary(benchmark: Benchmark, summary: Summary, grader: str) -> None:
    """Prints score, counts, protocol and breakdown."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stic_eval.experiment.grading import protocol_text
    from stic_eval.printable import printable

    total = "-" if summary.score is None else f"{summary.score:.2f}"
    counts = f"n = {summary.n}" + (f", {summary.unscored} unscored" if summary.unscored else "")
    if summary.judged:
        counts += f", the judge decided {summary.judged} of {summary.answers} answers"
    console = Console(highlight=False)
    title = f"{printable(benchmark.title)}: {total}{'°' if summary.unscored else ''} ({counts})"
    console.print(Text(title, style="bold"))
    console.print(Text(printable(f"scored by {protocol_text(benchmark)}"), style="dim"))
    if grader:
        console.print(Text(printable(grader), style="dim"))
    if len(summary.gradings) > 1:
        alone = ", ".join(f"{score:.2f}" for score in summary.gradings)
        spread = f"by each of the judge's gradings alone: {alone} (sd {stdev(summary.gradings):.2f})"
        console.print(Text(spread, style="dim"))
    if summary.unscored:
        console.print(
            Text("° over the scored ones alone; the others are left out, not counted as 0", style="dim")
        )
    grid = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    grid.add_column(overflow="fold")
    grid.add_column(justify="right")
    for label, value in summary.breakdown.items():
        grid.add_row(Text(printable(label)), f"{value:.2f}")
    if summary.breakdown:
        console.print()
        console.print(grid)


def _print_suspects(records: Sequence[Record]) -> None:
    """Names answers that speak to the judge; they are scored like any other."""
    from stic_eval.printable import printable

    found = [record for record in records if record.judge and record.judge.get("suspect")]
    if found:
        first = found[0]
        reason = f"{first.id}: {first.judge['suspect']}" if first.judge else ""
        typer.echo(
            f"suspect: {count_of(len(found), 'answer')} may speak to the judge (e.g. {printable(reason)})",
            err=True,
        )


def _print_closing(closed: int, told: int) -> None:
    """Says that some answers close a tag of thinking that they do not open, where that settles nothing."""
    typer.echo(
        f"thinking: {closed} of {told} answers only close a tag of thinking; if prompts opened it, the "
        "others were cut: -o thinking.opened=true",
        err=True,
    )


def _print_unscored(records: Sequence[Record]) -> None:
    """Why answers are unscored: each reason once, with how often and an example."""
    from stic_eval.printable import printable

    reasons: dict[str, list[str]] = {}
    for record in records:
        if record.score is None:
            reasons.setdefault(record.why or "no reason given", []).append(record.id)
    shown = sorted(reasons.items(), key=lambda item: -len(item[1]))[:_SHOWN]
    for reason, ids in shown:
        typer.echo(f"unscored: {len(ids)} x {printable(reason)} (e.g. {printable(ids[0])})", err=True)
    if len(reasons) > len(shown):
        typer.echo(f"unscored: {len(reasons) - len(shown)} more reasons (--json lists all)", err=True)


def _json(
    benchmark: Benchmark, records: Sequence[Record], summary: Summary, judge: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What `--json` writes: score and breakdown in percent, each verdict from 0 to 1 with its weight."""
    return {
        "benchmark": benchmark.name,
        "n": summary.n,
        "scored": summary.n - summary.unscored,
        "unscored": summary.unscored,
        "score": summary.score,
        "breakdown": dict(summary.breakdown),
        "protocol": benchmark.variant or benchmark.protocol,
        "version": benchmark.version,
        "judge": judge,
        "answers": summary.answers,
        "judged": summary.judged,
        "gradings": list(summary.gradings),
        "spread": stdev(summary.gradings) if len(summary.gradings) > 1 else None,
        "per_sample": [
            {
                "id": record.id,
                "score": record.score,
                "weight": record.weight,
                "answer": record.answer,
                "why": record.why,
                "judge": record.judge,
            }
            for record in records
        ],
    }
