"""`--dry-run`: the plan of a run as a table, and what it will roughly take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval.cli import inputs, plan

if TYPE_CHECKING:
    from stic_eval.cli.session import Session
    from stic_eval.config import RunConfig


def print_plan(config: RunConfig, *, evaluate: bool = True) -> None:
    """Prints stages and evaluations with key, whether they are cached, and their size; does nothing.

    Raises:
        UserError: The input is wrong, as it would be for the run itself.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stic_eval.cli.progress import Reporter
    from stic_eval.cli.session import Session

    inputs.check_model(config.model)
    with Reporter(None, quiet=True) as report:
        current = Session(config, report)
        lines = _lines(current, evaluate)
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
    device = device_of(config.device)
    size = plan.parameters(model_folder(config.model))
    seconds, memory = plan.estimate(lines, size, config.dtype, device)
    console.print(
        f"\nestimate on {device}, {size / 1e6:,.1f} M parameters: about {plan.duration(seconds)} "
        f"and {memory / 2**30:.1f} GiB of memory (to a factor of about three)",
        soft_wrap=True,
    )
    if skipped:
        console.print(f"{skipped} input files would be skipped", soft_wrap=True)
    console.print(f"output: {config.folder}", markup=False, soft_wrap=True)


def device_of(device: str) -> str:
    """What `auto` will come to, without importing torch."""
    if device != "auto":
        return device
    return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"


def model_folder(model: str) -> Path | None:
    """Where a model's files lie; None for one on the hub."""
    if model == "pocket":
        from stic_eval.pocket.rows import MODEL_DIR

        return MODEL_DIR
    path = Path(model).expanduser()
    return path if path.is_dir() else None


def _lines(current: Session, evaluate: bool) -> list[plan.Line]:
    from stic_eval.selftrain.execute import stage_key

    lines: list[plan.Line] = []
    seen: set[str] = set()
    for variant in current.variants:
        for stage in plan.stages(variant.plan.adapter):
            key = stage_key(stage, current.inputs.data, current.fingerprint, variant.seed or 0)
            if key not in seen:
                seen.add(key)
                cached = current.stages.done(stage.name, key) is not None
                seed = f", seed {variant.seed}"
                lines.append(plan.Line(f"{stage.name}{seed}", key, cached, stage.generations, stage.steps))
    if not evaluate:
        return lines
    known = current.known()
    for variant in current.variants:
        for benchmark in current.benchmarks:
            key = current.evaluation_key(benchmark, variant)
            cached = known.get((variant.folder, benchmark.name), ("", None))[0] == key
            rows = len(current.samples(benchmark)) * (2 if variant.dar else 1)
            lines.append(plan.Line(f"evaluate {variant.folder} {benchmark.name}", key, cached, rows, 0))
    return lines
