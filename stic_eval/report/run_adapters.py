"""Where the adapters lie that a run has trained."""

from __future__ import annotations

from pathlib import Path

from stic_eval.report.runs import Scores
from stic_eval.store import cache_dir


def stages_of(folder: Path) -> Path:
    """The folder of finished stages that a run uses: its own if it was started with --fresh."""
    own = folder / "cache"
    return (own if own.is_dir() else cache_dir()) / "stages"


def adapter_folders(scores: Scores, folder: Path) -> dict[str, Path]:
    """Method with its seed, as commands name it -> folder of its adapter; of those that are there.

    Variants that differ by nothing but their solver have one adapter, which is listed once.

    Args:
        scores: What the run holds.
        folder: The run's.
    """
    found: dict[str, Path] = {}
    for entry in scores.entries:
        if not entry.stages:
            continue
        last = entry.stages[-1]
        adapter = stages_of(folder) / f"{last.name}-{last.key[:16]}" / "adapter"
        if adapter not in found.values() and adapter.is_dir():
            found[entry.folder] = adapter
    return found
