"""Two evaluated variants against each other: the numbers, benchmark by benchmark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from stic_eval.errors import UserError
from stic_eval.report import family, guards
from stic_eval.report.compare import Difference, compare, percent
from stic_eval.report.flips import same_rows
from stic_eval.report.notes import knows_no_clusters, unclustered
from stic_eval.report.rows import AVERAGE, Variant
from stic_eval.report.sides import Side
from stic_eval.report.tables import check, lacking
from stic_eval.types import Summary

# How often a judge was asked makes it no other one.
_REPLIES = re.compile(r", \d+ replies each\Z")


@dataclass(frozen=True)
class Line:
    """A benchmark, or the average of all (`average`).

    Attributes:
        name: Registry name.
        title: Printed name.
        a: Score of A in percent, on the units that all runs of both have a verdict for; mean over seeds.
        b: The same of B.
        sd_a: Standard deviation over A's seeds; None with one.
        sd_b: The same of B.
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
class Versus:
    """A comparison.

    Attributes:
        benchmarks: A line for each benchmark that both have.
        average: Of these; with one benchmark the same as its line.
        notes: What was left out, and what differs beside the answers.
    """

    a: Side
    b: Side
    benchmarks: tuple[Line, ...]
    average: Line
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """All comparisons, each once."""
        return (*self.benchmarks, self.average) if len(self.benchmarks) > 1 else self.benchmarks


def measure(a: Side, b: Side) -> Versus:
    """Compares two sides benchmark by benchmark. Seeds that both have are paired.

    The two are a family of their own: their average is tested as it is, the benchmarks behind it.

    Raises:
        UserError: They have no benchmark, or no row, in common, or mean different rows by the same ids.
    """
    a, b, notes = _same_seeds(a, b)
    names = [name for name in a.columns if a.summaries(name) and b.summaries(name)]
    if not names:
        raise UserError(f"{a.run} and {b.run} have no benchmark in common")
    alone = [n for n in {**a.columns, **b.columns} if n not in names]
    notes += [f"Left out, as only one of both has them: {', '.join(alone)}."] if alone else []
    if a.run == b.run and [e.folder for e in a.entries] == [e.folder for e in b.entries]:
        notes.append("A and B are one evaluation: their settings come to the same.")
    for name in names:
        notes += [*_differing(a, b, name), *same_rows(a, b, name)]
        for side in (a, b):
            check(side.columns[name].title, side.summaries(name), f"{side.run}: ")
    older = [name for name in names if _versions_apart(a, b, name)]
    judged = [name for name in names if name not in older and _graded_apart(a, b, name)]
    if len(older) + len(judged) == len(names):
        raise UserError(f"{a.run} and {b.run}: {_all_apart(a, older, judged)}")
    names = [name for name in names if name not in (*older, *judged)]
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
            notes.append(f"{a.columns[name].title}: left out, {_unpaired(runs[name])}.")
    found = {name: guards.untested(d, *runs[name]) for name, d in found.items()}
    average = guards.untested_average(average, found.values())
    notes += unclustered(a.columns[name].title for name in found if knows_no_clusters(*runs[name]))
    notes += [note for name in found if (note := guards.between(a.columns[name].title, *runs[name]))]
    tested = family.PValues(average.p, {name: d.p for name, d in found.items()} if len(found) > 1 else {})
    [adjusted] = family.corrected([tested]) if not average.lacks else [family.PValues(None, {})]
    scores = {name: [_scores(side, runs[name]) for side in runs[name]] for name in found}
    lines = [
        _line(
            name,
            a.columns[name].title,
            scores[name],
            replace(difference, p_holm=adjusted.benchmarks.get(name, adjusted.average)),
        )
        for name, difference in found.items()
    ]
    means = [
        [mean(seed) for seed in zip(*(by_side[at] for by_side in scores.values()), strict=True)]
        for at in (0, 1)
    ]
    whole = _line(AVERAGE, "Average", means, replace(average, p_holm=adjusted.average))
    return Versus(a, b, tuple(lines), whole, tuple(notes))


def _variant(side: Side, runs: Mapping[str, Sequence[Sequence[Summary]]], at: int) -> Variant:
    first = side.entries[0]
    own = {name: both[at] for name, both in runs.items()}
    return Variant(first.method, first.title, first.solver, side.seeds, own, has_adapter=first.has_adapter)


def _unpaired(both: Sequence[Sequence[Summary]]) -> str:
    if any(run.resampled for side in both for run in side):
        return "it has a statistic of its own, and A and B have other rows"
    return "no row with a verdict in common"


def _same_seeds(a: Side, b: Side) -> tuple[Side, Side, list[str]]:
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


def _versions_apart(a: Side, b: Side, name: str) -> bool:
    """Whether different versions of a benchmark asked or graded, as far as both sides say which."""
    mine, theirs = a.columns[name].version, b.columns[name].version
    return bool(mine and theirs and mine != theirs)


def _all_apart(a: Side, older: Sequence[str], judged: Sequence[str]) -> str:
    """Why no benchmark is left to compare, and what to do."""
    said = []
    for names, graders, advice in (
        (older, "versions of the benchmarks", "run the older again"),
        (judged, "judges", "run both with one --judge"),
    ):
        titles = ", ".join(a.columns[name].title for name in names)
        not_compared = f"were graded by different {graders}, whose scores are not compared; {advice}"
        said += [f"{titles} {not_compared} (answers are kept)"] if names else []
    return "; ".join(said)


def _graded_apart(a: Side, b: Side, name: str) -> bool:
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
        apart = "; left out, as scores by different judges are not compared" * _graded_apart(a, b, name)
        yield (
            f"{mine.title}: A is {mine.grader or 'scored by rule'}, B {theirs.grader or 'scored by rule'}"
            f"{apart}."
        )
    if _versions_apart(a, b, name):
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


def _line(name: str, title: str, scores: Sequence[Sequence[float]], difference: Difference) -> Line:
    spreads = [stdev(side) if len(side) > 1 else None for side in scores]
    return Line(name, title, mean(scores[0]), mean(scores[1]), spreads[0], spreads[1], difference)
