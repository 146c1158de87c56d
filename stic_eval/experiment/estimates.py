"""What tasks take, roughly: by what such stages took before where the cache has some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stic_eval.contracts.engine import Engine
    from stic_eval.experiment.graph import Evaluation, Task


def seconds(evaluations: Sequence[Evaluation], tasks: Mapping[str, Task], engine: Engine) -> dict[str, float]:
    """Task -> the seconds that it takes.

    Of a server's speed nothing is known: its tasks count by their requests, a second each.
    """
    if engine.estimate(1, 0) is None:
        return {name: float(task.generations) for name, task in tasks.items()}

    def guess(generations: int, steps: int) -> float:
        found = engine.estimate(generations, steps)
        return 0.0 if found is None else found.seconds

    seen: dict[str, tuple[float, float]] = {}
    for stage in {s.key: s for item in evaluations for s in item.entry.stages if s.known}.values():
        took, guessed = seen.get(stage.name, (0.0, 0.0))
        seen[stage.name] = (took + stage.seconds, guessed + guess(stage.generations, stage.steps))
    # Evaluations are not timed in the cache; descriptions are what they are most like.
    like = {"evaluate": "descriptions"}
    total = (sum(took for took, _ in seen.values()), sum(guessed for _, guessed in seen.values()))
    found = {}
    for name, task in tasks.items():
        kind = name.partition(" ")[0]
        took, guessed = seen.get(like.get(kind, kind), total)
        found[name] = guess(task.generations, task.steps) * (took / guessed if guessed and took else 1.0)
    return found
