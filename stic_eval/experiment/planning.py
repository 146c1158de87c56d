"""What an experiment amounts to before anything is done: arms, evaluations, and the tasks that are left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stic_eval.errors import UserError
from stic_eval.experiment import folder, grading, graph, inputs, parts, variants
from stic_eval.experiment.scores import scores
from stic_eval.experiment.untrained import discard_untrained
from stic_eval.report import runs
from stic_eval.store import atomic_write

if TYPE_CHECKING:
    from stic_eval.ablations.grid import Grid
    from stic_eval.contracts.engine import Ask
    from stic_eval.experiment.graph import Arm, Evaluation, Subject, Task
    from stic_eval.experiment.machine_facts import Facts
    from stic_eval.experiment.resources import Resources
    from stic_eval.settings import RunConfig


@dataclass(frozen=True)
class Experiment:
    """An experiment as it stands.

    Attributes:
        name: Of the run, or the ablation.
        arms: Whatever is evaluated; the first one's inputs know what was left out.
        subjects: Who is evaluated, or trained.
        evaluations: What comes of it, as far as it is there; none where adapters are all that is wanted.
        tasks: What is left to do, by id.
        axes: Of a grid: axis -> its values in their order, the default first.
        without_default: Axes whose first value is not the default.
    """

    name: str
    arms: Sequence[Arm]
    subjects: Sequence[Subject]
    evaluations: Sequence[Evaluation]
    tasks: Mapping[str, Task]
    axes: Mapping[str, list[Any]] = field(default_factory=dict)
    without_default: Sequence[str] = ()

    @property
    def skipped(self) -> int:
        """How many input files were left out."""
        return len(self.arms[0].inputs.skipped)

    @property
    def cached_trainings(self) -> int:
        """How many trainings are done, and come from the cache."""
        todo = {task.key for task in self.tasks.values()}
        return len({key for s in self.subjects for stage, key in s.stages if stage.steps} - todo)

    @property
    def asks(self) -> tuple[set[Ask], bool]:
        """What is left to ask of the engine beside answers, and whether adapters answer that are trained."""
        keys = {task.key for task in self.tasks.values() if task.key}
        todo = {key: stage for subject in self.subjects for stage, key in subject.stages if key in keys}
        answering = any(item.subject.variant.adapter for item in self.evaluations if item.missing)
        return {ask for stage in todo.values() for ask in stage.asks}, bool(todo) or answering

    def workers(self, jobs: int) -> int:
        """How many of a number of workers can be at work at once.

        Tasks of one group come one after the other, and so do those that wait for each other: the bound is
        the number of such sequences, or of the parts of the task that is divided into most.
        """
        needs = {task.group or task.id: task.needs for task in self.tasks.values()}
        followed = set[str]()
        for wanted in needs.values():
            before = (need for need in wanted if need in needs and need not in followed)
            followed.update([*before][:1])
        divided = max((parts.count(task, jobs) for task in self.tasks.values()), default=0)
        return max(1, divided, min(jobs, len(needs) - len(followed)))

    def scores(self, resources: Resources) -> runs.Scores:
        """All results so far."""
        found = scores(self.name, self.evaluations, resources)
        found.axes, found.without_default = dict(self.axes), list(self.without_default)
        return found


def arms_of_run(
    config: RunConfig, resources: Resources, fresh: bool = False, options: Sequence[str] = (),
    machine: Facts | None = None,
) -> list[Arm]:  # fmt: skip
    """The arm of a run, whose input has been looked at; nothing is computed or written.

    Args:
        config: The run.
        resources: What it is planned with.
        fresh: It starts over.
        options: What `-o` was given.
        machine: Where stages are trained; None: here.

    Raises:
        UserError: Device, rows, inputs or options are wrong, or the folder holds another run's results.
    """
    resources.engine.check()
    inputs.check_adapters(config, resources.report)
    inputs.check_pairs(config)
    inputs.check_rows(config)
    inputs.check_tiles(config)
    inputs.check_gang(config, machine)
    if not fresh and (how := runs.other_settings(config.folder, config)) is not None:
        raise UserError(
            f"--output {config.folder}: holds the results of a run with other settings ({how}); give another "
            "folder, or --fresh to start over in this one"
        )
    grading.check_key(resources.judge, config, list(resources.benchmarks.values()), resources.report)
    arm = graph.arm_of(config, resources)
    variants.check_options("-o", options, arm.variants)
    inputs.report_skipped(arm.inputs.skipped, resources.report)
    if not resources.engine.trains_in(config):
        variants.check_server_names(config, arm.variants)
    return [arm]


def arms_of_grid(grid: Grid, resources: Resources, machine: Facts | None = None) -> list[Arm]:
    """The arms of a grid, whose input has been looked at; nothing is computed or written.

    Args:
        grid: The cells.
        resources: What they are planned with.
        machine: Where stages are trained; None: here.

    Raises:
        UserError: Device, rows, inputs or options are wrong, or a server's adapter would answer two cells.
    """
    resources.engine.check()
    for config in grid.configs:
        inputs.check_rows(config)
        inputs.check_tiles(config)
        inputs.check_gang(config, machine)
    grading.check_key(resources.judge, grid.base, list(resources.benchmarks.values()), resources.report)
    arms = graph.arms_of(grid, resources)
    found = [variant for arm in arms for variant in arm.variants]
    variants.check_options("-o", grid.options, found)
    variants.check_options("--vary", (option for cell in grid.cells for option in cell.options), found)
    inputs.report_skipped(arms[0].inputs.skipped, resources.report)
    if not resources.engine.trains_in(grid.base):
        named = [(arm.label, arm.config, arm.variants) for arm in arms[1:]]
        variants.check_apart(named, arms[0].inputs.data)
    return arms


def start_over(config: RunConfig, fresh: bool) -> None:
    """Writes the settings; before, if a run is to start over, makes room for it.

    Not before its input has been looked at: what is wrong must cost nothing of what an earlier run has left.
    """
    if fresh:
        folder.clear(config)
    atomic_write(config.folder / "config.yaml", config.to_yaml())


def plan(
    name: str,
    arms: Sequence[Arm],
    resources: Resources,
    *,
    fresh: bool = False,
    look: bool = False,
    evaluate: bool = True,
) -> Experiment:
    """What an experiment amounts to, and what of it is left.

    Args:
        name: The experiment's.
        arms: Whatever is evaluated.
        resources: What it is planned with.
        fresh: Nothing counts as done.
        look: Nothing is to be done; cached training that has taught nothing stays.
        evaluate: Whether anything is evaluated, or adapters are all that is wanted.
    """
    config, subjects = resources.config, graph.subjects(arms, resources)
    if not look:
        discard_untrained(subjects, resources)
    evaluations: Sequence[Evaluation] = ()
    if evaluate:
        before = folder.nothing(config) if fresh else folder.before(config, resources.report)
        evaluations = graph.evaluations(subjects, resources, before)
        tasks = graph.tasks(evaluations, resources, fresh)
    else:
        tasks = graph.adapters(subjects, resources, fresh)
    found = Experiment(name, arms, subjects, evaluations, tasks)
    if config.report_to and not look and found.cached_trainings:
        trackers = ",".join(config.report_to)
        resources.report.line(
            f"--report-to {trackers}: trainings from the cache ({found.cached_trainings}) send no curves; "
            "--fresh trains again"
        )
    return found
