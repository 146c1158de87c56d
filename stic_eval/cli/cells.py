"""An ablation's cells as sessions of one model, and the tasks that they amount to."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval import registry
from stic_eval.ablate import pool
from stic_eval.ablate.grid import BASELINE, Cell
from stic_eval.cli import inputs, plan, provenance
from stic_eval.cli.session import Session
from stic_eval.report import runs
from stic_eval.store import content_key

if TYPE_CHECKING:
    from stic_eval.cli.progress import Reporter
    from stic_eval.config import RunConfig
    from stic_eval.selftrain.method import Stage


@dataclass(frozen=True)
class Grid:
    """What parent and workers have in common; picklable.

    Attributes:
        base: The default's settings, with the ablation's folder as output.
        cells: The cells.
        configs: Their settings.
    """

    base: RunConfig
    cells: tuple[Cell, ...]
    configs: tuple[RunConfig, ...]

    @property
    def key(self) -> str:
        """Content key: of the settings of all cells, but for where output goes."""
        pairs = [[cell.settings, config.key] for cell, config in zip(self.cells, self.configs, strict=True)]
        return content_key([self.base.key, pairs])


@dataclass(frozen=True)
class Planned:
    """An evaluation of a cell: one variant with one seed.

    Attributes:
        cell: Index of the cell; None: the baseline that everything is compared with.
        session: The cell's.
        variant: What is evaluated; its folder is unique within the grid.
        entry: Its line in scores.json.
        missing: Benchmarks that have no result yet -> the key that it gets: of the rows as they are now,
            so that one of rows that change meanwhile is never taken for one of the new rows.
        same: The evaluation that gives the same answers, and is the one that is done.
    """

    cell: int | None
    session: Session
    variant: plan.Variant
    entry: runs.Entry
    missing: Mapping[str, str]
    same: Planned | None = None

    @property
    def task(self) -> str:
        """Id of its task."""
        return f"evaluate {self.variant.folder}"


def sessions(grid: Grid, report: Reporter) -> tuple[Session, list[Session]]:
    """The default's session, and one for each cell that shares model, rows, stores and data with it."""
    base = Session(grid.base, report)
    found = [Session(config, report, beside=base) for config in grid.configs]
    together: dict[tuple[Any, ...], list[Session]] = {}
    for session in found:
        c = session.config
        given = (c.images, c.sft_data, c.pairs_file, c.image_root, c.prompts, c.training.images)
        together.setdefault(given, []).append(session)
    for group in together.values():
        wanted: dict[str, int | None] = {}
        for session in group:
            for kind, count in inputs.needs(session.config).items():
                known = wanted.get(kind, 0)
                wanted[kind] = None if count is None or known is None else max(known, count)
        data = inputs.load(group[0].config, report, wanted)
        for session in group:
            separator = session.config.dar.separator
            same = separator == data.data.separator
            session.inputs = data if same else replace(data, data=replace(data.data, separator=separator))
    skipped = {(item.source, item.reason): item for session in found for item in session.inputs.skipped}
    base.inputs = replace(found[0].inputs, skipped=tuple(skipped.values()))
    return base, found


def evaluations(grid: Grid, base: Session, cells: Sequence[Session]) -> list[Planned]:
    """Everything that the grid evaluates, the baseline first; what is finished already is read."""
    before = base.before()
    known = before.known()
    stages = {entry.folder: entry.stages for entry in before.entries}
    found: list[Planned] = []
    by_keys: dict[tuple[str, ...], Planned] = {}
    for index, session, variant in _variants(grid, base, cells):
        settings = grid.cells[index].settings if index is not None else {}
        trained = variant.plan.adapter is not None
        method, title = variant.method.name, variant.method.title
        if not trained and method != BASELINE:
            method, title = BASELINE, base.variants[0].method.title
        of = {b.name: session.evaluation_keys(b, variant) for b in session.benchmarks}
        keys = {name: all_of[0] for name, all_of in of.items()}
        same = by_keys.get(tuple(keys.values()))
        if same is not None and same.cell is None and not variant.dar:
            continue  # a cell without training or descriptions is the baseline itself
        folder = same.variant.folder if same is not None else variant.folder
        entry = runs.Entry(folder, method, title, variant.dar, variant.seed, settings=settings)
        entry = replace(entry, has_adapter=variant.has_adapter)
        entry.stages[:] = provenance.recalled(session.trained(variant), stages.get(folder, []))
        for name, key in keys.items():
            old, summary = known.get((folder, name), ("", None))
            if summary is not None and old in of[name] and not session.asks_again(name, summary):
                entry.keys[name], entry.summaries[name] = key, summary
        missing = {name: key for name, key in keys.items() if name not in entry.keys}
        planned = Planned(index, session, variant, entry, missing, same)
        by_keys.setdefault(tuple(keys.values()), planned)
        found.append(planned)
    return found


def _variants(
    grid: Grid, base: Session, cells: Sequence[Session]
) -> Iterator[tuple[int | None, Session, plan.Variant]]:
    by_axis = any(cell.dar is not None for cell in grid.cells)
    for variant in base.variants:
        beside = not variant.dar or (base.config.dar.use != "only" and not by_axis)
        if variant.method.name == BASELINE and beside:
            yield None, base, variant
    for index, (cell, session) in enumerate(zip(grid.cells, cells, strict=True)):
        for variant in session.variants:
            if variant.method.name != cell.method:
                continue
            if cell.method == BASELINE and not variant.dar and session.config.dar.use == "only":
                continue
            dar = "+dar" if variant.dar and cell.dar is None else ""  # else an axis says so
            seed = "" if variant.seed is None else f"@seed{variant.seed}"
            name = f"{cell.method}+{cell.slug}{dar}{seed}" if cell.values else f"{cell.method}{dar}{seed}"
            yield index, session, replace(variant, folder=name)


def tasks(grid: Grid, planned: Sequence[Planned]) -> dict[str, tuple[pool.Task, plan.Line]]:
    """What has to be done, by id: stages before what needs them, each once, and evaluations."""
    labels: dict[int | None, str] = {None: "baseline"} | dict(enumerate(c.label for c in grid.cells))
    found: dict[str, tuple[pool.Task, plan.Line]] = {}
    for index, item in enumerate(planned):
        if item.same is not None or not item.missing:
            continue
        keyed = {id(stage): key for stage, key in item.session.keyed(item.variant)}
        adapter = item.variant.plan.adapter if keyed else None  # else a server has it, trained elsewhere
        for stage in _needed(item.session, adapter, keyed):
            key = keyed[id(stage)]
            ident = f"{stage.name} {key[:16]}"
            if ident not in found:
                needs = tuple(f"{need.name} {keyed[id(need)][:16]}" for need in stage.needs)
                what = f"{labels[item.cell]}: {stage.name}, seed {item.variant.seed}"
                line = plan.Line(what, key, False, stage.generations, stage.steps)
                found[ident] = pool.Task(ident, needs, ("stage", index, key)), line
        needs = (f"{adapter.name} {keyed[id(adapter)][:16]}",) if adapter else ()
        rows = sum(_rows(item.session, name) for name in item.missing) * (2 if item.variant.dar else 1)
        seed = "" if item.variant.seed is None else f", seed {item.variant.seed}"
        line = plan.Line(f"{labels[item.cell]}: evaluate{seed}", "", False, rows, 0)
        found[item.task] = pool.Task(item.task, needs, ("evaluate", index, item.missing)), line
    return found


def _needed(session: Session, stage: Stage | None, keyed: Mapping[int, str]) -> list[Stage]:
    """A stage and what it needs, the needs first, as far as they are not done."""
    found: dict[int, Stage] = {}

    def visit(current: Stage) -> None:
        if id(current) in found or session.stages.done(current.name, keyed[id(current)]) is not None:
            return
        for need in current.needs:
            visit(need)
        found[id(current)] = current

    if stage is not None:
        visit(stage)
    return list(found.values())


def _rows(session: Session, name: str) -> int:
    """Rows of a benchmark, as far as that is known without fetching any."""
    from stic_eval.cli.dryrun import rows_of

    return next(rows_of(session, b) or 0 for b in session.benchmarks if b.name == name)


# ---------------------------------------------------------------- in a worker


def work(number: int, common: tuple[Grid, int, Path]) -> Callable[[Any, pool.Send], None]:
    """Makes the sessions of a worker, and gives what works on a task with them."""
    grid, jobs, log = common
    seen = pool.devices(number, os.environ)
    if seen is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = seen
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(pool.share(jobs)))
    from stic_eval.cli.options import go_offline
    from stic_eval.cli.progress import Reporter

    go_offline(grid.base.offline)
    for path in dict.fromkeys(path for config in (grid.base, *grid.configs) for path in config.plugins):
        registry.register(path, "a worker")
    grid = _with_a_share_of_servers(grid, jobs)
    telling = Telling()
    quiet = Reporter(log, quiet=True)
    quiet.__enter__()  # until the process ends
    base, cells = sessions(grid, quiet)
    planned = evaluations(grid, base, cells)
    for session in (base, *cells):
        session.report = telling  # type: ignore[assignment]

    def handle(payload: tuple[str, int, Any], send: pool.Send) -> None:
        kind, index, what = payload
        telling.send = send
        item = planned[index]
        if kind == "stage":
            item.session.train_stage(item.variant, what)
            return
        by_name = {benchmark.name: benchmark for benchmark in item.session.benchmarks}
        for name, key in what.items():
            send("result", (name, key, item.session.evaluate(by_name[name], item.variant)))
        send("result", ("stages", "", item.session.trained(item.variant)))

    return handle


def _with_a_share_of_servers(grid: Grid, jobs: int) -> Grid:
    """The grid for one of several workers: bounds on what servers are asked are for all of them together."""
    if jobs == 1:
        return grid

    def part(config: RunConfig) -> RunConfig:
        cap, flight = config.judge.max_requests, config.server.concurrency
        judge = config.judge.model_copy(update={"max_requests": None if cap is None else cap // jobs})
        server = config.server.model_copy(update={"concurrency": max(1, flight // jobs)})
        return config.model_copy(update={"judge": judge, "server": server})

    return replace(grid, base=part(grid.base), configs=tuple(map(part, grid.configs)))


class Telling:
    """A `Report` that sends progress to the parent and writes lines into the log."""

    def __init__(self) -> None:
        self.send: pool.Send = lambda kind, value: None
        self._logger = logging.getLogger("stic_eval.run")

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Shows a piece of work while the block runs."""
        step = Step(self, name, total)
        step.update(0, total)
        yield step

    @contextmanager
    def updates(self, name: str, total: int | None = None) -> Iterator[Callable[[int, int | None], None]]:
        """A step as a function of (items done, items in all)."""
        with self.step(name, total) as step:
            yield step.update

    def log(self, line: str) -> None:
        """A line for the log."""
        self._logger.info(" ".join(line.split("\n")))

    def line(self, line: str) -> None:
        """A line for the log and for people."""
        self.log(line)
        self.send("line", line)


class Step:
    """A piece of work whose progress is sent, at most a few times a second."""

    def __init__(self, telling: Telling, name: str, total: int | None) -> None:
        self._telling, self._name, self._total, self._said = telling, name, total, 0.0

    def update(self, done: int, total: int | None = None) -> None:
        """Sets the number of items done, and their total if it has become known."""
        import time

        self._total = total if total is not None else self._total
        if done == 0 or done == self._total or time.monotonic() - self._said > 0.25:
            self._said = time.monotonic()
            self._telling.send("progress", (self._name, done, self._total))
