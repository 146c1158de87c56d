"""`stic-eval ablate --dry-run`: cells, what they have in common, what is cached, and an estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stic_eval import flags as f
from stic_eval.cli.dryrun import duration, print_gang, print_on_cluster
from stic_eval.engines import costs
from stic_eval.errors import count_of
from stic_eval.experiment import ablation, estimates
from stic_eval.experiment.conduct import Conduct
from stic_eval.printable import printable

if TYPE_CHECKING:
    from stic_eval.experiment.graph import Evaluation, Task


def print_ablation(
    planned: ablation.Ablation, output: f.Output, jobs: int | None, cluster: str = "local", hardware: str = ""
) -> int:
    """Prints the plan of an ablation; does nothing.

    Raises:
        UserError: The input is wrong, as it would be for the ablation itself.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    way = Conduct(jobs, cluster, output.resume, quiet=output.quiet)
    outlook = ablation.look_ahead(planned, way, costs.gpu_named(hardware) if hardware else None)
    experiment, resources, jobs = outlook.experiment, outlook.resources, outlook.jobs
    grid, console, engine = planned.grid, Console(highlight=False), resources.engine
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("cell", overflow="fold")
    for title in ("stages", "cached", "to do", "evaluations", "to do"):
        table.add_column(title, justify="right")
    of: dict[str, list[Evaluation]] = {}
    for item in experiment.evaluations:
        of.setdefault(item.line, []).append(item)
    for label, items in of.items():
        table.add_row(Text(label), *(f"{number:,}" for number in _counts(items, experiment.tasks)))
    for arm in experiment.arms:
        if arm.label not in of:
            table.add_row(Text(f"{arm.label} (the baseline itself)"), *["0"] * 5)
    console.print(table)
    distinct = {key for item in experiment.evaluations for _, key in item.subject.stages}
    apart = sum(len(item.subject.stages) for item in _once(experiment.evaluations))
    todo = experiment.tasks.values()
    stages = [task for task in todo if not task.benchmark]
    evaluations = sum(bool(item.missing) for item in experiment.evaluations if item.same is None)
    seeds = f"{'' if len(grid.base.seeds) == 1 else 's'} {', '.join(map(str, grid.base.seeds))}"
    console.print(
        f"\n{count_of(len(grid.cells), 'cell')}, training seed{seeds}: one by one they would need "
        f"{count_of(apart, 'stage')}; shared it is {len(distinct)}, "
        f"of which {len(distinct) - len(stages)} are cached",
        soft_wrap=True,
    )
    steps, generations = sum(task.steps for task in todo), sum(task.generations for task in todo)
    seconds = sum(estimates.seconds(experiment.evaluations, experiment.tasks, engine).values()) / jobs
    by = f" with {jobs} jobs" if jobs > 1 else ""
    took = (
        f": about {duration(seconds)}{by} (to a factor of about three; better once such stages have run here)"
    )
    if engine.estimate(1, 0) is None:
        took = f", by {engine.described()}"
    console.print(
        f"to do: {count_of(len(stages), 'stage')}, {count_of(evaluations, 'evaluation')}; "
        f"{count_of(generations, 'generation')}, {count_of(steps, 'optimiser step')}{took}",
        soft_wrap=True,
    )
    print_on_cluster(console, outlook)
    if stages and any(arm.config.training.images == "single_tile" for arm in experiment.arms):
        console.print("trains on images as: single_tile (training.images)")
    if stages:
        print_gang(console, outlook)
    for note in engine.plan_notes(*experiment.asks):
        console.print(note, markup=False, soft_wrap=True)
    if (asked := engine.profile) is not None:
        console.print(f"asked as: {printable(asked.title)}", markup=False, soft_wrap=True)
    console.print(f"output: {printable(str(grid.base.folder))}", markup=False, soft_wrap=True)
    return 0


def _once(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """One of a cell's evaluations by several solvers, which have one adapter."""
    found: dict[tuple[str, int | None], Evaluation] = {}
    for item in evaluations:
        found.setdefault((item.line, item.subject.variant.seed), item)
    return list(found.values())


def _counts(items: Sequence[Evaluation], todo: Mapping[str, Task]) -> tuple[int, int, int, int, int]:
    stages = {f"{stage.name} {key[:16]}" for item in items for stage, key in item.subject.stages}
    open_stages = sum(name in todo for name in stages)
    open_evaluations = sum(bool((item.same or item).missing) for item in items)
    return len(stages), len(stages) - open_stages, open_stages, len(items), open_evaluations
