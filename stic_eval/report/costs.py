"""What the training of a method costs: what the model was asked, optimiser steps, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from stic_eval.report.runs import Scores


@dataclass(frozen=True)
class Cost:
    """The cost of one training seed of a method, the mean over its seeds.

    Attributes:
        title: The method's.
        generations: Answers that the model was asked for, known ones included.
        scored: Given answers whose likelihood it was asked for.
        steps: Optimiser steps.
        seconds: On the machine that computed the stages, when it computed them.
        unknown: Names of stages whose cost nothing has recorded; the numbers are then of the others alone.
    """

    title: str
    generations: float
    scored: float
    steps: float
    seconds: float
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.unknown:
            return f"{self.title} unknown (the cache has lost {', '.join(self.unknown)})"
        asked = _counted(self.generations, "generation")
        asked += f", {self.scored:,.0f} scored" if self.scored else ""
        return f"{self.title} {asked}, {_counted(self.steps, 'step')}, {self.seconds:,.0f} s"


def _counted(number: float, what: str) -> str:
    text = f"{number:,.0f}"
    return f"{text} {what}{'' if text == '1' else 's'}"


def costs(found: Sequence[Scores]) -> list[Cost]:
    """Of every trained method of runs, in their order; stages that methods share count for each of them.

    Where runs have trained a method otherwise each has its own, with the run's name. An ablation's cells
    are left out: they share a method.
    """
    by_run: dict[tuple[str, str, str], dict[int | None, list[float]]] = {}
    lost: dict[tuple[str, str, str], dict[str, None]] = {}
    for scores in found:
        for entry in scores.entries:
            if not entry.stages or entry.settings:
                continue
            total = [
                sum(getattr(stage, name) for stage in entry.stages)
                for name in ("generations", "scored", "steps", "seconds")
            ]
            who = (entry.method, entry.title, scores.run)
            by_run.setdefault(who, {})[entry.seed] = total
            lost.setdefault(who, {}).update(dict.fromkeys(s.name for s in entry.stages if not s.known))
    unlike: dict[tuple[str, str, tuple[float, float, float, float], tuple[str, ...]], str] = {}
    for (method, title, run), seeds in by_run.items():
        asked, scored, steps, seconds = map(mean, zip(*seeds.values(), strict=True))
        numbers = (asked, scored, steps, seconds)
        unlike.setdefault((method, title, numbers, tuple(lost[method, title, run])), run)
    times = Counter((method, title) for method, title, *_ in unlike)
    return [
        Cost(title if times[method, title] == 1 else f"{title} ({run})", *numbers, unknown)
        for (method, title, numbers, unknown), run in unlike.items()
    ]


def notes(found: Sequence[Scores]) -> list[str]:
    """The costs as a note under a table; none where nothing was trained."""
    said = "; ".join(map(str, costs(found)))
    return [f"Training cost of a seed: {said}."] if said else []
