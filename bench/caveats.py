"""What could explain the claims of results/README.md away: generated from the committed scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench import wordings
from bench.committed import ABLATIONS
from stic_eval import registry
from stic_eval.report import runs, score_guards
from stic_eval.report.runs import Scores

GRADED = ("llava_bench", "mmvet")  # by the rule on key facts


def lines(pocket: Path) -> list[str]:
    """The section, as Markdown."""
    scores, about = runs.load(pocket), wordings.asked(pocket)
    found = [
        "## Before the claims: what could explain them away",
        "",
        "**Repeated wordings.** Instruction data is worded as the benchmarks are (about other pictures), for",
        "plain fine-tuning as much as for STIC, but for some wordings that are held out",
        f"([wordings.md](pocket/wordings.md)): {wordings.counted(about)}",
        "The average's difference to the base, in points:",
        "",
        *wordings.split_table(list(wordings.gains(pocket))),
        "",
        "The claims below have a column of differences on the rows in held-out wordings.",
        "",
        f"**Columns that cannot tell rows apart.** {guarded(scores)}",
        f"They are in the averages all the same; a claim about such a column is left out.\n{still(scores)}",
        "",
        "**One world, one base.** Seeds differ in training alone: the base model, its pictures and the rows",
        "are the same throughout, and so is whatever is odd about them.",
    ]
    if old := _old(pocket):
        found += [
            "",
            f"**The grader.** In {old} LLaVA-Bench and MM-Vet are graded by the first version of the rule",
            "on key facts, which took a fact for named whatever it was said of",
            "([docs/pocket.md](../docs/pocket.md)), until they are run again.",
        ]
    return found


def guarded(scores: Scores) -> str:
    """Which columns of the run say little for the base, and how many units these have."""
    base = next(entry for entry in scores.entries if entry.folder == "baseline")
    titles = {column.name: column.title for column in scores.columns}
    why = {name: reason for name, one in base.summaries.items() if (reason := score_guards.guard([one]))}
    if not why:
        return "None, for the base."
    units = {name: len(one.units) for name, one in base.summaries.items()}
    listed = "; ".join(f"{titles[name]} ({reason})" for name, reason in why.items())
    return (
        f"For the base these are {listed}:\n{sum(units[name] for name in why):,} of {sum(units.values()):,} "
        "units on which no gain can be told from none."
    )


def still(scores: Scores) -> str:
    """How many units have one verdict in all rows and seeds."""
    still: Mapping[str, int] = {
        column.name: sum(
            len({entry.summaries[column.name].units.get(unit) for entry in scores.entries}) == 1
            for unit in scores.entries[0].summaries[column.name].units
        )
        for column in scores.columns
    }
    every = sum(len(scores.entries[0].summaries[name].units) for name in still)
    return f"{sum(still.values()):,} of the {every:,} units have one verdict in all rows and with all seeds."


def _old(pocket: Path) -> str:
    """Which ablations were graded by an earlier version, in words; empty if none was."""
    now = {name: registry.benchmarks().get(name).version for name in GRADED}
    old = []
    for name in ABLATIONS:
        columns = runs.load(pocket / "ablations" / name).columns
        if any(column.version != now[column.name] for column in columns if column.name in now):
            old.append(name)
    return (
        ""
        if not old
        else "the ablations"
        if len(old) == len(ABLATIONS)
        else f"the ablations {', '.join(old)}"
    )
