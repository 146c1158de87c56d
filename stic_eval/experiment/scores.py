"""All results of an experiment so far, with what a table says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stic_eval.experiment import folder, grading, variants
from stic_eval.report import runs
from stic_eval.report.table_rows import Column
from stic_eval.report.training_costs import training

if TYPE_CHECKING:
    from stic_eval.experiment.graph import Evaluation
    from stic_eval.experiment.resources import Resources
    from stic_eval.setting_groups import ThinkingConfig
    from stic_eval.types import Summary


def columns(resources: Resources) -> list[Column]:
    """The benchmarks as a table's columns."""
    return [
        Column(
            name,
            benchmark.title,
            grading.protocol_text(benchmark),
            grading.grader_text(benchmark, resources.config.rows_of(name), resources.judge),
            benchmark.version,
        )
        for name, benchmark in resources.benchmarks.items()
    ]


def scores(name: str, evaluations: Sequence[Evaluation], resources: Resources) -> runs.Scores:
    """All results so far, with what a table says of them."""
    config, engine = resources.config, resources.engine
    entries = [item.entry for item in evaluations]
    summaries = [summary for entry in entries for summary in entry.summaries.values()]
    subjects = [item.subject for item in evaluations]
    notes = _limited(config.limit)
    notes += engine.notes(variants.answerers(((s.arm.config, s.variant) for s in subjects), engine))
    notes += [] if engine.profile is None else [f"Asked as: {engine.profile.title}."]
    notes += training(entries) + _thinking(summaries, config.thinking) + _rounding(summaries, engine.dtype)
    notes += folder.note_digests((stage for entry in entries for stage in entry.stages), resources.stages)
    return runs.Scores(name, columns(resources), entries, notes, config.model)


def _limited(limit: float | None) -> list[str]:
    """What a table says about benchmarks of which not all rows were asked: a note, or none."""
    if limit is None:
        return []
    part = f"{100 * limit:g} %" if limit < 1 else f"at most {int(limit):,}"
    return [f"--limit {limit:g}: scores cover {part} of each benchmark's rows."]


def _rounding(summaries: Iterable[Summary], kind: str) -> list[str]:
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


def _thinking(summaries: Iterable[Summary], how: ThinkingConfig) -> list[str]:
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
