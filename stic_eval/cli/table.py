"""`stic-eval table`: prints a finished run's table again, in any format, without computing anything."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from stic_eval.report.tables import Table


class Format(StrEnum):
    """What the table is printed as."""

    text = "text"
    md = "md"
    tex = "tex"
    csv = "csv"
    json = "json"


def table(
    run: Annotated[str, typer.Argument(help="A run: its folder, or its name under results/.")],
    format_: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.text,
) -> None:
    """Print the table of a finished run."""
    from stic_eval.report import render, runs

    built = runs.load(runs.find(run)).table()
    if format_ is Format.text:
        print_table(built)
        return
    writers = {
        Format.md: render.to_markdown, Format.tex: render.to_latex,
        Format.csv: render.to_csv, Format.json: render.to_json,
    }  # fmt: skip
    print(writers[format_](built), end="")


def print_table(built: Table) -> None:
    """Prints a table on stdout, in the terminal's width."""
    from rich.console import Console

    from stic_eval.report import render

    console = Console(highlight=False)
    console.print(render.to_rich(built, console.width))
