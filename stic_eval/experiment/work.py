"""Doing a task, in whatever process: a stage, or a variant's answers to a benchmark and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

from stic_eval import registry
from stic_eval.durable_files import temporary_folder
from stic_eval.errors import Contained, RunError
from stic_eval.experiment import inputs, variants
from stic_eval.stage_store import StageStore
from stic_eval.training.trackers import Tracking, reporting

if TYPE_CHECKING:
    from stic_eval.contracts.engine import VLM
    from stic_eval.contracts.method import Data, Report, Stage
    from stic_eval.experiment.graph import Task
    from stic_eval.experiment.resources import Resources
    from stic_eval.types import Record, Sample, Summary

# Rows of a benchmark that are asked again one at a time where rounding may change an answer.
_RECHECKED, _TOKENS = 8, 2048  # and most tokens that they may take


def perform(task: Task, resources: Resources) -> Iterator[tuple[str, Any]]:
    """Does a task.

    Yields:
        `result` of a benchmark: (the records as they are written, summary).
    """
    if task.part is not None:
        _ask_part(task, task.part, resources)
        return
    with Contained():
        adapter = _adapter(task, resources)
    if task.benchmark:
        with Contained():
            found = evaluate(task, adapter, resources)
        yield "result", found


def _adapter(task: Task, resources: Resources) -> Any:
    """Who answers; runs the task's stage, if it has one that is not done."""
    return _stage(task, resources) / "adapter" if task.key else task.served or task.adapter


def _stage(task: Task, resources: Resources) -> Path:
    """Gives the folder of a task's stage; computes it, and what it needs, if it is not there."""
    stage, data, _ = _planned(task, resources)
    return _run(stage, data, resources.stages, task, resources)


def _planned(task: Task, resources: Resources) -> tuple[Stage, Data, dict[int, str]]:
    """A task's stage, what its method learns from, and the keys of the stages that it needs."""
    from stic_eval.selftrain.stage_runner import stage_key

    config, seed, known = task.config, task.seed or 0, dict[int, str]()
    given = resources.inputs(config, task.reads).data
    plan, data = variants.make_plan(registry.methods().get(task.method), config, given)
    how: Any = {"thinking": config.thinking, "adapter_dtype": resources.engine.adapter_dtype}
    for stage in variants.stages(plan.adapter):
        if stage_key(stage, data, resources.fingerprint, seed, known, **how) == task.key:
            return stage, data, known
    raise RunError(f"{task.what}: its inputs have changed since it was planned; start again")


def _run(stage: Stage, data: Data, store: StageStore, task: Task, resources: Resources) -> Path:
    from stic_eval.models.single_tile import check_single_tile
    from stic_eval.selftrain.stage_runner import run_stage
    from stic_eval.training.gang import Gang
    from stic_eval.training.gang_launch import is_gang

    config = task.config

    def trainable(adapter: Path | None) -> Any:
        if is_gang(config):
            return Gang(config, resources.engine.release)
        found = resources.engine.trainable(adapter)
        if config.training.images == "single_tile":
            check_single_tile(found.config.to_dict())
        return found

    with reporting(Tracking(config.report_to, config.folder.name, task.what, config.folder.absolute())):
        folder = run_stage(
            stage, data=data, seed=task.seed or 0, fingerprint=resources.fingerprint, model=trainable,
            answers=resources.engine.answers, scorer=resources.engine.likelihoods,
            responses=lambda: resources.responses, store=store, report=resources.report,
            thinking=config.thinking, stop=resources.stop, device=config.device,
            adapter_dtype=resources.engine.adapter_dtype,
        )  # fmt: skip
    if stage.trains:
        resources.engine.trained(folder / "adapter")
    return folder


def _ask_part(task: Task, part: tuple[int, int], resources: Resources) -> None:
    """Asks a part of what a task asks, and keeps nothing but the answers.

    What comes of the task is made of all of its inputs, when that is done: it then finds these answers. So a
    stage that cannot do with a part costs what could have been gained, and nothing else.
    """
    ask = _ask_rows if task.benchmark else _ask_stage
    try:
        with Contained():
            ask(task, part, resources)
    except Exception as error:
        resources.report.log(f"{task.id}: asks nothing more ahead: {registry.explain(error)}")


def _ask_rows(task: Task, part: tuple[int, int], resources: Resources) -> None:
    """Asks a part of a benchmark's rows."""
    from stic_eval.evals import runner

    first, every = part
    benchmark, rows = resources.benchmarks[task.benchmark], resources.samples(task.benchmark)[first::every]
    solver = registry.solvers().get(task.solver)
    with resources.report.step(f"{task.label}: {benchmark.title}", len(rows)) as step:
        runner.ask(
            benchmark, rows, _model(task, _adapter(task, resources), resources), solver,
            solver.options.model_validate(task.options), prompts=inputs.prompt_set(task.config),
            progress=step.update,
        )  # fmt: skip


def _ask_stage(task: Task, part: tuple[int, int], resources: Resources) -> None:
    """Runs a stage on a part of its inputs."""
    stage, data, known = _planned(task, resources)
    first, every = part
    images = data.images[: stage.takes("images")][first::every]
    items = data.sft_items[: stage.takes("sft")][first::every]
    some = replace(data, images=images, sft_items=items, images_key=task.id, sft_key=task.id)
    log = resources.report.log
    there = {need.name: resources.stages.sound(need.name, known[id(need)], log) for need in stage.needs}
    needs = {name: folder for name, folder in there.items() if folder is not None}
    # What a process that was killed has left there the next one sweeps.
    with temporary_folder(Path(gettempdir(), "stic-eval-part"), mode=0o700) as folder:
        alone = replace(stage, needs=(), run=lambda ctx: stage.run(replace(ctx, needs=needs)))
        _run(alone, some, StageStore(folder), task, resources)


def evaluate(task: Task, adapter: Any, resources: Resources) -> tuple[bytes, Summary]:
    """Asks and scores a benchmark; gives the records as they are written, and their summary."""
    from stic_eval.evals import runner

    config, report = task.config, resources.report
    benchmark, rows = resources.benchmarks[task.benchmark], resources.samples(task.benchmark)
    solver = registry.solvers().get(task.solver)
    what = f"{task.label}: {benchmark.title}"
    with report.step(what, len(rows)) as step:
        records, summary = runner.evaluate(
            benchmark,
            rows,
            _model(task, adapter, resources),
            solver,
            solver.options.model_validate(task.options),
            prompts=inputs.prompt_set(config),
            progress=step.update,
            judge=resources.judge,
            step=lambda more, total: _updates(report, f"{task.label}: {more}", total),
        )
    if solver.name == "direct":
        asked = list(zip(rows, records, strict=True))
        summary = _recheck(task, adapter, asked, summary, resources)
    suspects = sum(bool(record.judge and record.judge.get("suspect")) for record in records)
    if suspects:
        report.line(f"{what}: {suspects} answers seem to speak to the judge")
    if summary.unclosed:
        more = config.thinking.max_new_tokens
        report.line(
            f"{what}: {summary.unclosed} of {summary.answers} answers were cut "
            f"while the model was thinking, and are unscored; it had {more or 'no'} tokens for that: "
            "-o thinking.max_new_tokens=..."
        )
    if summary.unanswered:
        why = next((r.why for r in records if r.score is None and (r.why or "").startswith("no answer")), "")
        report.line(
            f"{what}: {summary.unanswered} of {summary.answers} rows are "
            f"unscored, {why}; the same command asks again"
        )
    return runner.encode(records), summary


@contextmanager
def _updates(report: Report, name: str, total: int) -> Iterator[Callable[[int, int | None], None]]:
    with report.step(name, total) as step:
        yield step.update


def _recheck(
    task: Task,
    adapter: Any,
    asked: Sequence[tuple[Sample, Record]],
    summary: Summary,
    resources: Resources,
) -> Summary:
    """Asks some rows again one at a time, by transformers alone, where the weights' type makes that differ.

    In float32 on a CPU it does not, which tests prove. A model that was not loaded is not loaded for this.
    """
    from stic_eval.models.thinking import ThinkingVLM
    from stic_eval.solvers.requests import question

    engine, benchmark, how = resources.engine, resources.benchmarks[task.benchmark], task.config.thinking
    by_itself = engine.alone(adapter) if engine.loaded else None
    if by_itself is None:
        return summary
    bound = benchmark.generation.max_new_tokens + how.max_new_tokens
    most = max(1, min(_RECHECKED, _TOKENS // bound))
    some = asked[:: max(1, len(asked) // most)][:most]
    requests = {question(sample, benchmark.generation): record for sample, record in some}
    alone = ThinkingVLM(by_itself, engine.fingerprint(adapter), how, resources.stop)
    label = f"{task.label}: {benchmark.title}, one at a time"
    with resources.report.step(label, len(requests)) as progress:
        otherwise = 0
        for done, (request, response) in enumerate(alone.generate(requests), 1):
            otherwise += response.text != requests[request].response
            progress.update(done, len(requests))
    return replace(summary, rechecked=len(requests), otherwise=otherwise)


def _model(task: Task, adapter: Any, resources: Resources) -> VLM:
    """Who answers, behind the cache, without what it thinks."""
    from stic_eval.models.response_cache import CachedVLM
    from stic_eval.models.thinking import ThinkingVLM

    engine = resources.engine
    cached = CachedVLM(lambda: engine.answers(adapter), engine.fingerprint(adapter), resources.responses)
    return ThinkingVLM(cached.generate, cached.fingerprint, task.config.thinking, resources.stop)
