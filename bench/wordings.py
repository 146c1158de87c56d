"""What a run gains on questions in wordings that instruction data has, and in those that are held out.

`python -m bench.wordings [RUN ...]` takes the scores that a run of the embedded model has committed and the
embedded rows, which are drawn anew, and writes `wordings.json` and `wordings.md` into the run's folder
(default: results/pocket, and methods in it). Instruction items ask in the shared wordings alone: a gain on
those and not on the others is a gain on wordings that fine-tuning has seen. `--check` writes nothing and
fails if a file is not what would be written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench.committed import METHODS, POCKET
from stic_eval import registry
from stic_eval.benchmark_protocols import with_options
from stic_eval.evals.scoring.aggregate import percent
from stic_eval.evals.sources import samples
from stic_eval.pocket.questions import held_out
from stic_eval.pocket.rows import sft_items
from stic_eval.report import compared_variants, runs
from stic_eval.report.cell_text import points
from stic_eval.report.compared_variants import Side
from stic_eval.report.head_to_head import measure
from stic_eval.report.paired_comparison import Difference
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Summary

ITEMS = 1000  # of instruction data, as the pocket preset takes


@dataclass(frozen=True)
class Asked:
    """A benchmark's units by what they ask with.

    Attributes:
        title: As printed.
        units: All of them.
        held_out: Those whose question has a wording that no instruction item has.
        prompts: How many rows ask word for word with a prompt for descriptions that training uses.
        items: How many rows ask word for word what an instruction item asks (about another picture).
    """

    title: str
    units: frozenset[str]
    held_out: frozenset[str]
    prompts: int
    items: int

    @property
    def shared(self) -> frozenset[str]:
        """Units whose wording instruction items may have."""
        return self.units - self.held_out


@dataclass(frozen=True)
class Gain:
    """A row of the table against the base.

    Attributes:
        label: The row.
        all: Average over the benchmarks, all units.
        shared: The same on units in shared wordings.
        held_out: The same in wordings that are held out.
        by_seed: `held_out`'s difference, seed by seed.
        parts: Benchmark -> difference on its units in shared wordings, and in those held out.
    """

    label: str
    all: Difference
    shared: Difference
    held_out: Difference
    by_seed: tuple[float, ...]
    parts: Mapping[str, tuple[Difference, Difference]]


def asked(run: Path) -> dict[str, Asked]:
    """Benchmark -> its units, of a run on embedded rows.

    Raises:
        ValueError: The run's units are not the embedded rows of now.
    """
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    said = load_prompts(config["prompts"])
    prompts = {said.step_by_step, *said.plain, *said.misleading}
    scores = runs.load(run)
    found = {}
    for column in scores.columns:
        options = {k: v for k, v in config["benchmark_options"].get(column.name, {}).items() if v is not None}
        rows = samples(with_options(registry.benchmarks().get(column.name), options), "pocket")
        named = [
            (str(row.meta.get("unit", row.id)), str(row.meta.get("question", row.question))) for row in rows
        ]
        units = frozenset(unit for unit, _ in named)
        for entry in scores.entries:
            if not set(entry.summaries[column.name].units) <= units:
                raise ValueError(f"{run}: {column.title} was asked other rows than those that are drawn now")
        found[column.name] = Asked(
            column.title,
            units,
            frozenset(unit for unit, question in named if held_out(question)),
            sum(question in prompts for _, question in named),
            sum(question in _item_questions() for _, question in named),
        )
    return found


@cache
def _item_questions() -> frozenset[str]:
    """What the instruction data asks; worded as the benchmarks word it, about pictures of another split."""
    talks = (item["conversations"] for item in sft_items(ITEMS))
    return frozenset(
        turn["value"].removeprefix("<image>\n") for talk in talks for turn in talk if turn["from"] == "human"
    )


def gains(run: Path) -> Iterator[Gain]:
    """Every row of the run's table against its base."""
    scores, about = runs.load(run), asked(run)
    columns = {column.name: column for column in scores.columns}
    found = [
        Side(run, key, compared_variants.label(entries[0]), scores.model, columns, tuple(entries))
        for key, entries in compared_variants.groups(scores).items()
    ]
    base = next(side for side in found if side.key == "baseline")
    shared = {name: it.shared for name, it in about.items()}
    unseen = {name: it.held_out for name, it in about.items()}
    for side in (one for one in found if one is not base):
        seen, others = (measure(only(base, kept), only(side, kept)) for kept in (shared, unseen))
        lines = {line.name: line.difference for line in others.benchmarks}
        yield Gain(
            side.label,
            measure(base, side).average.difference,
            seen.average.difference,
            others.average.difference,
            tuple(
                measure(
                    only(base, unseen), only(replace(side, entries=(entry,)), unseen)
                ).average.difference.delta
                for entry in side.entries
            ),
            {line.name: (line.difference, lines[line.name]) for line in seen.benchmarks},
        )


def only(side: Side, units: Mapping[str, Collection[str]]) -> Side:
    """A side with some of its benchmarks, and of these some units alone."""
    entries = tuple(
        replace(entry, summaries={name: _only(entry.summaries[name], kept) for name, kept in units.items()})
        for entry in side.entries
    )
    return replace(side, columns={name: side.columns[name] for name in units}, entries=entries)


def _only(summary: Summary, kept: Collection[str]) -> Summary:
    units = {unit: pair for unit, pair in summary.units.items() if unit in kept}
    shared = summary.clusters
    if shared is not None:
        shared = {unit: cluster for unit, cluster in shared.items() if unit in kept}
    return replace(summary, units=units, n=len(units), score=percent(units.values()), clusters=shared)


# ---------------------------------------------------------------- as text


def split_table(gains_: Sequence[Gain]) -> list[str]:
    """Lines of a Markdown table: averages' gains on all rows, in shared wordings, and in those held out."""
    lines = ["| | all rows | shared wordings | held out | held out, by seed |", "|---|---:|---:|---:|---:|"]
    for gain in gains_:
        seeds = ", ".join(f"{delta:+.2f}" for delta in gain.by_seed) if len(gain.by_seed) > 1 else ""
        cells = [_interval(d) for d in (gain.all, gain.shared, gain.held_out)]
        lines.append("| " + " | ".join([gain.label, *cells, seeds]) + " |")
    return lines


def _benchmark_table(gains_: Sequence[Gain], about: Mapping[str, Asked]) -> list[str]:
    lines = ["| | benchmark | shared wordings | held out |", "|---|---|---:|---:|"]
    for gain in gains_:
        for name, parts in gain.parts.items():
            cells = [_interval(d) for d in parts]
            lines.append("| " + " | ".join([gain.label, about[name].title, *cells]) + " |")
    return lines


def _interval(d: Difference) -> str:
    return f"{d.delta:+.2f} [{points(d.low)}, {points(d.high)}]"


def counted(about: Mapping[str, Asked]) -> str:
    """How many units have a wording that is held out, and how many rows ask with a training's prompt."""
    unseen = sum(len(it.held_out) for it in about.values())
    every = sum(len(it.units) for it in about.values())
    prompts = sum(it.prompts for it in about.values())
    who = f"{prompts} rows ask" if prompts > 1 else f"{prompts or 'no'} row asks"
    return (
        f"{unseen:,} of {every:,} units ask in wordings that no instruction item has; {who} word for word "
        "with a prompt for descriptions that training uses."
    )


def page(run: Path) -> tuple[str, str]:
    """wordings.json and wordings.md."""
    about, found = asked(run), list(gains(run))
    data: dict[str, Any] = {
        "benchmarks": {
            name: {
                "title": it.title, "units": len(it.units), "held_out": len(it.held_out),
                "prompts": it.prompts, "items": it.items,
            }
            for name, it in about.items()
        },
        "gains": [
            {
                "row": gain.label,
                "all": _numbers(gain.all),
                "shared": _numbers(gain.shared),
                "held_out": _numbers(gain.held_out),
                "by_seed": [round(delta, 4) for delta in gain.by_seed],
                "benchmarks": {
                    name: {"shared": _numbers(shared), "held_out": _numbers(unseen)}
                    for name, (shared, unseen) in gain.parts.items()
                },
            }
            for gain in found
        ],
    }  # fmt: skip
    items = ", ".join(f"{it.title} {it.items}" for it in about.values() if it.items)
    text = [
        "# Gains by the wording of questions",
        "",
        counted(about),
        "The average's difference to the base in points, with its 95 % interval: over all rows, in wordings",
        "that instruction items share, and in those held out, these also seed by seed.",
        "",
        *split_table(found),
        "",
        "Benchmark by benchmark:",
        "",
        *_benchmark_table(found, about),
        "",
        "Rows whose question occurs word for word in the instruction data, about another picture:",
        f"{items or 'none'}. Fine-tuning alone sees as much of that as STIC does.",
        "",
        "Written by `python -m bench.wordings` from scores.json and the embedded rows.",
        "",
    ]
    return json.dumps(data, indent=1) + "\n", "\n".join(text)


def _numbers(d: Difference) -> dict[str, Any]:
    return {name: round(getattr(d, name), 4) for name in ("delta", "low", "high", "n", "p")}


def main(argv: Sequence[str]) -> int:
    """Writes both files of each run, or checks them."""
    stale = 0
    for run in [Path(arg) for arg in argv if not arg.startswith("-")] or [POCKET, METHODS]:
        for name, text in zip(("wordings.json", "wordings.md"), page(run), strict=True):
            if "--check" in argv:
                stale += not (run / name).is_file() or (run / name).read_text(encoding="utf-8") != text
            else:
                (run / name).write_text(text, encoding="utf-8")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
