"""Two evaluated variants against each other: the numbers, benchmark by benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev

from stic_eval.errors import UserError
from stic_eval.report import score_guards
from stic_eval.report.compared_variants import Side
from stic_eval.report.flips import Choice, Flip, check_same_rows, choose, read
from stic_eval.report.multiple_testing import PValues, correct
from stic_eval.report.paired_comparison import Difference, compare, percent
from stic_eval.report.table_notes import cluster_notes, knows_no_clusters
from stic_eval.report.table_rows import AVERAGE, EvaluatedVariant, check
from stic_eval.report.tables import lacking
from stic_eval.types import Summary

# How often a judge was asked makes it no other one.
_REPLIES = re.compile(r", \d+ replies each\Z")


@dataclass(frozen=True)
class BenchmarkLine:
    """A benchmark, or the average of all (`average`).

    Attributes:
        a: Score of A in percent, on the units that all runs of both have a verdict for; mean over seeds.
        sd_a: Standard deviation over A's seeds; None with one.
        difference: B minus A, with everything about how sure that is.
    """

    name: str
    title: str
    a: float
    b: float
    sd_a: float | None
    sd_b: float | None
    difference: Difference


@dataclass(frozen=True)
class HeadToHead:
    """A comparison.

    Attributes:
        benchmarks: A line for each benchmark that both have.
        average: Of these; with one benchmark the same as its line.
        notes: What was left out, and what differs beside the answers.
        flips: Of each benchmark the rows that were asked for, the largest change first, and how many there
            are of that kind.
    """

    a: Side
    b: Side
    benchmarks: tuple[BenchmarkLine, ...]
    average: BenchmarkLine
    notes: tuple[str, ...]
    flips: Mapping[str, tuple[Sequence[Flip], int]] = field(default_factory=dict)

    @property
    def lines(self) -> tuple[BenchmarkLine, ...]:
        """All comparisons, each once."""
        return (*self.benchmarks, self.average) if len(self.benchmarks) > 1 else self.benchmarks


def measure(a: Side, b: Side, choice: Choice | None = None) -> HeadToHead:
    """Compares two sides benchmark by benchmark. Seeds that both have are paired.

    The two are a family of their own: their average is tested as it is, the benchmarks behind it. Of records
    one benchmark's at a time are in memory.

    Args:
        a: One side.
        b: The other.
        choice: Which rows that one side does better are wanted; None: none.

    Raises:
        UserError: They have no benchmark, or no row, in common, or mean different rows by the same ids.
    """
    unfinished = [
        f"{which} is unfinished ({side.unfinished})."
        for which, side in (("A", a), ("B", b))
        if side.unfinished
    ]
    a, b, notes = _keep_shared_seeds(a, b)
    notes = [*unfinished, *notes]
    names = [name for name in a.columns if a.summaries(name) and b.summaries(name)]
    if not names:
        raise UserError(f"{a.run} and {b.run} have no benchmark in common")
    alone = [n for n in {**a.columns, **b.columns} if n not in names]
    notes += [f"Left out, as only one of both has them: {', '.join(alone)}."] if alone else []
    if a.run == b.run and [e.folder for e in a.entries] == [e.folder for e in b.entries]:
        notes.append("A and B are the same evaluation: their settings are equivalent.")
    shown = {}
    for name in names:
        wanted = choice if choice is not None and choice.benchmark in (None, name) else None
        records = read(a, b, name, first=wanted is None)
        notes += [*_differing(a, b, name), *check_same_rows(records)]
        if wanted is not None:
            shown[name] = choose(records, wanted)
        for side in (a, b):
            check(side.columns[name].title, side.summaries(name), f"{side.run}: ")
    names = _comparable(a, b, names)
    runs = {name: [list(side.summaries(name)) for side in (a, b)] for name in names}
    found, average = compare(
        {name: both[0] for name, both in runs.items()},
        {name: both[1] for name, both in runs.items()},
        lacks=lacking(_variant(a, runs, 0), _variant(b, runs, 1)),
    )
    if average is None:
        raise UserError(
            f"{a.run} and {b.run} have no rows with a verdict in common; were both asked the same rows?"
        )
    for name in names:
        if name not in found:
            notes.append(f"{a.columns[name].title}: left out, {_why_unpaired(runs[name])}.")
    found = {name: score_guards.without_test(d, *runs[name]) for name, d in found.items()}
    average = score_guards.untested_average(average, found.values())
    notes += cluster_notes(a.columns[name].title for name in found if knows_no_clusters(*runs[name]))
    notes += [note for name in found if (note := score_guards.between(a.columns[name].title, *runs[name]))]
    lines, whole = _lines(a, runs, found, average)
    return HeadToHead(
        a, b, lines, whole, tuple(notes), {name: shown[name] for name in found if name in shown}
    )


def _comparable(a: Side, b: Side, names: Sequence[str]) -> list[str]:
    """Benchmarks that both were asked and graded alike in."""
    older = [name for name in names if _versions_differ(a, b, name)]
    judged = [name for name in names if name not in older and _graders_differ(a, b, name)]
    if len(older) + len(judged) == len(names):
        raise UserError(f"{a.run} and {b.run}: {_why_none_left(a, older, judged)}")
    return [name for name in names if name not in (*older, *judged)]


def _lines(
    a: Side,
    runs: Mapping[str, Sequence[Sequence[Summary]]],
    found: Mapping[str, Difference],
    average: Difference,
) -> tuple[tuple[BenchmarkLine, ...], BenchmarkLine]:
    """The lines of benchmarks and that of their average, with p-values as they are corrected."""
    tested = PValues(average.p, {name: d.p for name, d in found.items()} if len(found) > 1 else {})
    [adjusted] = correct([tested]) if not average.lacks else [PValues(None, {})]
    scores = {name: [_scores(side, runs[name]) for side in runs[name]] for name in found}
    holm = {name: adjusted.benchmarks.get(name, adjusted.average) for name in found}
    lines = tuple(
        _line(name, a.columns[name].title, scores[name], replace(difference, p_holm=holm[name]))
        for name, difference in found.items()
    )
    means = [
        [mean(seed) for seed in zip(*(by_side[at] for by_side in scores.values()), strict=True)]
        for at in (0, 1)
    ]
    return lines, _line(AVERAGE, "Average", means, replace(average, p_holm=adjusted.average))


def _variant(side: Side, runs: Mapping[str, Sequence[Sequence[Summary]]], at: int) -> EvaluatedVariant:
    first = side.entries[0]
    own = {name: both[at] for name, both in runs.items()}
    return EvaluatedVariant(
        first.method, first.title, first.solver, side.seeds, own, has_adapter=first.has_adapter
    )


def _why_unpaired(both: Sequence[Sequence[Summary]]) -> str:
    if any(run.resampled for side in both for run in side):
        return "it has its own statistic, and A and B have different rows"
    return "no row with a verdict in common"


def _keep_shared_seeds(a: Side, b: Side) -> tuple[Side, Side, list[str]]:
    shared = set(a.seeds) & set(b.seeds)
    if not a.seeds or not b.seeds or set(a.seeds) == set(b.seeds):
        return a, b, []
    if not shared:
        return a, b, ["A and B were trained with different seeds."]
    left = sorted(set(a.seeds) ^ set(b.seeds))
    first, second = (
        replace(side, entries=tuple(e for e in side.entries if e.seed in shared)) for side in (a, b)
    )
    return first, second, [f"Left out, as only one of both has them: seeds {', '.join(map(str, left))}."]


def _versions_differ(a: Side, b: Side, name: str) -> bool:
    """Whether different versions of a benchmark asked or graded, as far as both sides say which."""
    mine, theirs = a.columns[name].version, b.columns[name].version
    return bool(mine and theirs and mine != theirs)


def _why_none_left(a: Side, older: Sequence[str], judged: Sequence[str]) -> str:
    """Why no benchmark is left to compare, and what to do."""
    reasons = []
    for names, graders, advice in (
        (older, "versions of the benchmarks", "run the older again"),
        (judged, "judges", "run both with one --judge"),
    ):
        titles = ", ".join(a.columns[name].title for name in names)
        not_compared = f"were graded by different {graders}, whose scores are not compared; {advice}"
        reasons += [f"{titles} {not_compared} (answers are kept)"] if names else []
    return "; ".join(reasons)


def _graders_differ(a: Side, b: Side, name: str) -> bool:
    """Whether different judges, or versions of the rules in a judge's place, decided scores of a benchmark.

    Where a judge was only asked what rules leave open and decided nothing, rules alone did on both sides.
    """
    graders = [_REPLIES.sub("", side.columns[name].grader) for side in (a, b)]
    if graders[0] == graders[1]:
        return False
    judged = any(summary.judged for side in (a, b) for summary in side.summaries(name))
    return judged or all(grader and not grader.startswith("judge ") for grader in graders)


def _differing(a: Side, b: Side, name: str) -> Iterator[str]:
    """What makes a comparison of two runs questionable, as notes."""
    mine, theirs = a.columns[name], b.columns[name]
    if mine.protocol != theirs.protocol:
        yield (
            f"{mine.title}: A and B were asked or scored differently, which the difference contains. "
            f"A: {mine.protocol}. B: {theirs.protocol}."
        )
    if mine.grader != theirs.grader:
        apart = "; left out, as scores by different judges are not compared" * _graders_differ(a, b, name)
        yield (
            f"{mine.title}: A is {mine.grader or 'scored by rule'}, B {theirs.grader or 'scored by rule'}"
            f"{apart}."
        )
    if _versions_differ(a, b, name):
        yield (
            f"{mine.title}: left out, as version {mine.version} of the benchmark graded A, and version "
            f"{theirs.version} B; run the older again."
        )
    sides = [side.summaries(name) for side in (a, b)]
    shared = len(set.intersection(*(set(s.units) for side in sides for s in side)))
    counts = [max(s.n for s in side) for side in sides]
    if shared < max(counts):
        unscored = [max(s.unscored for s in side) for side in sides]
        yield (
            f"{mine.title}: {shared} units are paired; A has {counts[0]} ({unscored[0]} unscored), "
            f"B {counts[1]} ({unscored[1]} unscored)."
        )


def _scores(side: Sequence[Summary], both: Sequence[Sequence[Summary]]) -> list[float]:
    if any(run.resampled for run in side):
        return [float(run.score or 0.0) for run in side]
    shared = set.intersection(*(set(run.units) for runs in both for run in runs))
    return [percent({unit: run.units[unit] for unit in shared}) for run in side]


def _line(name: str, title: str, scores: Sequence[Sequence[float]], difference: Difference) -> BenchmarkLine:
    spreads = [stdev(side) if len(side) > 1 else None for side in scores]
    return BenchmarkLine(name, title, mean(scores[0]), mean(scores[1]), spreads[0], spreads[1], difference)
