"""A comparison of two variants as text, HTML, Markdown, CSV and JSON, with rows that one of both does better.

What models wrote is in it: each format escapes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

from stic_eval.plugins import display_path
from stic_eval.printable import csv_cell, printable
from stic_eval.report import shown_notes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from stic_eval.report.compared_variants import Side
    from stic_eval.report.flips import Flip
    from stic_eval.report.head_to_head import BenchmarkLine, HeadToHead

_LONGEST = 400  # characters of a text that are shown; JSON has all of it
_ONE_LINE = 110  # columns from which on a benchmark takes one line

# ---------------------------------------------------------------- as text

_HEAD = ("", "n", "A", "B", "B - A", "95 % interval", "p", "p (Holm)", "better", "worse", "detectable")


def _numbers(line: BenchmarkLine) -> list[str]:
    """A line of the table, in the order of its head."""
    from stic_eval.report.cell_text import UNMOVED, points

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
    return _line(f"{side.label} ({display_path(side.run)}{model}{seeds if side.seeds else ''})")


def _notes(found: HeadToHead) -> list[str]:
    from stic_eval.report import score_guards, table_notes

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
    own = table_notes.unmarked_notes(differences)
    return [
        _line(note)
        for note in (
            "Scores in percent, differences in points, on units that all runs of both have a verdict for"
            + ("; means over seeds, (±) their standard deviation." if several else "."),
            f"Interval: 95 %, {table_notes.intervals(differences)}.",
            *(
                [f"Clusters of units that are resampled and exchanged together: {', '.join(clustered)}."]
                if clustered
                else []
            ),
            f"p: {named}. " + ("About test rows alone." if own else _family(found)),
            *own,
            *score_guards.unmoved_notes([line.difference for line in found.benchmarks]),
            "better, worse: units that B does better or worse than A"
            + (", mean over seeds." if several else "."),
            "detectable: smallest true difference that such a comparison finds with 80 % power at 5 %, "
            "uncorrected.",
            *found.notes,
        )
    ]


def _family(found: HeadToHead) -> str:
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
        return "No row on which one side does better."
    more = "" if len(rows) == total else " (-n, --benchmark and --flips choose which)"
    return f"Rows on which one side does better: {len(rows)} of {total}{more}"


def _shorten(text: str) -> str:
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
    yield "question", _shorten(flip.question)
    yield "target", _shorten(_target(flip.target))
    alike: dict[tuple[str, float, str, str | None], list[str]] = {}
    for answer in flip.answers:
        seeds = alike.setdefault((answer.side, answer.score, answer.response, answer.description), [])
        seeds += [] if answer.seed is None else [str(answer.seed)]
    for (side, score, response, description), seeds in alike.items():
        seed = f", seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}" if seeds else ""
        if description:
            yield f"{side} describes", _shorten(description)
        yield f"{side} ({score:.2f}{seed})", _shorten(response)


def _title(flip: Flip) -> str:
    word = "better" if flip.change > 0 else "worse"
    return _line(f"{flip.benchmark} {flip.id}: B is {word}, {flip.change:+.2f}")


def to_rich(
    found: HeadToHead, rows: Sequence[Flip], total: int | None, width: int, more: str | None = None
) -> RenderableType:
    """The comparison for a terminal of `width` columns.

    Args:
        found: The numbers.
        rows: Rows that are shown.
        total: Of how many; None: none are asked for.
        width: Columns of the terminal.
        more: What shows all notes, where only some are shown; None: all are.
    """
    from rich import box
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"A: {_who(found.a)}\nB: {_who(found.b)}\n")]
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    narrow = width < _ONE_LINE
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
                Text("\n".join(_stack(numbers[i]) if narrow and i in (2, 3) else numbers[i] for i in places),
                     style=style if 4 in places else "")
                for places in joined
            )
        )  # fmt: skip
    notes = _notes(found) if more is None else shown_notes.lines(_notes(found), width, more)
    parts += [grid, Text(""), *(Text(note, style="dim") for note in notes)]
    if caption := _caption(rows, total):
        parts.append(Text(f"\n{caption}", style="bold"))
    for flip in rows:
        details = Table.grid(padding=(0, 1))
        details.add_column(no_wrap=True, style="dim")
        details.add_column()
        for label, text in _details(flip):
            details.add_row(Text(label), Text(text))
        parts += [Text(f"\n{_title(flip)}"), Padding(details, (0, 0, 0, 2))]
    return Group(*parts)


def _stack(score: str) -> str:
    return score.replace(" ", "\n")


def to_html(found: HeadToHead) -> str:
    """The numbers and notes as an HTML fragment without style or script."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in _HEAD)
    lines = [
        f"<p>A: {escape(_who(found.a))}<br>B: {escape(_who(found.b))}</p>",
        '<table class="head-to-head">',
    ]
    lines += [f"<thead><tr>{head}</tr></thead>", "<tbody>"]
    for line in found.lines:
        title, *numbers = map(escape, _numbers(line))
        cells = "".join(f"<td>{text}</td>" for text in numbers)
        lines.append(f'<tr><th scope="row">{title}</th>{cells}</tr>')
    lines += ["</tbody>", "</table>", '<ul class="notes">']
    return "\n".join([*lines, *(f"<li>{escape(note)}</li>" for note in _notes(found)), "</ul>", ""])


# ---------------------------------------------------------------- as data


def to_markdown(found: HeadToHead, rows: Sequence[Flip], total: int | None) -> str:
    """The comparison as GitHub Markdown."""
    from stic_eval.report.cell_text import markdown

    lines = [f"- A: {markdown(_who(found.a))}", f"- B: {markdown(_who(found.b))}", ""]
    lines += ["| " + " | ".join(_HEAD) + " |", "| ---" + " | ---:" * (len(_HEAD) - 1) + " |"]
    lines += ["| " + " | ".join(map(markdown, _numbers(line))) + " |" for line in found.lines]
    lines += ["", *(f"- {markdown(note)}" for note in _notes(found))]
    if caption := _caption(rows, total):
        lines += ["", markdown(caption)]
    for flip in rows:
        lines += ["", f"### {markdown(_title(flip))}", ""]
        lines += [f"- {markdown(label)}: {markdown(text)}" for label, text in _details(flip)]
    return "\n".join(lines) + "\n"


def _record(line: BenchmarkLine) -> dict[str, Any]:
    numbers = asdict(line.difference)
    scores = {"a": line.a, "b": line.b, "sd_a": line.sd_a, "sd_b": line.sd_b}
    d = line.difference
    marks = {"mark": d.mark, "unseen95": d.unseen if d.unmoved else None}
    everything = {"benchmark": line.name, **scores, **numbers, **marks}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in everything.items()}


def to_csv(found: HeadToHead) -> str:
    """The numbers, a line for each benchmark."""
    import csv
    import io

    out = io.StringIO()
    records = [_record(line) for line in found.lines]
    writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({**record, "benchmark": csv_cell(_line(str(record["benchmark"])))})
    return out.getvalue()


def to_json(found: HeadToHead, rows: Sequence[Flip], total: int | None) -> str:
    """Numbers, notes, and rows whole."""

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
