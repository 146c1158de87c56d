"""`--dry-run`: the plan of a run as a table, and what it will roughly take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stic_eval import flags as f
from stic_eval.engines import costs
from stic_eval.errors import UserError
from stic_eval.experiment import estimates, variants
from stic_eval.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from stic_eval.experiment.conduct import Outlook
    from stic_eval.experiment.planning import Experiment
    from stic_eval.experiment.resources import Resources
    from stic_eval.settings import RunConfig


@dataclass(frozen=True)
class PlanLine:
    """One step of a plan as it is printed."""

    what: str
    key: str
    cached: bool
    generations: int
    steps: int


def print_run(
    config: RunConfig, options: Sequence[str], output: f.Output, *, jobs: int | None = None,
    cluster: str = "local", evaluate: bool = True, hardware: str = "",
) -> int:  # fmt: skip
    """Prints stages and evaluations with key, whether they are cached, and their size; does nothing.

    Args:
        config: The run.
        options: What `-o` was given.
        output: Whether it would start over, with nothing cached.
        jobs: Worker processes that it would have; None: as many as it would start by itself.
        cluster: Where they would be.
        evaluate: Whether it evaluates or trains only.
        hardware: Kind of GPUs that it is planned for; empty: what is here, or on the cluster.

    Raises:
        UserError: The input is wrong, as it would be for the run itself.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stic_eval.experiment import conduct

    way = conduct.Conduct(jobs, cluster, output.resume, quiet=True)
    gpu = costs.gpu_named(hardware) if hardware else None
    outlook = conduct.look_ahead(config, options, way, evaluate=evaluate, hardware=gpu)
    experiment, resources = outlook.experiment, outlook.resources
    lines = _lines(experiment, resources, not output.resume)
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
    _print_estimate(console, experiment, resources, *total, outlook.jobs)
    print_on_cluster(console, outlook)
    if config.training.images != "as_generated" and any(line.steps for line in lines):
        console.print(f"trains on images as: {config.training.images} (training.images)")
    if any(line.steps for line in lines):
        print_gang(console, outlook)
    losses = {one.loss for subject in experiment.subjects for one, _ in subject.stages if one.loss}
    if losses:
        console.print(f"preference loss: {', '.join(sorted(losses))}", markup=False, soft_wrap=True)
    for note in resources.engine.plan_notes(*experiment.asks):
        console.print(note, markup=False, soft_wrap=True)
    if (asked := resources.engine.profile) is not None:
        console.print(f"asked as: {printable(asked.title)}", markup=False, soft_wrap=True)
    for line_of_rows in _rows_from(resources) if evaluate else ():
        console.print(line_of_rows, markup=False, soft_wrap=True)
    if experiment.skipped:
        console.print(f"{experiment.skipped} input files would be skipped", soft_wrap=True)
    console.print(f"output: {printable(str(config.folder))}", markup=False, soft_wrap=True)
    return 0


def _print_estimate(
    console: Console, experiment: Experiment, resources: Resources, generations: int, steps: int, jobs: int
) -> None:
    engine = resources.engine
    found = engine.estimate(generations, steps)
    if found is None:
        pairs = ((subject.arm.config, subject.variant) for subject in experiment.subjects)
        names = variants.answerers(pairs, engine).values()
        rows = ", ".join(dict.fromkeys(printable(name or resources.config.model) for name in names))
        text = f"\nanswered by {printable(engine.described())}" + (f": {rows}" if rows else "")
    else:
        by, each = (f" with {jobs} jobs", " each") if jobs > 1 else ("", "")
        text = (
            f"\nestimate on {found.where}: about {duration(found.seconds / jobs)}{by} and "
            f"{found.memory / 2**30:.1f} GiB of memory{each} (to a factor of about three)"
        )
    console.print(text, markup=False, soft_wrap=True)


def check_hardware(hardware: str) -> None:
    """Refuses a kind of GPUs where nothing is planned.

    Raises:
        UserError: One is named.
    """
    if hardware:
        raise UserError(f"--hardware {hardware}: is for plans; add --dry-run, or leave it out")


def print_on_cluster(console: Console, outlook: Outlook) -> None:
    """Prints what there is to do on a cluster, or on GPUs that were named, by their figures."""
    from stic_eval.training import gang_launch

    machine, experiment = outlook.machine, outlook.experiment
    if machine is None:
        return
    gpu = costs.gpu_of(machine.gpu, machine.memory)
    at = f"{outlook.jobs} workers at once, on " if outlook.jobs > 1 else "one worker, on "
    at += f"machines like {machine.machine}" if machine.machine else "hardware that was named"
    what = f"{machine.gpu or machine.device}, weights in {machine.dtype}"
    console.print(f"{at} ({what})", markup=False, soft_wrap=True)
    found = outlook.resources.engine.size() if gpu is not None else None
    if gpu is None or found is None:
        return
    parameters, width = found
    config = outlook.resources.config
    took = estimates.on_gpu(
        experiment, costs.Size(parameters, width), gpu, training=gang_launch.size(config),
        serving=gang_launch.gpus_of(config) if config.engine == "vllm" else 0,
    )  # fmt: skip
    kinds: dict[str, float] = {}
    for name, seconds in took.items():
        kind = name.partition(" ")[0]
        kinds[kind] = kinds.get(kind, 0.0) + seconds
    each = ", ".join(f"{kind} {duration(seconds)}" for kind, seconds in kinds.items())
    whole = estimates.makespan(list(experiment.tasks.values()), took, outlook.jobs)
    console.print(
        f"time by a GPU's figures, none of it measured: {each}; in all {duration(whole)}, as stages wait for "
        "each other",
        markup=False, soft_wrap=True,
    )  # fmt: skip


def print_gang(console: Console, outlook: Outlook) -> None:
    """Prints who trains, where several processes do."""
    from stic_eval.training import gang_launch

    config, machine = outlook.resources.config, outlook.machine
    config = config if machine is None else machine.settled(config)
    if gang_launch.is_gang(config):
        console.print(gang_launch.described(config), markup=False, soft_wrap=True)


def _lines(experiment: Experiment, resources: Resources, fresh: bool) -> list[PlanLine]:
    lines: dict[str, PlanLine] = {}
    for subject in experiment.subjects:
        for stage, key in subject.stages:
            cached = not fresh and resources.stages.done(stage.name, key) is not None
            what = f"{stage.name}, seed {subject.variant.seed}"
            lines.setdefault(key, PlanLine(what, key, cached, stage.generations, stage.steps))
    found = list(lines.values())
    for item in experiment.evaluations:
        variant = item.subject.variant
        for name, keys in item.keys.items():
            rows = resources.rows(name)
            what = f"evaluate {variant.folder} {name}" + (" (rows unknown)" if rows is None else "")
            asked = (rows or 0) * variant.solver.requests(variant.options)
            found.append(PlanLine(what, keys[0], name not in item.missing, asked, 0))
    return found


def _rows_from(resources: Resources) -> Iterator[str]:
    """Under which id the rows of each benchmark on the hub would be had."""
    from stic_eval.evals.hub import plan_source

    for name, benchmark in resources.benchmarks.items():
        if resources.config.rows_of(name) == "hub":
            at, cached = plan_source(benchmark.source)
            where = "in the local cache" if cached else "to be downloaded"
            yield f"rows of {name}: {at.path}, revision {at.revision[:12]} ({where})"


def duration(seconds: float) -> str:
    """A duration for people: `40 s`, `6 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
