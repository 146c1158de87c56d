"""`--dry-run`: the plan of a run as a table, and what it will roughly take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stic_eval.experiment import inputs, variants
from stic_eval.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from stic_eval.cli.session import Session
    from stic_eval.config import RunConfig
    from stic_eval.contracts.benchmark import Benchmark


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

    inputs.check_model(config)
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
    _print_estimate(console, current, *total)
    if config.training.images != "as_generated" and any(line.steps for line in lines):
        console.print(f"trains on images as: {config.training.images} (training.images)")
    losses = {one.loss for variant in current.variants for one, _ in current.keyed(variant) if one.loss}
    if losses:
        console.print(f"preference loss: {', '.join(sorted(losses))}", markup=False, soft_wrap=True)
    if current.profile is not None:
        console.print(f"asked as: {printable(current.profile.title)}", markup=False, soft_wrap=True)
    for told in _rows_from(current) if evaluate else ():
        console.print(told, markup=False, soft_wrap=True)
    if skipped:
        console.print(f"{skipped} input files would be skipped", soft_wrap=True)
    console.print(f"output: {config.folder}", markup=False, soft_wrap=True)


def _print_estimate(console: Console, current: Session, generations: int, steps: int) -> None:
    found = current.engine.estimate(generations, steps)
    if found is None:
        names = variants.answerers(current.config, current.variants, current.engine)
        rows = ", ".join(dict.fromkeys(printable(name or current.config.model) for name in names.values()))
        text = f"\nanswered by {printable(current.engine.described())}: {rows}"
    else:
        text = (
            f"\nestimate on {found.where}: about {variants.duration(found.seconds)} and "
            f"{found.memory / 2**30:.1f} GiB of memory (to a factor of about three)"
        )
    console.print(text, markup=False, soft_wrap=True)


def _lines(current: Session, evaluate: bool, fresh: bool) -> list[variants.Line]:
    lines: list[variants.Line] = []
    seen: set[str] = set()
    for variant in current.variants:
        for stage, key in current.keyed(variant):
            if key not in seen:
                seen.add(key)
                cached = not fresh and current.stages.done(stage.name, key) is not None
                seed = f", seed {variant.seed}"
                lines.append(
                    variants.Line(f"{stage.name}{seed}", key, cached, stage.generations, stage.steps)
                )
    if not evaluate:
        return lines
    known = {} if fresh else current.before().known()
    for variant in current.variants:
        for benchmark in current.benchmarks:
            keys = current.evaluation_keys(benchmark, variant)
            cached = known.get((variant.folder, benchmark.name), ("", None))[0] in keys
            rows = rows_of(current, benchmark)
            what = f"evaluate {variant.folder} {benchmark.name}" + (" (rows unknown)" if rows is None else "")
            asked = (rows or 0) * variant.solver.requests(variant.options)
            lines.append(variants.Line(what, keys[0], cached, asked, 0))
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
