"""What an experiment is planned and done with: loaded when it is first needed, once in a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval import registry
from stic_eval.benchmark_protocols import with_options
from stic_eval.experiment import grading, inputs
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore

if TYPE_CHECKING:
    from stic_eval.contracts.benchmark import HubId
    from stic_eval.contracts.engine import Engine
    from stic_eval.contracts.method import Report
    from stic_eval.evals.judging import CachedJudge
    from stic_eval.settings import RunConfig
    from stic_eval.types import Sample


class Resources:
    """Engine, rows, inputs, judge and stores of all arms of an experiment.

    Args:
        config: Settings; of them, those that all arms have in common.
        report: Where progress goes.
        cache: Where stages, answers and a judge's replies lie.
        open_store: Opens the answers of a base model.
    """

    def __init__(
        self,
        config: RunConfig,
        report: Report,
        cache: Path,
        open_store: Callable[[Path], ResponseStore] = ResponseStore,
    ) -> None:
        self.config, self.report, self.cache = config, report, cache
        self.stages = StageStore(cache / "stages")
        self.benchmarks = {
            name: with_options(registry.benchmarks().get(name), config.benchmark_options.get(name, {}))
            for name in config.benchmarks
        }
        # Benchmark -> id and commit that its rows were had under; and what was in the way of them.
        self.hub_ids: dict[str, HubId] = {}
        self.hub_lines: list[str] = []
        self._open_store = open_store
        self._samples: dict[str, list[Sample]] = {}
        self._inputs: dict[tuple[object, ...], inputs.Inputs] = {}

    @cached_property
    def engine(self) -> Engine:
        """Who answers."""
        provider = registry.engines().get(self.config.engine)
        return provider(self.config, self.report.step, lambda: len(self.responses) > 0)

    def close(self) -> None:
        """Ends what the engine has begun, if there is one yet."""
        if "engine" in self.__dict__:
            self.engine.close()

    def take(self, engine: Engine) -> None:
        """Has a model that is loaded already answer; it tells its progress here."""
        engine.step, engine.answered = self.report.step, lambda: len(self.responses) > 0
        self.engine = engine

    @cached_property
    def fingerprint(self) -> str:
        """The base model, and all that its answers depend on."""
        return self.engine.fingerprint()

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end answers, beside those of a benchmark."""
        return self.engine.profile.stop if self.engine.profile is not None else ()

    @cached_property
    def responses(self) -> ResponseStore:
        """Answers of this base model, with any adapter."""
        return self._open_store(self.cache / "responses" / f"{self.fingerprint[:16]}.sqlite")

    @cached_property
    def judge(self) -> CachedJudge | None:
        """Who grades what rules leave open; nothing is sent before there is something to grade."""
        return grading.judge_of(self.config.judge, self.cache)

    def inputs(self, config: RunConfig, reads: Mapping[str, int | None] | None = None) -> inputs.Inputs:
        """What the methods of an arm learn from.

        Args:
            config: The arm's.
            reads: What is read, and how much; None: what its methods need.
        """
        reads = inputs.needs(config) if reads is None else reads
        which = (*inputs.sources(config), *sorted(reads.items()))
        if which not in self._inputs:
            self._inputs[which] = inputs.load(config, self.report, reads)
        return self._inputs[which]

    def samples(self, name: str) -> list[Sample]:
        """The rows of a benchmark, as the limit has them."""
        from stic_eval.evals.sources import samples

        if name not in self._samples:
            config = self.config
            self._samples[name] = samples(
                self.benchmarks[name], config.rows_of(name), limit=config.limit,
                remote=config.allow_remote_images, root=config.rows_root(name),
                hub_use=partial(self._had, name),
            )  # fmt: skip
        return self._samples[name]

    def _had(self, name: str, at: HubId, lines: Sequence[str]) -> None:
        """Takes down where a benchmark's rows were had on the hub."""
        self.hub_ids[name] = at
        self.hub_lines += lines

    def rows(self, name: str) -> int | None:
        """How many rows a benchmark has under the limit; None: not known before they are downloaded."""
        limit = self.config.limit
        if self.config.rows_of(name) != "hub":
            return len(self.samples(name))
        rows = self.benchmarks[name].source.rows
        if rows is None or limit is None:
            return rows
        return max(1, round(limit * rows)) if limit < 1 else min(int(limit), rows)
