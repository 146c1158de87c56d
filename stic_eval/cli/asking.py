"""One benchmark asked of one variant: who answers for it, what is recorded, what people are told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stic_eval.experiment import inputs
from stic_eval.store import file_name

if TYPE_CHECKING:
    from stic_eval.cli.session import Session
    from stic_eval.contracts.benchmark import Benchmark
    from stic_eval.contracts.engine import VLM
    from stic_eval.experiment.variants import Variant
    from stic_eval.models.cached import CachedVLM
    from stic_eval.profiles import ConversationProfile
    from stic_eval.settings import ThinkingConfig
    from stic_eval.types import Record, Sample, Summary

# Rows of a benchmark that are asked again one at a time where rounding may change an answer.
_RECHECKED, _TOKENS = 8, 2048  # and most tokens that they may take


def evaluate(session: Session, benchmark: Benchmark, variant: Variant) -> Summary:
    """Asks, scores and records; what the variant needs is trained first."""
    from stic_eval.evals import runner

    config, report = session.config, session.report
    model = _answering(session, variant)
    rows = session.samples(benchmark)
    with report.step(f"{variant.label}: {benchmark.title}", len(rows)) as step:
        records, summary = runner.evaluate(
            benchmark,
            rows,
            model,
            variant.solver,
            variant.options,
            prompts=inputs.prompt_set(config),
            out=session.folder / "records" / variant.folder / f"{file_name(benchmark.name)}.jsonl",
            progress=step.update,
            judge=session.judge,
            step=lambda name, total: report.updates(f"{variant.label}: {name}", total),
        )
    if variant.solver.name == "direct":
        summary = _rechecked(session, benchmark, variant, list(zip(rows, records, strict=True)), summary)
    suspects = sum(bool(record.judge and record.judge.get("suspect")) for record in records)
    if suspects:
        report.line(f"{variant.label}: {benchmark.title}: {suspects} answers seem to speak to the judge")
    if summary.unclosed:
        more = config.thinking.max_new_tokens
        report.line(
            f"{variant.label}: {benchmark.title}: {summary.unclosed} of {summary.answers} answers were cut "
            f"while the model was thinking, and are unscored; it had {more or 'no'} tokens for that: "
            "-o thinking.max_new_tokens=..."
        )
    if summary.unanswered:
        why = next((r.why for r in records if r.score is None and (r.why or "").startswith("no answer")), "")
        report.line(
            f"{variant.label}: {benchmark.title}: {summary.unanswered} of {summary.answers} rows are "
            f"unscored, {why}; the same command asks again"
        )
    return summary


def notes(asked: ConversationProfile | None) -> list[str]:
    """What a table says about how the model was asked: a note, or none where its checkpoint decides."""
    return [] if asked is None else [f"Asked as: {asked.title}."]


def rounding(summaries: Iterable[Summary], kind: str) -> list[str]:
    """What a table says about answers that depend on what they were computed beside: a note, or none.

    Args:
        summaries: Of the table.
        kind: Type of the weights.
    """
    found = list(summaries)
    asked, otherwise = (sum(getattr(s, name) for s in found) for name in ("rechecked", "otherwise"))
    if not asked:
        return []
    return [
        f"Rounding: in {kind}, {otherwise} of {asked} answers came out otherwise when asked one at a time "
        f"({100 * otherwise / asked:.1f} %)."
    ]


def thinking(summaries: Iterable[Summary], how: ThinkingConfig) -> list[str]:
    """What a table says about thinking before answers: a note, or none where nothing was thought.

    Args:
        summaries: Of the table.
        how: Tags, and the room.
    """
    found = list(summaries)
    thoughtful = sum(summary.thoughtful for summary in found)
    notes = []
    if thoughtful:
        total = sum(summary.answers for summary in found)
        notes.append(f"{thoughtful} of {total} answers come after thinking, which is not scored.")
    if how.max_new_tokens:
        notes.append(f"Room for thinking: {how.max_new_tokens:,} tokens beyond the bound on each answer.")
    return notes


def _rechecked(
    session: Session,
    benchmark: Benchmark,
    variant: Variant,
    asked: Sequence[tuple[Sample, Record]],
    summary: Summary,
) -> Summary:
    """Asks some rows again one at a time, by transformers alone, where the weights' type makes that differ.

    In float32 on a CPU it does not, which tests prove. A model that was not loaded is not loaded for this.
    """
    from stic_eval.models.thinking import ThinkingVLM
    from stic_eval.solvers.requests import question

    if not session.engine.loaded:
        return summary
    adapter = session.adapter(variant)
    by_itself = session.engine.alone(adapter)
    if by_itself is None:
        return summary
    bound = benchmark.generation.max_new_tokens + session.config.thinking.max_new_tokens
    most = max(1, min(_RECHECKED, _TOKENS // bound))
    some = asked[:: max(1, len(asked) // most)][:most]
    requests = {question(sample, benchmark.generation): record for sample, record in some}
    how = session.config.thinking
    alone = ThinkingVLM(by_itself, session.engine.fingerprint(adapter), how, session.stop)
    with session.report.step(f"{variant.label}: {benchmark.title}, one at a time", len(requests)) as progress:
        otherwise = 0
        for done, (request, response) in enumerate(alone.generate(requests), 1):
            otherwise += response.text != requests[request].response
            progress.update(done, len(requests))
    return replace(summary, rechecked=len(requests), otherwise=otherwise)


def _answering(session: Session, variant: Variant) -> VLM:
    """Who answers for a variant, behind the cache, without what it thinks."""
    from stic_eval.models.thinking import ThinkingVLM

    cached = _cached(session, variant)
    return ThinkingVLM(cached.generate, cached.fingerprint, session.config.thinking, session.stop)


def _cached(session: Session, variant: Variant) -> CachedVLM:
    from stic_eval.models.cached import CachedVLM

    adapter, engine = session.adapter(variant), session.engine
    return CachedVLM(lambda: engine.answers(adapter), engine.fingerprint(adapter), session.responses)
