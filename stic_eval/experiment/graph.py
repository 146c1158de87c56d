"""What an experiment amounts to: who is evaluated, which stages that takes, and the tasks that are left.

A run is one arm, a grid has one for each of its cells, and both go through here. Nothing is computed, and
nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.ablations.grid import BASELINE
from stic_eval.experiment import folder, grading, inputs, keys, variants
from stic_eval.experiment.inputs import Inputs
from stic_eval.experiment.variants import Variant
from stic_eval.report import runs
from stic_eval.settings import RunConfig
from stic_eval.store import content_key

if TYPE_CHECKING:
    from stic_eval.ablations.grid import Grid, GridCell
    from stic_eval.contracts.method import Data, Method, Stage
    from stic_eval.experiment.resources import Resources
    from stic_eval.types import Summary


@dataclass(frozen=True)
class Arm:
    """What is evaluated under one configuration: all of a run, or a cell of a grid.

    Attributes:
        config: The configuration.
        inputs: What its methods learn from.
        variants: What is evaluated; no other arm has their folders.
        label: The cell's; empty in a run.
        settings: Axis -> the cell's value; empty in a run.
    """

    config: RunConfig
    inputs: Inputs
    variants: tuple[Variant, ...]
    label: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """A variant, with the stages that make its adapter, each with its content key, the first first."""

    arm: Arm
    variant: Variant
    stages: tuple[tuple[Stage, str], ...]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation of a subject on all benchmarks, each of which is a task.

    Attributes:
        subject: Who is evaluated.
        keys: Benchmark -> content keys: its own, and what earlier versions had for it.
        entry: Its line in scores.json.
        missing: Benchmarks that have no result yet.
        same: The evaluation of another arm that gives the same answers, and is the one that is done.
    """

    subject: Subject
    keys: Mapping[str, tuple[str, ...]]
    entry: runs.Entry
    missing: tuple[str, ...]
    same: Evaluation | None = None

    @property
    def tasks(self) -> dict[str, str]:
        """Id of the task -> benchmark, of those that have no result yet."""
        return {f"evaluate {self.entry.folder}/{name}": name for name in self.missing}

    @property
    def line(self) -> str:
        """What it is called beside others: its cell, or in a run the variant."""
        return self.subject.arm.label or self.subject.variant.label


@dataclass(frozen=True)
class Task:
    """A piece of work that any process can do: it says all that has to be known, and can be written down.

    Attributes:
        id: Unique in an experiment; its first word is the kind of work: a stage's name, or `evaluate`.
        needs: Ids of tasks that have to be done before.
        what: For people.
        config: Settings of the arm.
        reads: What is read of its inputs, as `inputs.needs` has it.
        method: Whose plan has the stages.
        seed: They are run with.
        key: Content key of the stage that is run, or whose adapter answers; empty: none.
        benchmark: What is evaluated; empty: the stage is run, and that is all.
        group: Tasks of one, which have an adapter in common, are done by one worker; empty: none.
        label: The variant, for progress lines.
        solver: How its answers are obtained.
        options: The solver's.
        adapter: Folder of an adapter that was trained elsewhere.
        served: The engine's own name for one; without any and without `key` the base model answers.
        generations: Answers that are asked for.
        steps: Optimiser steps.
        trains: Whether the stage trains an adapter.
        part: (which, of how many): the stage is run on this share of its inputs alone, or the benchmark's
            rows are asked, and nothing is kept but the answers, which the whole task then finds.
    """

    id: str
    needs: tuple[str, ...]
    what: str
    config: RunConfig
    reads: Mapping[str, int | None]
    method: str
    seed: int | None
    key: str = ""
    benchmark: str = ""
    group: str = ""
    label: str = ""
    solver: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    adapter: Path | None = None
    served: str | None = None
    generations: int = 0
    steps: int = 0
    trains: bool = False
    part: tuple[int, int] | None = None

    @property
    def dispensable(self) -> bool:
        """Whether tasks that need it go on without it where it has failed."""
        return self.part is not None


# ---------------------------------------------------------------- who is evaluated


def arm_of(config: RunConfig, resources: Resources) -> Arm:
    """All of a run."""
    given = resources.inputs(config)
    return Arm(config, given, tuple(variants.variants(config, given.data)))


def arms_of(grid: Grid, resources: Resources) -> list[Arm]:
    """The baseline's arm, and one for each cell; cells that are given the same data read it once."""
    reads = inputs.joint(grid.configs)
    given = [resources.inputs(config, reads[number]) for number, config in enumerate(grid.configs)]
    skipped = {(item.source, item.reason): item for one in given for item in one.skipped}
    first = replace(given[0], skipped=tuple(skipped.values()))
    plainly = _directly(grid.base) and all(cell.solver is None for cell in grid.cells)
    named = [v for v in variants.variants(grid.base, first.data) if v.method.name == BASELINE]
    base = tuple(v for v in named if v.solver.label.plain or plainly)
    found = [Arm(grid.base, first, base, "baseline")]
    for cell, config, one in zip(grid.cells, grid.configs, given, strict=True):
        own = tuple(_of_cell(cell, config, one.data, named[0].method))
        found.append(Arm(config, one, own, cell.label, cell.settings))
    return found


def _of_cell(cell: GridCell, config: RunConfig, data: Data, baseline: Method) -> Iterator[Variant]:
    """A cell's variants in folders of their own; without training one is the baseline's, however asked."""
    for variant in variants.variants(config, data):
        plain = cell.method == BASELINE and variant.solver.label.plain and not _directly(config)
        if variant.method.name != cell.method or plain:
            continue
        name = f"{cell.method}+{cell.slug}" if cell.values else cell.method
        name = variant.solver.label.of(name) if cell.solver is None else name  # else an axis says so
        seed = "" if variant.seed is None else f"@seed{variant.seed}"
        method = variant.method if variant.plan.adapter is not None else baseline
        yield replace(variant, folder=name + seed, method=method)


def _directly(config: RunConfig) -> bool:
    """Whether methods answer by `direct`, beside other solvers or not."""
    return config.solvers is None or "direct" in config.solvers


def subjects(arms: Iterable[Arm], resources: Resources) -> list[Subject]:
    """Everything that is evaluated; without stages where the engine trains nothing."""
    from stic_eval.selftrain.stage_runner import stage_key

    found, trains = [], resources.engine.trains_in(resources.config)
    dtype = resources.engine.adapter_dtype if trains else ""
    for arm in arms:
        data, thinking = arm.inputs.data, arm.config.thinking
        for variant in arm.variants:
            known: dict[int, str] = {}
            seed, keyed = variant.seed or 0, []
            for one in variants.stages(variant.plan.adapter) if trains else ():
                key = stage_key(
                    one, data, resources.fingerprint, seed, known, thinking=thinking, adapter_dtype=dtype
                )
                keyed.append((one, key))
            found.append(Subject(arm, variant, tuple(keyed)))
    return found


# ---------------------------------------------------------------- what is done, and what is left


def evaluations(found: Sequence[Subject], resources: Resources, before: runs.Scores) -> list[Evaluation]:
    """All evaluations, each with what is known of it already.

    Args:
        found: Who is evaluated.
        resources: What keys are made of.
        before: What an earlier start has finished.
    """
    known = before.known_summaries()
    stages = {entry.folder: entry.stages for entry in before.entries}
    written = {entry.folder: entry.sha256 for entry in before.entries}
    planned: list[Evaluation] = []
    by_keys: dict[tuple[str, ...], Evaluation] = {}
    for subject in found:
        arm, variant = subject.arm, subject.variant
        of = {name: _keys(subject, name, resources) for name in resources.benchmarks}
        own = tuple(all_of[0] for all_of in of.values())
        same = by_keys.get(own)
        same = None if same is None or same.subject.arm is arm else same
        if same is not None and same.subject.arm is found[0].arm and variant.solver.label.plain:
            continue  # a cell without training or descriptions is the baseline itself
        entry = runs.Entry(
            same.entry.folder if same else variant.folder, variant.method.name, variant.method.title,
            variant.solver.label, variant.seed, settings=dict(arm.settings), has_adapter=variant.has_adapter,
        )  # fmt: skip
        there = folder.list_stages(subject.stages, resources.stages)
        entry.stages[:] = folder.complete(there, stages.get(entry.folder, []))
        for name, key in zip(of, own, strict=True):
            old, summary = known.get((entry.folder, name), ("", None))
            if summary is not None and old in of[name] and not _asks_again(name, summary, resources):
                entry.keys[name], entry.summaries[name] = key, summary
                if name in written[entry.folder]:
                    entry.sha256[name] = written[entry.folder][name]
        missing = tuple(name for name in of if name not in entry.keys)
        planned.append(Evaluation(subject, of, entry, missing, same))
        by_keys.setdefault(own, planned[-1])
    return planned


def _keys(subject: Subject, benchmark: str, resources: Resources) -> tuple[str, ...]:
    """Content key of one evaluation, and what earlier versions had for it."""
    engine, config, variant = resources.engine, subject.arm.config, subject.variant
    adapter = subject.stages[-1][1] if subject.stages else None
    if adapter is not None and engine.adapter_dtype:
        adapter = content_key([adapter, engine.adapter_dtype])
    if adapter is None and (answers := elsewhere(subject, resources)) is not None:
        adapter = engine.fingerprint(answers)
    asked = resources.benchmarks[benchmark]
    judge = grading.identity(resources.judge) if asked.judging else None
    return keys.evaluation_keys(config, asked, variant, resources.fingerprint, adapter, judge)


def elsewhere(subject: Subject, resources: Resources) -> Path | str | None:
    """The adapter of a variant that no stage makes; None: it has none."""
    if resources.engine.trains_in(resources.config):
        return subject.variant.adapter
    return variants.server_name(subject.arm.config, subject.variant)


def _asks_again(name: str, summary: Summary, resources: Resources) -> bool:
    """Whether a server, or a judge, left something open that it is to be asked again."""
    judged = resources.benchmarks[name].judging is not None and resources.judge is not None
    return bool(summary.unanswered or (summary.unscored and judged))


def tasks(planned: Sequence[Evaluation], resources: Resources, fresh: bool = False) -> dict[str, Task]:
    """What is left to do, by id: stages before what needs them, each once, and evaluations.

    Args:
        planned: All evaluations.
        resources: Where finished stages lie.
        fresh: No stage counts as finished.
    """
    found: dict[str, Task] = {}
    trains = resources.engine.trains_in(resources.config)
    for item in planned:
        if item.same is not None or not item.missing:
            continue
        subject = item.subject
        variant = subject.variant
        for task in training(subject, resources, fresh):
            found.setdefault(task.id, task)
        needs = tuple(name for name in map(_id, subject.stages[-1:]) if name in found)
        seed = "" if variant.seed is None or not subject.arm.label else f", seed {variant.seed}"
        for task_id, name in item.tasks.items():
            found[task_id] = replace(
                _task(subject, task_id),
                needs=needs,
                what=f"{item.line}: evaluate {resources.benchmarks[name].title}{seed}",
                key=subject.stages[-1][1] if subject.stages else "",
                benchmark=name,
                group=item.entry.folder,
                label=variant.label,
                solver=variant.solver.name,
                options=variant.options.model_dump(mode="json"),
                adapter=variant.adapter,
                served=None if trains else variants.server_name(subject.arm.config, variant),
                generations=(resources.rows(name) or 0) * variant.solver.requests(variant.options),
            )
    return found


def adapters(found: Sequence[Subject], resources: Resources, fresh: bool = False) -> dict[str, Task]:
    """What is left to do for adapters alone; the last stage of each is always looked at."""
    each = (task for subject in found for task in training(subject, resources, fresh, last=True))
    return {task.id: task for task in each}


def training(
    subject: Subject, resources: Resources, fresh: bool = False, last: bool = False
) -> Iterator[Task]:
    """Tasks for the stages of a subject that are not done, the needs first.

    Args:
        subject: Whose.
        resources: Where finished stages lie.
        fresh: None counts as finished.
        last: The last one also if it is there: whether its files are what was written is not known.
    """
    arm, variant = subject.arm, subject.variant
    wanted: dict[str, tuple[str, ...]] = {}  # content key -> those of its needs

    def want(stage: Stage, key: str) -> None:
        if key not in wanted and (fresh or resources.stages.done(stage.name, key) is None):
            # By equality: of equal stages a plan lists one.
            needs = [(one, own) for one, own in subject.stages if one in stage.needs]
            wanted[key] = tuple(own for _, own in needs)
            for need in needs:
                want(*need)

    for stage, key in subject.stages[-1:]:
        want(stage, key)
        wanted.update({} if key in wanted or not last else {key: ()})
    names = {key: _id((stage, key)) for stage, key in subject.stages if key in wanted}
    for stage, key in subject.stages:
        if key in wanted:
            yield replace(
                _task(subject, names[key]),
                needs=tuple(names[need] for need in wanted[key] if need in names),
                what=f"{arm.label or variant.method.title}: {stage.name}, seed {variant.seed}",
                key=key,
                generations=stage.generations,
                steps=stage.steps,
                trains=stage.trains,
            )


def _task(subject: Subject, name: str) -> Task:
    arm, variant = subject.arm, subject.variant
    return Task(name, (), "", arm.config, arm.inputs.reads, variant.method.name, variant.seed)


def _id(keyed: tuple[Stage, str]) -> str:
    stage, key = keyed
    return f"{stage.name} {key[:16]}"


def closure(ids: Iterable[str], found: Mapping[str, Task]) -> tuple[str, ...]:
    """Tasks of these ids, and all that they wait for, in the order of the plan."""
    wanted, left = set[str](), list(ids)
    while left:
        current = left.pop()
        if current in found and current not in wanted:
            wanted.add(current)
            left += found[current].needs
    return tuple(name for name in found if name in wanted)
