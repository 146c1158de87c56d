"""What is told of training below a table: what it minimised and was shown, what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from stic_eval.report.runs import Entry, Scores, TextCut


@dataclass(frozen=True)
class Cost:
    """The cost of one training seed of a method, the mean over its seeds.

    Attributes:
        generations: Answers that the model was asked for, known ones included.
        scored: Given answers whose likelihood it was asked for.
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
        asked = _count_of(self.generations, "generation")
        asked += f", {self.scored:,.0f} scored" if self.scored else ""
        return f"{self.title} {asked}, {_count_of(self.steps, 'step')}, {self.seconds:,.0f} s"


def _count_of(number: float, what: str) -> str:
    text = f"{number:,.0f}"
    return f"{text} {what}{'' if text == '1' else 's'}"


def costs(found: Sequence[Scores]) -> list[Cost]:
    """Costs of all trained methods of runs, in their order; stages that methods share count for each.

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
    text = "; ".join(map(str, costs(found)))
    return [f"Training cost of a seed: {text}."] if text else []


def training(entries: Sequence[Entry]) -> list[str]:
    """What was minimised and how images were shown, where these depart, and what of the text was cut."""
    stages = {stage.key: stage for entry in entries for stage in entry.stages}.values()
    notes = []
    for loss in dict.fromkeys(stage.loss for stage in stages if stage.loss):
        of = [e for e in entries if any(stage.loss == loss for stage in e.stages)]
        others = {e.title for e in entries if e not in of}
        titles = dict.fromkeys(e.title + (" in some rows" if e.title in others else "") for e in of)
        notes.append(f"Preference loss: {loss} instead of DPO's sigmoid ({', '.join(titles)}).")
    shown = {any(stage.images == "single_tile" for stage in e.stages) for e in entries if e.stages}
    if True in shown:
        how = "images padded to a square and resized to one tile"
        notes.append(
            (
                f"Rows with training.images=single_tile were trained on {how}"
                if False in shown
                else f"Trained on {how} (training.images=single_tile)"
            )
            + ", as LLaVA's and STIC's released code does; asked about images as the model's processor gives "
            "them."
        )
    cuts: dict[tuple[str, int], list[TextCut]] = {}
    for stage in stages:
        if stage.cut is not None:
            cuts.setdefault((stage.name, stage.cut.max_length), []).append(stage.cut)
    for (name, limit), found in cuts.items():
        fields = ("rows", "cut_rows", "cut_tokens", "left_out")
        rows, cut_rows, cut_tokens, left_out = (sum(getattr(cut, name) for cut in found) for name in fields)
        times = f" in {len(found)} trainings" if len(found) > 1 else ""
        text = f"{cut_rows:,} of {rows:,} rows{times} cut at {limit:,} text tokens, by {cut_tokens:,} in all"
        text += f"; {left_out:,} left out, as no answer was left of them" if left_out else ""
        notes.append(f"Text in training ({name}): {text}.")
    return notes
