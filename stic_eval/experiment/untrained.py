"""Cached training that has taught nothing: earlier versions kept it, this one does it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stic_eval.experiment import folder as folders
from stic_eval.report import runs

if TYPE_CHECKING:
    from stic_eval.experiment.graph import Subject
    from stic_eval.experiment.resources import Resources


def discard_untrained(subjects: Sequence[Subject], resources: Resources) -> None:
    """Clears away what training has left as it was, what was made of it, and its scores in the run's folder.

    The keys of such stages are those of sound ones, so nothing else tells them apart.

    Args:
        subjects: All of an experiment.
        resources: Its cache.
    """
    from stic_eval.models.adapter_values import learned_nothing

    store = resources.stages
    untrained: dict[str, str] = {}
    planned: dict[str, tuple[str, set[str]]] = {}
    for subject in subjects:
        for stage, key in subject.stages:
            if key in planned:
                continue
            # By equality: of equal stages a plan lists one.
            needs = {own: need for need, own in subject.stages if need in stage.needs}
            planned[key] = stage.name, set(needs)
            folder = store.done(stage.name, key) if stage.trains else None
            starts = [store.folder(need.name, own) / "adapter" for own, need in needs.items()]
            if folder is not None and learned_nothing(folder / "adapter", starts):
                untrained[key] = stage.name
    if not untrained:
        return
    for key, name in untrained.items():
        resources.report.line(
            f"stage {name} ({key[:16]}): an earlier version kept training that taught nothing; it is "
            "done again, with everything made from it"
        )
    gone = untrained | store.made_of(untrained)
    for key, (name, needs_of) in planned.items():  # what was not finished, too; needs come first
        if needs_of & gone.keys():
            gone[key] = name
    # Before the stages: a kill in between must leave no score of what is gone.
    before = folders.before(resources.config, resources.report)
    for entry in before.entries:
        if any(stage.key in gone for stage in entry.stages):
            entry.keys.clear()
            entry.summaries.clear()
            entry.stages.clear()
    if before.entries:
        runs.save(before, resources.config.folder)
    for key, name in gone.items():
        store.discard(name, key)
