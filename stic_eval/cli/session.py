"""One run from configuration to table: train what the methods need, evaluate, compare."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval import registry
from stic_eval.cli import asking, grading, inputs, keys, machine, plan, provenance, serving
from stic_eval.cli.untrained import discard_untrained
from stic_eval.errors import RunError, UserError
from stic_eval.models.tile import check_single_tile
from stic_eval.report import render, runs, tables
from stic_eval.report.layouts import lay_out
from stic_eval.report.notes import training
from stic_eval.store import (
    ResponseStore,
    StageStore,
    atomic_write,
    cache_dir,
    content_key,
)
from stic_eval.variants import with_options

if TYPE_CHECKING:
    from stic_eval.cli.plan import Variant
    from stic_eval.cli.progress import Reporter
    from stic_eval.config import RunConfig
    from stic_eval.evals.benchmark import Benchmark, HubId
    from stic_eval.evals.judging import Judge
    from stic_eval.models.hf import HFModel
    from stic_eval.models.server import ServerModel
    from stic_eval.profiles import ConversationProfile
    from stic_eval.selftrain.method import Stage
    from stic_eval.types import Sample, Summary


class Session:
    """A run in progress. Loads the model, the rows and the data when they are first needed, once.

    Args:
        config: What to run.
        report: Where progress goes.
        fresh: Start over with a cache of the run's own.
        beside: A session of the same model, benchmarks and rows, whose loaded model, rows and stores
            this one shares.
    """

    def __init__(
        self, config: RunConfig, report: Reporter, fresh: bool = False, beside: Session | None = None
    ) -> None:
        self.config, self.report, self.folder = config, report, config.folder
        self._beside = beside
        self.benchmarks = [
            with_options(registry.benchmarks().get(name), config.benchmark_options.get(name, {}))
            for name in config.benchmarks
        ]
        own = self.folder / "cache"
        self._fresh = fresh
        # A run that was started with --fresh keeps its own cache when it is resumed.
        self.use_cache(own if fresh or own.is_dir() else cache_dir())
        # Method and seed -> what its training failed with.
        self.failed: dict[tuple[str, int | None], Exception] = {}
        self._samples: dict[str, list[Sample]] = beside._samples if beside else {}
        # Benchmark -> id and commit that its rows were had under, of those that this process has read.
        self.hub_ids: dict[str, HubId] = beside.hub_ids if beside else {}
        self._seconds: dict[str, float] = {}
        self._started = time.time()

    # ------------------------------------------------------------ what is loaded on demand

    @cached_property
    def model_fingerprint(self) -> str:
        """The base model's content; of a server's model, its address and name."""
        if self._beside is not None:
            return self._beside.model_fingerprint
        if self.config.engine == "openai":
            return serving.fingerprint(self.config, self.config.model)
        from stic_eval.models.hf import model_fingerprint

        return model_fingerprint(self.config.model, self.config.revision)

    @cached_property
    def dtype(self) -> str:
        """The type of its weights in memory; a server does not say."""
        return "" if self.config.engine == "openai" else machine.dtype_of(self.config)

    @cached_property
    def fingerprint(self) -> str:
        """The base model's content, its weights' type, and how it is packed, attends and is asked."""
        from stic_eval.models.recognition import tags_written

        if self.config.engine == "openai":
            return self.model_fingerprint
        # Tags that are no known ones may be tokens that answers are given without.
        tags, asked = self.config.thinking.more_tags, self.profile and self.profile.content
        config = self.config
        written = tags_written(config.model, config.revision, self.profile)
        ways: list[Any] = [config.quantization, config.attn, tags, asked, written]
        return content_key([self.model_fingerprint, self.dtype, *(way for way in ways if way)])

    @cached_property
    def profile(self) -> ConversationProfile | None:
        """How the model is asked; None: as its checkpoint has it, or the server."""
        from stic_eval.models.recognition import profile_of

        return self._beside.profile if self._beside is not None else profile_of(self.config)

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end answers, beside those of a benchmark."""
        return self.profile.stop if self.profile is not None else ()

    @cached_property
    def base(self) -> HFModel:
        """The base model, in memory."""
        from stic_eval.models.hf import HFModel

        if self._beside is not None:
            return self._beside.base
        config = self.config
        with self.report.step(f"load {config.model}"):
            # The type by name, so that answers are never filed under another than they were given in.
            base = HFModel.load(
                config.model,
                revision=config.revision,
                device=config.device,
                dtype=self.dtype,
                batch_size=config.batch_size,
                trust_remote_code=config.trust_remote_code,
                attn=config.attn,
                quantization=config.quantization,
                gradient_checkpointing=config.gradient_checkpointing,
                tags=config.thinking.more_thinking,
                answer_tags=config.thinking.more_answer,
                profile=self.profile,
            )
        for adapter in config.adapters:
            _ = base.with_adapter(adapter).model  # one that does not fit is told of before hours of work
        return base

    @property
    def loaded(self) -> bool:
        """Whether the base model is in memory."""
        return self._beside.loaded if self._beside is not None else "base" in self.__dict__

    @cached_property
    def _served(self) -> dict[str, ServerModel]:
        """A server's models by name."""
        return self._beside._served if self._beside is not None else {}

    def served(self, name: str) -> ServerModel:
        """A model at the server."""
        if name not in self._served:
            self._served[name] = serving.model(self.config, name, known=len(self.responses) > 0)
        return self._served[name]

    @cached_property
    def responses(self) -> ResponseStore:
        """Answers of this base model, with any adapter."""
        if self._beside is not None:
            return self._beside.responses
        return ResponseStore(self.cache / "responses" / f"{self.fingerprint[:16]}.sqlite")

    @cached_property
    def inputs(self) -> inputs.Inputs:
        """Unlabeled images and instruction data."""
        return inputs.load(self.config, self.report)

    @cached_property
    def variants(self) -> list[Variant]:
        """What is evaluated, the baseline first."""
        found = plan.variants(self.config, self.inputs.data)
        return found + plan.with_adapters(found, self.config.adapters)

    @cached_property
    def judge(self) -> Judge | None:
        """Who grades what rules leave open; nothing is sent before there is something to grade."""
        if self._beside is not None:
            return self._beside.judge
        return grading.judge_of(self.config.judge, self.cache)

    def samples(self, benchmark: Benchmark) -> list[Sample]:
        """The rows of a benchmark, as the limit has them."""
        from stic_eval.evals.sources import samples

        if benchmark.name not in self._samples:
            source = self.config.rows_of(benchmark.name)
            remote = self.config.allow_remote_images
            self._samples[benchmark.name] = samples(
                benchmark, source, limit=self.config.limit, remote=remote,
                hub_use=partial(self._had, benchmark.name),
            )  # fmt: skip
        return self._samples[benchmark.name]

    def _had(self, benchmark: str, at: HubId, lines: Sequence[str]) -> None:
        """Keeps where a benchmark's rows were had on the hub, and says what was in the way."""
        self.hub_ids[benchmark] = at
        for line in lines:
            self.report.line(line)

    def skipped(self) -> Sequence[Any]:
        """Input files that were left out; nothing is read to find out."""
        return self.inputs.skipped if "inputs" in self.__dict__ else ()

    # ------------------------------------------------------------ the work

    def run(self) -> tables.Table:
        """Evaluates every variant, training first what is not trained yet, and writes the table.

        What an earlier run of the same configuration has finished is read, not computed: with all
        of it there, neither the model nor torch is loaded.
        """
        discard_untrained([self])
        before = self.before()
        known = before.known()
        old_stages = {entry.folder: entry.stages for entry in before.entries}
        entries: list[runs.Entry] = []
        todo: list[tuple[runs.Entry, Variant, Benchmark, str]] = []
        for variant in self.variants:
            method = variant.method
            entry = runs.Entry(
                variant.folder, method.name, method.title, variant.dar, variant.seed,
                has_adapter=variant.has_adapter,
            )  # fmt: skip
            entries.append(entry)
            for benchmark in self.benchmarks:
                same = self.evaluation_keys(benchmark, variant)
                old_key, summary = known.get((variant.folder, benchmark.name), ("", None))
                if summary is None or old_key not in same or self.asks_again(benchmark.name, summary):
                    todo.append((entry, variant, benchmark, same[0]))
                else:
                    entry.keys[benchmark.name], entry.summaries[benchmark.name] = same[0], summary
            entry.stages[:] = provenance.recalled(self.trained(variant), old_stages.get(variant.folder, []))
        # What is wrong with rows, or with names at a server, is told before hours of work.
        for _, _, benchmark, _ in todo:
            self.samples(benchmark)
        if todo:
            serving.check_names(self.config, self.variants)
            self.report.log(f"answers by {serving.described(self.config, self.dtype)}")
            if self.profile is not None:
                self.report.log(f"asked as: {self.profile.title}")
        for entry, variant, benchmark, key in todo:
            if not self._is_trained(variant):
                continue
            entry.summaries[benchmark.name] = self.evaluate(benchmark, variant)
            entry.keys[benchmark.name] = key
            entry.stages[:] = provenance.recalled(self.trained(variant), entry.stages)
            # After each benchmark, and with all that was known before: a kill costs the one in flight,
            # whose answers are cached.
            self._save(entries)
        self.keep_curves(entries)
        table = lay_out([self._save(entries)])
        render.write(table, self.folder)
        return table

    def asks_again(self, name: str, summary: Summary) -> bool:
        """Whether a server, or a judge, left something open that it is to be asked again."""
        if summary.unanswered:
            return True
        judging = any(b.name == name and b.judging is not None for b in self.benchmarks)
        return bool(summary.unscored and judging and self.judge is not None)

    def train(self, variant: Variant) -> Path | None:
        """Runs what stages of a variant are not done; returns the adapter's folder, None for no adapter."""
        if variant.plan.adapter is None:
            return variant.adapter
        return self._made(variant.plan.adapter, variant) / "adapter"

    def _is_trained(self, variant: Variant) -> bool:
        """Trains a variant if that is not done. A method that fails does not stop the others of a run."""
        who = (variant.method.name, variant.seed)
        if who in self.failed or variant.plan.adapter is None or self.config.engine == "openai":
            return who not in self.failed
        try:
            self.train(variant)
        except Exception as error:  # whatever a model or a plug-in raises
            if len({other.method.name for other in self.variants if other.plan.adapter}) == 1:
                raise
            self.failed[who] = error
            known = isinstance(error, (UserError, RunError))
            self.report.line(f"{variant.label} failed: {error if known else registry.told(error)}")
        return who not in self.failed

    def train_stage(self, variant: Variant, key: str) -> Path:
        """Runs the stage of a variant that has a content key, and what it needs, if it is not done."""
        return next(self._made(stage, variant) for stage, own in self.keyed(variant) if own == key)

    def _made(self, stage: Stage, variant: Variant) -> Path:
        from stic_eval.selftrain.execute import run_stage

        return run_stage(
            stage,
            data=self.inputs.data,
            seed=variant.seed or 0,
            fingerprint=self.fingerprint,
            model=self.base_with,
            responses=lambda: self.responses,
            store=self.stages,
            report=self.report,
            thinking=self.config.thinking,
            stop=self.stop,
        )

    def keyed(self, variant: Variant) -> list[tuple[Stage, str]]:
        """The stages of a variant with their content keys, the first first; none for a server's adapter."""
        if self.config.engine == "openai":
            return []
        known: dict[int, str] = {}
        return [
            (stage, self._stage_key(stage, variant, known)) for stage in plan.stages(variant.plan.adapter)
        ]

    def _stage_key(self, stage: Stage, variant: Variant, known: dict[int, str]) -> str:
        from stic_eval.selftrain.execute import stage_key

        how = self.config.thinking
        return stage_key(stage, self.inputs.data, self.fingerprint, variant.seed or 0, known, thinking=how)

    def trained(self, variant: Variant) -> list[runs.Trained]:
        """What a variant's adapter came from, as far as the cache has it."""
        return provenance.trained(self.keyed(variant), self.stages)

    def base_with(self, adapter: Path | None) -> HFModel:
        """The base model with an adapter attached, or as it is.

        Raises:
            UserError: What is to be trained by single tiles has none.
        """
        if self._tiles:
            check_single_tile(self.base.config.to_dict())
        return self.base.with_adapter(adapter)

    @cached_property
    def _tiles(self) -> bool:
        """Whether anything is trained by single tiles; known before hours of work for it."""
        trained = any(variant.plan.adapter is not None for variant in self.variants)
        return trained and self.config.training.images == "single_tile"

    def evaluate(self, benchmark: Benchmark, variant: Variant) -> Summary:
        """Asks, scores and records one benchmark."""
        start = time.monotonic()
        summary = asking.evaluate(self, benchmark, variant)
        self._seconds[f"evaluate {variant.folder}/{benchmark.name}"] = time.monotonic() - start
        return summary

    def evaluation_keys(self, benchmark: Benchmark, variant: Variant) -> tuple[str, ...]:
        """Content key of one evaluation, and what earlier versions had for it."""
        adapter: str | None = None
        if self.config.engine == "openai":
            name = plan.served(self.config, variant)
            adapter = None if name == self.config.model else serving.fingerprint(self.config, name)
        elif variant.adapter is not None:
            adapter = self.adapted(variant.adapter)
        elif variant.plan.adapter is not None:
            adapter = self._stage_key(variant.plan.adapter, variant, {})
        prompt = inputs.describe_prompt(self.config)
        judge = grading.identity(self.judge) if benchmark.judging else None
        return keys.evaluation_keys(self.config, benchmark, variant, self.fingerprint, adapter, prompt, judge)

    def adapted(self, adapter: Path | None) -> str:
        """The fingerprint of the base model with an adapter."""
        from stic_eval.models.fingerprint import adapter_fingerprint

        return adapter_fingerprint(self.fingerprint, adapter)

    # ------------------------------------------------------------ the run's folder

    def check(self) -> None:
        """Looks at what is given, without computing or writing anything.

        Raises:
            UserError: Device, rows or inputs are wrong, or the folder holds another run's results.
        """
        serving.check(self.config)
        inputs.check_adapters(self.config, self.report)
        inputs.check_pairs(self.config)
        inputs.check_rows(self.config)
        inputs.check_tiles(self.config)
        if not self._fresh and runs.of_another(self.folder, self.config):
            raise UserError(
                f"--output {self.folder}: holds the results of a run with other settings; give another "
                "folder, or --fresh to start over in this one"
            )
        grading.check_key(self.judge, self.config, self.benchmarks, self.report)
        if self.config.engine == "openai":
            plan.check_served(self.config, self.variants)
        _ = self.inputs

    def begin(self) -> None:
        """Checks what is given, then makes room if the run starts over, and writes its settings.

        In this order, for wrong input must cost nothing of what an earlier run has left here.

        Raises:
            UserError: As `check`.
        """
        self.check()
        if self._fresh:
            self.clear()
        atomic_write(self.folder / "config.yaml", self.config.to_yaml())

    def clear(self) -> None:
        """Starts over: with an empty cache of its own, and nothing of earlier results."""
        self.use_cache(self.folder / "cache")
        for folder in (self.cache, self.folder / "records", self.folder / "training"):
            shutil.rmtree(folder, ignore_errors=True)
        self.cache.mkdir(parents=True)
        (self.folder / "scores.json").unlink(missing_ok=True)

    def use_cache(self, cache: Path) -> None:
        """Takes stages, answers and a judge's replies from a folder, and puts them there."""
        self.cache, self.stages = cache, StageStore(cache / "stages")

    def end(self) -> None:
        """Writes what is known after it: the list of what was skipped, and the manifest.

        A run that only read what another had computed leaves that one's manifest: it tells where
        the numbers come from.
        """
        provenance.list_skipped(self)
        if self._seconds or not (self.folder / "manifest.json").is_file():
            more = {"key": self.config.key, **self.config.answering, **provenance.given(self.config)}
            provenance.manifest(self, self.config.name, self._started, self._seconds, more)

    def before(self) -> runs.Scores:
        """What the folder holds of an earlier start; nothing of it if it cannot be read."""
        if (self.folder / "scores.json").is_file():
            try:
                return runs.load(self.folder)
            except UserError as error:
                self.report.line(f"{error} (computed anew)")
        return runs.Scores(self.config.name, [], [])

    def columns(self) -> list[tables.Column]:
        """The benchmarks as a table's columns."""
        return [
            tables.Column(
                benchmark.name,
                benchmark.title,
                grading.protocol_text(benchmark),
                grading.grader_text(benchmark, self.config.rows_of(benchmark.name), self.judge),
                benchmark.version,
            )
            for benchmark in self.benchmarks
        ]

    def keep_curves(self, entries: Sequence[runs.Entry]) -> None:
        """Copies the training curves of all adapters into the run's folder."""
        provenance.keep_curves((stage for e in entries for stage in e.stages), self.stages, self.folder)

    def _save(self, entries: Sequence[runs.Entry]) -> runs.Scores:
        notes = serving.notes(self.config, self.variants, self.dtype) + asking.notes(self.profile)
        notes += training(entries)
        summaries = [summary for entry in entries for summary in entry.summaries.values()]
        notes += asking.thinking(summaries, self.config.thinking) + asking.rounding(summaries, self.dtype)
        notes += provenance.undated((stage for entry in entries for stage in entry.stages), self.stages)
        scores = runs.Scores(self.config.name, self.columns(), list(entries), notes, self.config.model)
        runs.save(scores, self.folder)
        return scores
