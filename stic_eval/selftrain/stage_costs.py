"""What stages cost: recorded by each for itself, and by each for all that it came from.

A cache may lose a stage whose successors it keeps. So a manifest repeats what its needs have cost, and
theirs, each once: whoever has the last stage knows the cost of all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stic_eval.contracts.method import Stage
from stic_eval.errors import UserError
from stic_eval.stage_store import StageStore
from stic_eval.store import read_jsonl


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage.

    Attributes:
        seconds: That it took, when it was computed.
        generations: Answers that it asked for, known ones included.
        known: Whether any of this is recorded; the numbers are 0 otherwise.
    """

    name: str
    key: str
    seconds: float = 0.0
    generations: int = 0
    steps: int = 0
    scored: int = 0
    known: bool = True


def costs_of(keyed: Sequence[tuple[Stage, str]], store: StageStore) -> list[StageCost]:
    """The cost of each stage: by its own manifest, or by that of a stage that came from it."""
    own: dict[str, StageCost] = {}
    repeated: dict[str, StageCost] = {}
    for stage, key in keyed:
        folder = store.done(stage.name, key)
        if folder is None:
            continue
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            own[key] = _own_cost(stage, key, folder, manifest)
            before = [StageCost(**record) for record in manifest.get("came_from", ()) if record.get("known")]
        # Taken away by another process meanwhile, or damaged: where it is used, `sound` says so.
        except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError):
            continue
        repeated |= {one.key: one for one in before}
    found = {**repeated, **own}
    return [found.get(key) or StageCost(stage.name, key, known=False) for stage, key in keyed]


def _own_cost(stage: Stage, key: str, folder: Path, manifest: Mapping[str, Any]) -> StageCost:
    # What was done, where that is recorded; a plan counts pairs that a filter then drops.
    asked = manifest.get("asked", {"generations": stage.generations})
    rows = read_jsonl(folder / "log.jsonl")
    steps = max((row["step"] for row in rows if isinstance(row.get("step"), int)), default=stage.steps)
    return StageCost(
        stage.name, key, float(manifest.get("seconds", 0.0)), asked.get("generations", 0), steps,
        asked.get("scored", 0),
    )  # fmt: skip


def came_from(keyed: Sequence[tuple[Stage, str]], store: StageStore) -> list[dict[str, Any]]:
    """What a stage's manifest says of the stages that it came from."""
    return [asdict(one) for one in costs_of(keyed, store)]
