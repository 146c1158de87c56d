"""The board as a page, as CSV and as JSON: names of models and runs are others' texts, which each escapes."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from stic_eval.printable import csv_cell, printable
from stic_eval.report.board import Board, BoardCell, BoardLine
from stic_eval.report.cell_text import one_line, points, score_text
from stic_eval.report.table_formats import finite
from stic_eval.report.table_rows import AVERAGE


def to_html(board: Board, title: str) -> str:
    """One page without anything from elsewhere; texts are escaped, a policy allows its own script alone."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    script = "\n".join(_resource(name) for name in ("screen.js", "board.js"))
    style = _resource("page.css") + _resource("board.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none'; "
        "form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["shown"] = lambda value: one_line(str(value))
    # A path of the disk as an address below the page's own: no name in it can be a scheme.
    environment.filters["address"] = lambda path: "./" + quote(os.fsencode(path))
    return environment.from_string(_resource("board.html.j2")).render(
        board=board, title=title, policy=policy, script=Markup(script), style=Markup(style),
        fields=list(board.columns.items()), average=AVERAGE, score=_score, spread=_spread,
        gain=_gain, models=sorted({line.model for line in board.lines}),
        methods=sorted({line.method for line in board.lines}),
    )  # fmt: skip


def _resource(name: str) -> str:
    return (files("stic_eval.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _score(item: BoardCell) -> str:
    return score_text(item.cell)


def _spread(item: BoardCell) -> str:
    found = item.interval
    return f"[{points(found.low)}, {points(found.high)}]" if found else ""


def _gain(item: BoardCell) -> str:
    found = item.cell.difference
    return f"{points(found.delta, '+')}{found.mark}" if found else ""


_HEAD = (
    "run", "report", "model", "method", "settings", "variant", "rows", "seeds", "started", "finished",
    "training_generations", "training_steps", "training_seconds", "benchmark", "n", "unscored", "score",
    "score_low95", "score_high95", "sd_seeds", "delta", "delta_low95", "delta_high95", "mark", "complete",
)  # fmt: skip


def to_csv(board: Board) -> str:
    """A line for each run, variant and benchmark, the average's among them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEAD)
    for line in board.lines:
        texts = [line.run, line.report or "", line.model, line.method, line.settings, line.variant]
        cost = line.cost
        costs = (
            (cost.generations, cost.steps, cost.seconds) if cost is not None and cost.known else ("", "", "")
        )
        first = [
            *(csv_cell(one_line(text)) for text in texts), line.rows, " ".join(map(str, line.seeds)),
            csv_cell(one_line(line.started)), int(line.finished), *costs,
        ]  # fmt: skip
        for name, item in line.cells.items():
            numbers = _numbers(item)
            writer.writerow([*first, csv_cell(one_line(name)), *(numbers[key] for key in _HEAD[14:])])
    return out.getvalue()


def _numbers(item: BoardCell) -> dict[str, Any]:
    cell, own, found = item.cell, item.interval, item.cell.difference
    return {
        "n": cell.n, "unscored": cell.unscored, "score": cell.score,
        "score_low95": own.low if own else None, "score_high95": own.high if own else None,
        "sd_seeds": cell.sd, "delta": found.delta if found else None,
        "delta_low95": finite(found.low) if found else None,
        "delta_high95": finite(found.high) if found else None,
        "mark": found.mark if found else None, "complete": int(cell.complete),
    }  # fmt: skip


def to_json(board: Board) -> str:
    """Everything, with the runs that cannot be read."""
    data = {
        "benchmarks": dict(board.columns),
        "rows": [
            {"name": rows.letter, "benchmarks": [
                {"title": title, "n": n, "protocol": protocol} for title, n, protocol in rows.benchmarks
            ]}
            for rows in board.rows
        ],
        "lines": [_line(line) for line in board.lines],
        "trained": list(map(printable, board.trained)),
        "unreadable": [{"run": name, "reason": printable(reason)} for name, reason in board.unreadable],
    }  # fmt: skip
    # ASCII: names may hold what drives a terminal.
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _line(line: BoardLine) -> dict[str, Any]:
    cost = line.cost
    return {
        "run": line.run, "report": line.report, "model": line.model, "method": line.method,
        "settings": line.settings, "variant": line.variant, "rows": line.rows,
        "seeds": list(line.seeds), "started": line.started,
        "finished": line.finished,
        "training": None if cost is None else {
            "generations": cost.generations, "steps": cost.steps, "seconds": cost.seconds,
            "known": cost.known,
        },
        "scores": {
            name: {**_numbers(item), "complete": item.cell.complete} for name, item in line.cells.items()
        },
    }  # fmt: skip
