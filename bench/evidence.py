"""results/README.md: the paper's claims one by one, and whether the miniature shows them.

`python -m bench.evidence` builds the page from the records of `results/pocket`. A verdict is by rule: by the
side of zero on which the 95 % interval lies, if it is on one, and by p after Holm's correction over the
section of the page. Explanations are written by hand for the verdict that they stand beside, so that none
outlives the numbers that it explains.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from bench import caveats, wordings
from bench.claims import AIM_OF_SEVEN, GROUPS, HEAD, ON_EACH, TAIL, Claim, Of, Verdict
from bench.committed import ABLATIONS, ABLATIONS_FOLDER, FEW, POCKET, RESULTS, SEEDS
from stic_eval.report import runs, score_guards
from stic_eval.report.cell_text import points
from stic_eval.report.compared_variants import Side
from stic_eval.report.head_to_head import measure
from stic_eval.report.multiple_testing import PValues
from stic_eval.report.multiple_testing import correct as by_family
from stic_eval.report.paired_comparison import Difference
from stic_eval.report.table_layouts import lay_out
from stic_eval.report.tables import Table


def side(row: Of) -> Side:
    """A row's results.

    Raises:
        LookupError: There is no such row.
    """
    folder = ABLATIONS_FOLDER / row.ablation if row.ablation else POCKET
    scores = runs.load(folder)
    wanted: dict[str, Any] | None = None
    if row.ablation and row.settings is not None:
        wanted = {axis: values[0] for axis, values in scores.axes.items()} | dict(row.settings)
    entries = [
        entry
        for entry in scores.entries
        if (entry.method, not entry.solver.plain) == (row.method, row.dar)
        and (entry.settings or None) == wanted
    ]
    if not entries:
        raise LookupError(f"{folder}: no row {row}")
    label = f"{entries[0].title}{' + DaR' if row.dar else ''}"
    columns = {column.name: column for column in scores.columns}
    return Side(folder, entries[0].folder, label, scores.model, columns, tuple(entries))


def verdict(difference: Difference, margin: float = 0.0) -> Verdict:
    """What a corrected difference says about a claim that it lies above the margin, in points."""
    if margin:
        return (
            "shown"
            if difference.low > margin
            else "contradicted"
            if difference.high < margin
            else "not shown"
        )
    if difference.low > 0:
        return "shown" if difference.significant else "suggested"
    if difference.high < 0:
        return "contradicted" if difference.significant else "suggested otherwise"
    return "not shown"


def corrected(group: Sequence[Claim]) -> list[tuple[Claim, Difference]]:
    """A section's claims with their differences.

    What a run's own table compares has that table's corrected p, and so its mark. The other pairs of a
    section are a family of their own, corrected as a table's averages are.
    """
    found = [tabled(claim) for claim in group]
    others = [measured(claim) for claim, known in zip(group, found, strict=True) if known is None]
    tested = by_family([PValues(other.p, {}) for other in others])
    rest = iter([replace(d, p_holm=p.average) for d, p in zip(others, tested, strict=True)])
    return [(claim, known or next(rest)) for claim, known in zip(group, found, strict=True)]


def tabled(claim: Claim) -> Difference | None:
    """The claim's difference as the table of its run has it; None if that compares other rows."""
    for row, base, sign in ((claim.more, claim.less, 1), (claim.less, claim.more, -1)):
        if (base.method, base.dar, base.settings) != ("baseline", False, None):
            continue
        one = side(row).entries[0]
        for line in _table(side(row).run).rows:
            of = line.variant
            if (of.method, of.solver, of.settings) == (one.method, one.solver, one.settings):
                found = line.cells[claim.benchmark].difference
                return found if found is None or sign > 0 else _reversed(found)
    return None


@cache
def _table(folder: Path) -> Table:
    return lay_out([runs.load(folder)])


def _reversed(d: Difference) -> Difference:
    return replace(d, delta=-d.delta, low=-d.high, high=-d.low, better=d.worse, worse=d.better)


def measured(claim: Claim) -> Difference:
    """The claim's difference, `more` minus `less`, in points."""
    found = measure(side(claim.less), side(claim.more))
    line = found.average if claim.benchmark == "average" else None
    line = line or next(one for one in found.benchmarks if one.name == claim.benchmark)
    return line.difference


def page(groups: Mapping[str, list[Claim]], head: str, tail: str) -> str:
    """The page as Markdown."""
    lines = [head.strip(), "", *caveats.lines(POCKET), ""]
    for title, group in groups.items():
        heads = "| claim | paper | miniature | held-out wordings | p (Holm) | |"
        lines += [f"## {title}", "", heads]
        lines += ["|---|---:|---:|---:|---:|---|"]
        notes = [
            f"- *{claim.text}*: left out. The base: {reason}."
            for claim in group
            if (reason := guarded(claim))
        ]
        tested = corrected([claim for claim in group if not guarded(claim)])
        for claim, d in tested:
            says, rest = verdict(d, claim.margin), on_held_out(claim)
            p = "-" if d.p != d.p or d.p_holm is None or claim.margin else f"{d.p:.2g} ({d.p_holm:.2g})"
            lines.append(
                f"| {claim.text} | {claim.paper} | {_interval(d)} | {_interval(rest)} | {p} "
                f"| **{says}**{amount(claim, says, d)}{borne_out(says, rest, claim.margin)} |"
            )
            if claim.why.get(says):
                notes.append(f"- *{claim.text}*: {claim.why[says]}")
        if title == ON_EACH:
            shown = sum(verdict(d) == "shown" for _, d in tested)
            notes.append(f"- Shown on {shown} of {len(group)} benchmarks; the aim is {AIM_OF_SEVEN}.")
        lines += ["", *notes, ""] if notes else [""]
    return "\n".join(lines) + "\n" + tail.strip() + "\n"


def guarded(claim: Claim) -> str:
    """Why the score that a claim about one benchmark starts from says little; empty if it does not."""
    if claim.benchmark == "average":
        return ""
    return score_guards.guard(side(claim.less).summaries(claim.benchmark))


def on_held_out(claim: Claim) -> Difference:
    """The claim's difference on rows in wordings that no instruction item has."""
    about = _asked()
    names = list(about) if claim.benchmark == "average" else [claim.benchmark]
    kept = {name: about[name].held_out for name in names}
    less, more = (wordings.only(side(row), kept) for row in (claim.less, claim.more))
    return measure(less, more).average.difference


@cache
def _asked() -> Mapping[str, wordings.Asked]:
    return wordings.asked(POCKET)


def _interval(d: Difference) -> str:
    if d.unmoved:
        return f"no row differs ({score_guards.bound(d)} may)"
    return f"{points(d.delta, '+')} [{points(d.low)}, {points(d.high)}]"


def amount(claim: Claim, says: Verdict, d: Difference) -> str:
    """Whether a gain comes to the points that the claim names; empty if it names none, or none is there."""
    if not claim.least or says not in ("shown", "suggested"):
        return ""
    return (
        f", by at least {claim.least:g} points"
        if d.delta >= claim.least
        else f", but by less than {claim.least:g}"
    )


def borne_out(says: Verdict, rest: Difference, margin: float = 0.0) -> str:
    """Whether rows in held-out wordings, a third of all, bear a verdict out; empty if they do."""
    sign = {"shown": 1, "suggested": 1, "suggested otherwise": -1, "contradicted": -1}.get(says, 0)
    if not sign:
        return ""
    low, high = sorted((sign * (rest.low - margin), sign * (rest.high - margin)))
    if low > 0:
        return ""
    return ", the opposite in held-out wordings" if high < 0 else ", open in held-out wordings"


def listed() -> list[str]:
    """A line for each ablation: its folder, what it varies, its figures."""
    found = []
    for name in ABLATIONS:
        folder = ABLATIONS_FOLDER / name
        axes = ", ".join(f"`{axis}`" for axis in runs.load(folder).axes)
        figures = sorted((folder / "figures").glob("*.svg"))
        shown = ", ".join(f"[{f.stem}](pocket/ablations/{name}/figures/{f.name})" for f in figures)
        seeds = len(ABLATIONS[name].seeds)
        found.append(f"| [{name}](pocket/ablations/{name}/table.md) | {axes} | {seeds} | {shown} |")
    return found


def spared() -> str:
    """What of the shipped ablations was not run, in words."""
    parts = [
        f"`{name}` is without {' and '.join(f'`{item}`' for item in of.spared[1::2])}"
        for name, of in ABLATIONS.items()
        if of.spared
    ]
    return f"Cells of shipped ablations that two cores were spared: {', '.join(parts)}."


def main() -> None:
    """Writes the page, or with `--print` the numbers behind it."""
    if "--print" in sys.argv[1:]:
        for claim, d in (pair for group in GROUPS.values() for pair in corrected(group)):
            p = "" if d.p_holm is None else f" ({d.p_holm:.2g})"
            shown = f"{d.delta:+.2f} [{d.low:.2f}, {d.high:.2f}] p={d.p:.2g}{p}"
            print(f"{verdict(d, claim.margin):20} {shown}  {claim.text}")
        return
    tail = TAIL.replace("{ablations}", "\n".join(listed())).replace("{spared}", spared())
    head = HEAD.replace("{seeds}", _words(len(SEEDS))).replace("{few}", _words(len(FEW)))
    (RESULTS / "README.md").write_text(page(GROUPS, head, tail), encoding="utf-8")


def _words(number: int) -> str:
    return ("no", "one", "two", "three", "four", "five", "six")[number]


if __name__ == "__main__":
    main()
