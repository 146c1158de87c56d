"""`--dry-run`: the plan of a run as a table, and what it will roughly take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stic_eval.cli import inputs, machine, plan

if TYPE_CHECKING:
    from rich.console import Console

    from stic_eval.cli.session import Session
    from stic_eval.config import RunConfig
    from stic_eval.evals.benchmark import Benchmark


def print_plan(config: RunConfig, *, evaluate: bool = True, fresh: bool = False) -> None:
    """Prints stages and evaluations with key, whether they are cached, and their size; does nothing.

    Args:
        config: The run.
        evaluate: Whether it evaluates or trains only.
        fresh: Whether it would start over, with nothing cached.

    Raises:
        UserError: The input is wrong, as it would be for the run itself.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stic_eval.cli.progress import Reporter
    from stic_eval.cli.session import Session
    from stic_eval.printable import printable

    if config.engine == "hf":
        inputs.check_model(config.model)
    with Reporter(None, quiet=True) as report:
        current = Session(config, report, fresh=fresh)
        current.check()
        lines = _lines(current, evaluate, fresh)
        skipped = len(current.skipped())
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    grid.add_column("step")
    grid.add_column("key")
    grid.add_column("state")
    grid.add_column("generations", justify="right")
    grid.add_column("optimiser steps", justify="right")
    for line in lines:
        state = "cached" if line.cached else "to do"
        grid.add_row(Text(line.what), line.key[:16], state, f"{line.generations:,}", f"{line.steps:,}")
    open_lines = [line for line in lines if not line.cached]
    total = (sum(line.generations for line in open_lines), sum(line.steps for line in open_lines))
    grid.add_row(Text("to do in all", style="bold"), "", "", f"{total[0]:,}", f"{total[1]:,}")
    console = Console(highlight=False)
    console.print(grid)
    if config.engine == "openai":
        names = dict.fromkeys(plan.served(config, variant) for variant in current.variants)
        server = config.server
        text = f"\nanswered by the server at {server.base_url}, {server.concurrency} requests at a time: "
        console.print(text + ", ".join(map(printable, names)), markup=False, soft_wrap=True)
    else:
        _print_estimate(console, current, lines)
    if config.training.images != "as_generated" and any(line.steps for line in lines):
        console.print(f"trains on images as: {config.training.images} (training.images)")
    if current.profile is not None:
        console.print(f"asked as: {printable(current.profile.title)}", markup=False, soft_wrap=True)
    for told in _rows_from(current) if evaluate else ():
        console.print(told, markup=False, soft_wrap=True)
    if skipped:
        console.print(f"{skipped} input files would be skipped", soft_wrap=True)
    console.print(f"output: {config.folder}", markup=False, soft_wrap=True)


def _print_estimate(console: Console, current: Session, lines: list[plan.Line]) -> None:
    from stic_eval.models.fingerprint import local_model

    config = current.config
    device = machine.device_of(config.device)
    size = plan.parameters(local_model(config.model))
    seconds, memory = plan.estimate(lines, size, config.quantization or current.dtype, device)
    console.print(
        f"\nestimate on {device}, {size / 1e6:,.1f} M parameters: about {plan.duration(seconds)} "
        f"and {memory / 2**30:.1f} GiB of memory (to a factor of about three)",
        soft_wrap=True,
    )


def _lines(current: Session, evaluate: bool, fresh: bool) -> list[plan.Line]:
    lines: list[plan.Line] = []
    seen: set[str] = set()
    for variant in current.variants:
        for stage, key in current.keyed(variant):
            if key not in seen:
                seen.add(key)
                cached = not fresh and current.stages.done(stage.name, key) is not None
                seed = f", seed {variant.seed}"
                lines.append(plan.Line(f"{stage.name}{seed}", key, cached, stage.generations, stage.steps))
    if not evaluate:
        return lines
    known = {} if fresh else current.before().known()
    for variant in current.variants:
        for benchmark in current.benchmarks:
            keys = current.evaluation_keys(benchmark, variant)
            cached = known.get((variant.folder, benchmark.name), ("", None))[0] in keys
            rows = rows_of(current, benchmark)
            what = f"evaluate {variant.folder} {benchmark.name}" + (" (rows unknown)" if rows is None else "")
            lines.append(plan.Line(what, keys[0], cached, (rows or 0) * (2 if variant.dar else 1), 0))
    return lines


def _rows_from(current: Session) -> Iterator[str]:
    """Under which id the rows of each benchmark on the hub would be had."""
    from stic_eval.evals.hub import planned

    for benchmark in current.benchmarks:
        if current.config.rows_of(benchmark.name) == "hub":
            at, cached = planned(benchmark.source)
            where = "in the local cache" if cached else "to be downloaded"
            yield f"rows of {benchmark.name}: {at.path}, revision {at.revision[:12]} ({where})"


def rows_of(current: Session, benchmark: Benchmark) -> int | None:
    """How many rows a benchmark has under the run's limit; nothing is downloaded to find out."""
    limit = current.config.limit
    if current.config.rows_of(benchmark.name) != "hub":
        return len(current.samples(benchmark))
    rows = benchmark.source.rows
    if rows is None or limit is None:
        return rows
    return max(1, round(limit * rows)) if limit < 1 else min(int(limit), rows)
