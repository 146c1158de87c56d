"""`stic-eval compare`: two evaluated variants, sample by sample."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Annotated, Any, Literal

from stic_eval.errors import UserError
from stic_eval.flags import Argument, Flag
from stic_eval.printable import csv_cell, printable

if TYPE_CHECKING:
    from rich.console import Console

    from stic_eval.report.flips import Flip
    from stic_eval.report.sides import Side
    from stic_eval.report.versus import Line, Versus

_LONGEST = 400  # characters of a text that are shown; JSON has all of it
_ONE_LINE = 110  # columns from which on a benchmark takes one line


Format = Literal["text", "md", "csv", "json"]
Which = Literal["all", "better", "worse"]


def compare(
    a: Annotated[
        str,
        Argument("A run, by folder or name; RUN:VARIANT names one of its rows.", metavar="A", values="run"),
    ],
    b: Annotated[
        str | None, Argument("Another run, or RUN:VARIANT.", "the run of A", "B", values="run")
    ] = None,
    method: Annotated[
        list[str] | None,
        Flag("Variant, e.g. stic+dar, or stic@seed1 for one seed; of an ablation default, or what sets a "
             "cell apart, e.g. corruption=blur. For two runs: one for both, or one for each. For one run: "
             "two, or one to compare with the baseline.", "the only one beside the baseline"),
    ] = None,
    benchmark: Annotated[str | None, Flag("Show rows of this benchmark only.", values="benchmark")] = None,
    which: Annotated[
        Which, Flag("Show rows that B does better than A, worse, or both.", names="--flips")
    ] = "all",
    number: Annotated[int, Flag("How many rows to show.", names="-n", min=0)] = 5,
    format_: Annotated[
        Format, Flag("Output format; csv has only the numbers.", names="--format")
    ] = "text",
) -> None:  # fmt: skip
    """Compare two runs, or two variants of a run, sample by sample.

    `compare RUN_A RUN_B --method stic` compares a variant between runs, `compare RUN --method stic` with the
    run's own baseline, `compare RUN:stic RUN:stic+dar` any with any, `compare ABLATION:default
    ABLATION:corruption=blur` two cells. Differences are B minus A.
    """
    from stic_eval.registry import suggest
    from stic_eval.report import flips, sides, versus

    found = versus.measure(*sides.choose(a, b, method or ()))
    names = [line.name for line in found.benchmarks]
    if benchmark is not None and benchmark not in names:
        raise UserError(f'--benchmark: both have no "{benchmark}"{suggest(benchmark, names)}')
    wanted = [] if format_ == "csv" or not number else names if benchmark is None else [benchmark]
    by_name = [
        [flip for flip in flips.flips(found.a, found.b, name) if _fits(flip, which)] for name in wanted
    ]
    total = sum(map(len, by_name)) if wanted else None
    # In turn from each benchmark: the first few would all be of the first.
    rows = [flip for flip in chain(*zip_longest(*by_name)) if flip is not None][:number]
    if format_ == "text":
        from rich.console import Console

        _print(found, rows, total, Console(highlight=False))
    else:
        writers = {"md": _markdown, "csv": _csv, "json": _json}
        print(writers[format_](found, rows, total), end="")


def _fits(flip: Flip, which: Which) -> bool:
    return which == "all" or (flip.change > 0) == (which == "better")


# ---------------------------------------------------------------- as text

_HEAD = ("", "n", "A", "B", "B - A", "95 % interval", "p", "p (Holm)", "better", "worse", "detectable")


def _numbers(line: Line) -> list[str]:
    """A line of the table, in the order of its head."""
    from stic_eval.report.cells import UNMOVED, points

    d = line.difference

    def score(value: float, sd: float | None) -> str:
        return points(value) + (f" ±{points(sd)}" if sd is not None else "")

    def count(value: float) -> str:
        return f"{value:.1f}".removesuffix(".0")

    def p_value(value: float | None) -> str:
        return "-" if value is None or math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"

    return [
        _line(line.title), str(d.n), score(line.a, line.sd_a), score(line.b, line.sd_b),
        f"{points(d.delta, '+')}{d.mark}",
        UNMOVED if d.unmoved else "-" if math.isnan(d.low) else f"[{points(d.low)}, {points(d.high)}]",
        p_value(d.p), p_value(d.p_holm),
        count(d.better), count(d.worse), "-" if math.isnan(d.detectable) else f"{d.detectable:.1f}",
    ]  # fmt: skip


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def _who(side: Side) -> str:
    seeds = f", training seed{'s' if len(side.seeds) > 1 else ''} {', '.join(map(str, side.seeds))}"
    model = f", model {side.model}" if side.model else ""
    return _line(f"{side.label} ({side.run}{model}{seeds if side.seeds else ''})")


def _notes(found: Versus) -> list[str]:
    from stic_eval.report import guards, notes

    differences = [line.difference for line in found.lines]
    tests: dict[str, list[str]] = {}
    for line in found.lines:
        tests.setdefault(line.difference.test or "none", []).append(line.title)
    named = "; ".join(f"{test} ({', '.join(titles)})" for test, titles in tests.items())
    several = len(found.a.seeds) > 1 or len(found.b.seeds) > 1
    clustered = [
        f"{line.title} {line.difference.n} in {line.difference.clusters}"
        for line in found.benchmarks
        if line.difference.clusters < line.difference.n
    ]
    own = notes.unmarked(differences)
    return [
        _line(note)
        for note in (
            "Scores in percent, differences in points, on units that all runs of both have a verdict for"
            + ("; means over seeds, (±) their standard deviation." if several else "."),
            f"Interval: 95 %, {notes.intervals(differences)}.",
            *(
                [f"Clusters of units that are resampled and exchanged together: {', '.join(clustered)}."]
                if clustered
                else []
            ),
            f"p: {named}. " + ("About test rows alone." if own else _family(found)),
            *own,
            *guards.unmoved([line.difference for line in found.benchmarks]),
            "better, worse: units that B does better or worse than A"
            + (", mean over seeds." if several else "."),
            "detectable: smallest true difference that such a comparison finds with 80 % power at 5 %, "
            "uncorrected.",
            *found.notes,
        )
    ]


def _family(found: Versus) -> str:
    marks = "* below 0.05, ** below 0.01"
    if len(found.lines) == 1:
        return f"One comparison by itself; {marks}."
    return (
        "Holm: these two rows by themselves, whatever tables they are in: the average as it is, benchmarks "
        f"behind it, corrected within the row; {marks}."
    )


def _caption(rows: Sequence[Flip], total: int | None) -> str:
    if total is None:
        return ""
    if not total:
        return "No row that one side does better."
    more = "" if len(rows) == total else " (-n, --benchmark and --flips choose which)"
    return f"Rows that one side does better: {len(rows)} of {total}{more}"


def _shown(text: str) -> str:
    text = printable(text)
    left = len(text) - _LONGEST
    return text if left <= 0 else f"{text[:_LONGEST]} … ({left:,} more characters)"


def _target(target: Any) -> str:
    """What is right; of ten people's answers, each once and how many gave it."""
    if isinstance(target, list) and all(isinstance(item, str) for item in target):
        counts = {item: target.count(item) for item in target}
        return ", ".join(item if n == 1 else f"{item} ({n} times)" for item, n in counts.items())
    return target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)


def _details(flip: Flip) -> Iterator[tuple[str, str]]:
    """What is shown of a row, label by label; equal answers of several seeds together."""
    yield "question", _shown(flip.question)
    yield "target", _shown(_target(flip.target))
    alike: dict[tuple[str, float, str, str | None], list[str]] = {}
    for answer in flip.answers:
        seeds = alike.setdefault((answer.side, answer.score, answer.response, answer.description), [])
        seeds += [] if answer.seed is None else [str(answer.seed)]
    for (side, score, response, description), seeds in alike.items():
        seed = f", seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else ""
        if description:
            yield f"{side} describes", _shown(description)
        yield f"{side} ({score:.2f}{seed})", _shown(response)


def _title(flip: Flip) -> str:
    word = "better" if flip.change > 0 else "worse"
    return _line(f"{flip.benchmark} {flip.id}: B is {word}, {flip.change:+.2f}")


def _print(found: Versus, rows: Sequence[Flip], total: int | None, console: Console) -> None:
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print(Text(f"A: {_who(found.a)}\nB: {_who(found.b)}\n"))
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    narrow = console.width < _ONE_LINE
    # Where it is narrow, what belongs together stands one below the other.
    joined = (
        ((0,), (1,), (2,), (3,), (4, 5), (6, 7), (8, 9), (10,)) if narrow else tuple((i,) for i in range(11))
    )
    for at, places in enumerate(joined):
        head = "\n".join(_HEAD[i] for i in places)
        grid.add_column(Text(head, style="bold"), justify="right" if at else "left", no_wrap=at > 0)
    for line in found.lines:
        if line is found.average:
            grid.add_section()
        numbers = _numbers(line)
        d = line.difference
        style = ("green" if d.delta > 0 else "red") if d.significant else ""
        grid.add_row(
            *(
                Text("\n".join(_broken(numbers[i]) if narrow and i in (2, 3) else numbers[i] for i in places),
                     style=style if 4 in places else "")
                for places in joined
            )
        )  # fmt: skip
    console.print(grid)
    console.print()
    for note in _notes(found):
        console.print(Text(note, style="dim"))
    if caption := _caption(rows, total):
        console.print(Text(f"\n{caption}", style="bold"))
    for flip in rows:
        details = Table.grid(padding=(0, 1))
        details.add_column(no_wrap=True, style="dim")
        details.add_column()
        for label, text in _details(flip):
            details.add_row(Text(label), Text(text))
        console.print(Text(f"\n{_title(flip)}"))
        console.print(Padding(details, (0, 0, 0, 2)))


def _broken(score: str) -> str:
    return score.replace(" ", "\n")


# ---------------------------------------------------------------- as data


def _markdown(found: Versus, rows: Sequence[Flip], total: int | None) -> str:
    from stic_eval.report.cells import markdown as escape

    lines = [f"- A: {escape(_who(found.a))}", f"- B: {escape(_who(found.b))}", ""]
    lines += ["| " + " | ".join(_HEAD) + " |", "| ---" + " | ---:" * (len(_HEAD) - 1) + " |"]
    lines += ["| " + " | ".join(map(escape, _numbers(line))) + " |" for line in found.lines]
    lines += ["", *(f"- {escape(note)}" for note in _notes(found))]
    if caption := _caption(rows, total):
        lines += ["", escape(caption)]
    for flip in rows:
        lines += ["", f"### {escape(_title(flip))}", ""]
        lines += [f"- {escape(label)}: {escape(text)}" for label, text in _details(flip)]
    return "\n".join(lines) + "\n"


def _record(line: Line) -> dict[str, Any]:
    numbers = asdict(line.difference)
    scores = {"a": line.a, "b": line.b, "sd_a": line.sd_a, "sd_b": line.sd_b}
    d = line.difference
    said = {"mark": d.mark, "unseen95": d.unseen if d.unmoved else None}
    everything = {"benchmark": line.name, **scores, **numbers, **said}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in everything.items()}


def _csv(found: Versus, rows: Sequence[Flip], total: int | None) -> str:
    import csv
    import io

    out = io.StringIO()
    records = [_record(line) for line in found.lines]
    writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({**record, "benchmark": csv_cell(_line(str(record["benchmark"])))})
    return out.getvalue()


def _json(found: Versus, rows: Sequence[Flip], total: int | None) -> str:
    def side(it: Side) -> dict[str, Any]:
        return {
            "run": str(it.run),
            "variant": it.key,
            "label": it.label,
            "model": it.model,
            "seeds": it.seeds,
        }

    data = {
        "a": side(found.a),
        "b": side(found.b),
        "benchmarks": [_record(line) for line in found.benchmarks],
        "average": _record(found.average),
        "notes": _notes(found),
        "rows_that_differ": total,
        "rows": [asdict(flip) for flip in rows],
    }
    # ASCII: what models wrote could drive the terminal that this is printed on.
    return json.dumps(data, indent=1) + "\n"
