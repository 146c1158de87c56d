"""What a run has made: its stages of pairs and its adapters, each found in the cache and picked by flags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stic_eval.errors import UserError
from stic_eval.experiment import graph
from stic_eval.experiment.folder import cache_of
from stic_eval.experiment.resources import Resources
from stic_eval.experiment.worker import SendingReport
from stic_eval.registry import suggest
from stic_eval.report import runs, setting_differences
from stic_eval.report.table_rows import setting
from stic_eval.stage_store import StageStore
from stic_eval.store import cache_dir

if TYPE_CHECKING:
    from stic_eval.settings import RunConfig

_SHOWN = 12


@dataclass
class StageArtifact:
    """One stage's output, and who has it.

    Attributes:
        iteration: Which stage of pairs it is for its methods, from 1 on; 1 for adapters.
        entries: The run's entries that come from it.
    """

    stage: str
    key: str
    seed: int | None
    iteration: int
    iterations: int = 1
    entries: list[runs.Entry] = field(default_factory=list)

    @property
    def flags(self) -> str:
        """Flags that pick it, and the cell of an ablation that it belongs to."""
        names = dict.fromkeys(entry.method for entry in self.entries)
        cells = dict.fromkeys(
            f"{axis}={setting(value)}"
            for entry in self.entries[:1]
            for axis, value in entry.settings.items()
            if axis != "dar"
        )
        flags = [f"--method {name}" for name in names] + [f"--seed {self.seed or 0}"]
        flags += [f"--iteration {self.iteration}"] if self.iterations > 1 else []
        cell = f" ({', '.join(cells)})" if cells else ""
        return f"{' '.join(flags)}{cell}"

    @property
    def label(self) -> str:
        """As `flags`, with the key, which alone picks it as well."""
        return f"{self.flags} (key {self.key[:8]})"


@dataclass(frozen=True)
class RunArtifacts:
    """A run with what was trained in it.

    Attributes:
        scores: What was measured; None of a run that only trained.
        entries: Variants with the stages that their adapters came from.
        stages: The cache's folder of finished stages.
    """

    folder: Path
    config: RunConfig
    scores: runs.Scores | None
    entries: Sequence[runs.Entry]
    stages: Path

    def path(self, output: StageArtifact) -> Path:
        """The folder of a stage's output.

        Raises:
            UserError: The cache does not have it (any more), or its files are not what was written.
        """
        store, messages = StageStore(self.stages), list[str]()
        folder = store.sound(output.stage, output.key, messages.append)
        if folder is None:
            damaged = store.first_damaged(output.stage, output.key)
            what = f"is damaged ({damaged} has changed since it was written)" if damaged else "is not whole"
            if not (store.folder(output.stage, output.key) / "manifest.json").is_file():
                what = f"is not in the cache {self.stages}"
            raise UserError(
                f"{self.folder}: its stage {output.stage} ({output.key[:16]}) {what}; "
                f"`stic-eval train --config {self.folder / 'config.yaml'}` makes it again"
            )
        return folder

    def adapter(self, output: StageArtifact) -> Path:
        """The folder of an adapter.

        Raises:
            UserError: The cache does not have it (any more). A run lists what the cache had: where the
                last stage was lost, one before stands last, which perhaps trained nothing.
        """
        folder = self.path(output) / "adapter"
        if not (folder / "adapter_config.json").is_file():
            raise UserError(
                f"{self.folder}: the last stage it has of {output.flags} is {output.stage} "
                f"({output.key[:16]}), which is not an adapter: a later one was lost from the cache "
                f"{self.stages}; `stic-eval run --config {self.folder / 'config.yaml'}` makes it again"
            )
        return folder


def open_run(run: str, say: Callable[[str], None]) -> RunArtifacts:
    """A run by its folder or name, evaluated or only trained.

    The folder may be somebody else's. Of an evaluated run no plug-in file that its settings name is
    executed; what a run that was only trained has made is not known without its plug-ins.

    Raises:
        UserError: There is none, or its settings cannot be used.
    """
    from stic_eval import config, hub_access

    folder = runs.find(run)
    path = folder / "config.yaml"
    scores = runs.load(folder) if (folder / "scores.json").is_file() else None
    settings = setting_differences.read(folder)
    if scores is None:
        if settings.plugins:
            say(f"executes the plug-ins that the run was trained with: {', '.join(settings.plugins)}")
        settings = config.load(file=path)
    hub_access.go_offline(settings.offline)
    entries = scores.entries if scores else _entries(settings)
    own = folder / "cache"  # of a run that was started with --fresh
    return RunArtifacts(folder, settings, scores, entries, (own if own.is_dir() else cache_dir()) / "stages")


def _entries(config: RunConfig) -> list[runs.Entry]:
    """Entries of a run that was never evaluated, by what its settings amount to."""
    resources = Resources(config, SendingReport(lambda kind, value: None), cache_of(config))
    found = []
    for subject in graph.subjects([graph.arm_of(config, resources)], resources):
        variant = subject.variant
        entry = runs.Entry(
            variant.folder, variant.method.name, variant.method.title, variant.solver.label, variant.seed,
            has_adapter=variant.has_adapter,
        )  # fmt: skip
        entry.stages[:] = [
            runs.TrainedStage(stage.name, key, 0.0, stage.generations, stage.steps, kind=stage.kind)
            for stage, key in subject.stages
        ]
        found.append(entry)
    return found


def all_of(run: RunArtifacts, what: Literal["pairs", "adapter"]) -> list[StageArtifact]:
    """The stages of pairs, or the last stages of adapters, each once."""
    found: dict[str, StageArtifact] = {}
    for entry in run.entries:
        stages = [stage for stage in entry.stages if stage.kind == "pairs"]
        if what == "adapter":
            stages = entry.stages[-1:]
        for number, stage in enumerate(stages, 1):
            output = StageArtifact(stage.name, stage.key, entry.seed, number, len(stages))
            output = found.setdefault(stage.key, output)
            output.entries.append(entry)
    return list(found.values())


def pick(
    run: RunArtifacts,
    what: Literal["pairs", "adapter"],
    method: str | None,
    seed: int | None,
    iteration: int | None = None,
    key: str | None = None,
) -> StageArtifact:
    """The one that flags name.

    Raises:
        UserError: There is none, or several; lists them.
    """
    there = all_of(run, what)
    kind, thing = ("pairs", "sets of pairs") if what == "pairs" else ("adapters", "adapters")
    if not there:
        raise UserError(f"{run.folder}: no {kind} were made in this run")
    making = list(dict.fromkeys(entry.method for output in there for entry in output.entries))
    if method is not None and method not in making:
        raise UserError(
            f"--method {method}: made no {kind} in this run (there are those of {', '.join(making)})"
            f"{suggest(method, making)}"
        )
    found = [
        output
        for output in there
        if (method is None or any(entry.method == method for entry in output.entries))
        and (seed is None or (output.seed or 0) == seed)
        and (iteration is None or output.iteration == iteration)
        and (key is None or output.key.startswith(key))
    ]
    if len(found) == 1:
        return found[0]
    listed = "; ".join(output.label for output in (found or there)[:_SHOWN])
    more = f"; and {len(found or there) - _SHOWN} more" if len(found or there) > _SHOWN else ""
    which = f"there are {len(found)}" if found else "none of the run's is meant by these flags: there are"
    raise UserError(f"{run.folder}: {which} {thing}; name one by flags: {listed}{more}")
