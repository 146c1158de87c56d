"""What adapters came from: their stages with time and size, and their training curves in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval.report.runs import Trained
from stic_eval.store import atomic_write

if TYPE_CHECKING:
    from stic_eval.selftrain.method import Stage
    from stic_eval.store import StageStore


def trained(keyed: Sequence[tuple[Stage, str]], store: StageStore) -> list[Trained]:
    """Lists what of an adapter's stages the cache has.

    Args:
        keyed: Stages with their content keys, the first first.
        store: Where finished stages lie.
    """
    found = []
    for stage, key in keyed:
        done = store.done(stage.name, key)
        if done is None:
            continue
        seconds = float(json.loads((done / "manifest.json").read_bytes()).get("seconds", 0.0))
        found.append(Trained(stage.name, key, seconds, stage.generations, stage.steps))
    return found


def keep_curves(stages: Iterable[Trained], store: StageStore, folder: Path) -> None:
    """Copies the training curves of stages into `training/` in a run's folder, each once."""
    for stage in stages:
        log = store.folder(stage.name, stage.key) / "log.jsonl"
        copy = folder / "training" / f"{stage.name}-{stage.key[:16]}.jsonl"
        if log.is_file() and not copy.is_file():
            atomic_write(copy, log.read_bytes())
