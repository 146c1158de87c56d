"""`stic-eval judge`: how far two judges agree."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.cli.help_types import Command, Group
from stic_eval.errors import UserError
from stic_eval.evals.agreement import Agreement, compare, read
from stic_eval.flags import Argument
from stic_eval.printable import printable

app = typer.Typer(cls=Group, help="Measure how far two judges agree.")


@app.callback()
def _judge() -> None:
    """Compare judges."""


@app.command("agreement", cls=Command)
@o.command
def agreement(
    a: Annotated[Path, Argument("Output of `stic-eval score --json`, or a run's records (JSONL).")],
    b: Annotated[Path, Argument("The same answers, graded by the other judge.")],
    json_out: f.JsonFile = None,
) -> None:
    """How far two judges agree on the same answers: by sample, on average, in rank.

    Statistics that are not defined, as a correlation with a constant, are shown as `-`.
    """
    from stic_eval.store import atomic_write

    o.check_file("--json", json_out)
    first, second = read(a), read(b)
    if first.benchmark and second.benchmark and first.benchmark != second.benchmark:
        raise UserError(f"{a} is of {first.benchmark}, {b} of {second.benchmark}: give two of one benchmark")
    found = compare(first.verdicts, second.verdicts)
    if not found.common:
        raise UserError(f"{a} and {b} have no id in common: give two gradings of the same answers")
    if json_out is not None:
        atomic_write(json_out, json.dumps(asdict(found), indent=1, ensure_ascii=False) + "\n")
    _print(found, a, b)


def _print(found: Agreement, a: Path, b: Path) -> None:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    left_out = [
        f"{count} {what}"
        for count, what in (
            (found.only_a_scored, "scored by A alone"),
            (found.only_b_scored, "scored by B alone"),
            (found.neither_scored, "scored by none"),
            (found.missing_in_b, "not in B"),
            (found.missing_in_a, "not in A"),
        )
        if count
    ]
    lines = [
        ("A", str(a)),
        ("B", str(b)),
        ("n", f"{found.n}" + (f" (left out: {', '.join(left_out)})" if left_out else "")),
        ("mean of A", number(found.mean_a, ".2f")),
        ("mean of B", number(found.mean_b, ".2f")),
        ("B - A", number(found.difference, "+.2f")),
        ("exact agreement", number(None if found.exact is None else 100 * found.exact, ".1f")
         + " %" * (found.exact is not None)),
        ("kappa (of 0 and 1)", number(found.kappa, ".3f")),
        ("Pearson", number(found.pearson, ".3f")),
        ("Spearman", number(found.spearman, ".3f")),
        ("Kendall", number(found.kendall, ".3f")),
    ]  # fmt: skip
    for name, value in lines:
        print(f"{name:<18} {printable(value)}")
    if found.disagreements:
        print("largest disagreements, in points from 0 to 1")
        for item in found.disagreements:
            print(f"  {printable(item.id)}: A {item.a:.2f}, B {item.b:.2f}")
