"""`stic-eval ablate --dry-run`: cells, what they have in common, what is cached, and an estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stic_eval.experiment import variants
from stic_eval.printable import printable

if TYPE_CHECKING:
    from stic_eval.ablate import pool
    from stic_eval.cli.cells import Grid, Planned

Todo = Mapping[str, tuple["pool.Task", variants.Line]]


def print_plan(
    grid: Grid, planned: Sequence[Planned], todo: Todo, work: Mapping[str, float], jobs: int
) -> None:
    """Prints the plan of a grid; does nothing."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("cell", overflow="fold")
    for title in ("stages", "cached", "to do", "evaluations", "to do"):
        table.add_column(title, justify="right")
    counts = {index: _counts([p for p in planned if p.cell == index], todo) for index in _cells(planned)}
    for index, numbers in counts.items():
        label = "baseline" if index is None else grid.cells[index].label
        table.add_row(Text(label), *(f"{number:,}" for number in numbers))
    for index, cell in enumerate(grid.cells):
        if index not in counts:
            table.add_row(Text(f"{cell.label} (the baseline itself)"), *["0"] * 5)
    console.print(table)
    distinct = {key for item in planned for _, key in item.session.keyed(item.variant)}
    apart = sum(len(item.session.keyed(item.variant)) for item in _once(planned))
    stages = [line for task, line in todo.values() if task.payload[0] == "stage"]
    seeds = f"{'' if len(grid.base.seeds) == 1 else 's'} {', '.join(map(str, grid.base.seeds))}"
    console.print(
        f"\n{_counted(len(grid.cells), 'cell')}, training seed{seeds}: one by one they would run "
        f"{_counted(apart, 'stage')}; shared it is {len(distinct)}, "
        f"of which {len(distinct) - len(stages)} are cached",
        soft_wrap=True,
    )
    steps = sum(line.steps for _, line in todo.values())
    generations = sum(line.generations for _, line in todo.values())
    seconds = sum(work.values()) / max(1, jobs)
    by = f" with {jobs} jobs" if jobs > 1 else ""
    took = (
        f": about {variants.duration(seconds)}{by} (to a factor of about three; better once such stages have "
        "run here)"
    )
    if planned and (engine := planned[0].session.engine).estimate(1, 0) is None:
        took = f", by {engine.described()}"
    console.print(
        f"to do: {_counted(len(stages), 'stage')}, {_counted(len(todo) - len(stages), 'evaluation')}; "
        f"{_counted(generations, 'generation')}, {_counted(steps, 'optimiser step')}{took}",
        soft_wrap=True,
    )
    if stages and any(item.session.config.training.images == "single_tile" for item in planned):
        console.print("trains on images as: single_tile (training.images)")
    if planned and (asked := planned[0].session.profile) is not None:
        console.print(f"asked as: {printable(asked.title)}", markup=False, soft_wrap=True)
    console.print(f"output: {grid.base.folder}", markup=False, soft_wrap=True)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _cells(planned: Sequence[Planned]) -> list[int | None]:
    return list(dict.fromkeys(item.cell for item in planned))


def _once(planned: Sequence[Planned]) -> list[Planned]:
    """One of a cell's evaluations with and without describe-and-respond, which have one adapter."""
    found: dict[tuple[int | None, int | None], Planned] = {}
    for item in planned:
        found.setdefault((item.cell, item.variant.seed), item)
    return list(found.values())


def _counts(items: Sequence[Planned], todo: Todo) -> tuple[int, int, int, int, int]:
    stages = {(stage.name, key[:16]) for item in items for stage, key in item.session.keyed(item.variant)}
    open_stages = sum(f"{name} {key}" in todo for name, key in stages)
    open_evaluations = sum((item.same or item).task in todo for item in items)
    return len(stages), len(stages) - open_stages, open_stages, len(items), open_evaluations
