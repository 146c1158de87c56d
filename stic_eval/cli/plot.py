"""`stic-eval plot`: figures of a finished run, without computing anything anew."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHAT, _OUTPUT = "What is drawn", "Output"


class Kind(StrEnum):
    """What is drawn."""

    all = "all"
    gains = "gains"
    progression = "progression"
    scaling = "scaling"
    heatmap = "heatmap"
    training = "training"


def plot(
    run: Annotated[str, typer.Argument(help="A run or ablation: its folder, or its name under results/.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="`gains` over the baseline, `progression` over STIC's stages, `scaling` with an "
            "ablation's axes of numbers, `heatmap` of two axes, `training` curves, or `all` that the run "
            "allows.",
            rich_help_panel=_WHAT,
        ),
    ] = Kind.all,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="One benchmark, or `average`.", show_default="average; gains: all", rich_help_panel=_WHAT
        ),
    ] = None,
    x: Annotated[
        str | None,
        typer.Option(
            "--x", metavar="AXIS", help="Axis of an ablation that runs to the right.", rich_help_panel=_WHAT
        ),
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(
            "--y",
            metavar="AXIS",
            help="Axis of an ablation that runs downwards (heatmap).",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this method (`stic+dar`: only its rows with DaR); repeatable.",
            show_default="all",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="The paper's scores too (progression).", rich_help_panel=_WHAT),
    ] = False,
    format_: Annotated[
        str, typer.Option("--format", help="Comma-separated: svg, pdf, png.", rich_help_panel=_OUTPUT)
    ] = "svg,pdf,png",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the files.", show_default="<run>/figures", rich_help_panel=_OUTPUT),
    ] = None,
    width: Annotated[
        float,
        typer.Option(
            help="Inches; 3.3 fits a column of a two-column page, 6.9 both.", rich_help_panel=_OUTPUT
        ),
    ] = 6.9,
    dpi: Annotated[int, typer.Option(help="Pixels per inch of a PNG.", rich_help_panel=_OUTPUT)] = 200,
) -> None:
    """Draw a finished run: gains, stages, scaling, heat maps, training curves."""
    from stic_eval.errors import UserError
    from stic_eval.printable import printable
    from stic_eval.report import figures, runs
    from stic_eval.report.canvas import Look

    formats = [form.strip().lower() for form in format_.split(",") if form.strip()]
    for form in formats:
        if form not in figures.FORMATS:
            raise UserError(f"--format {form}: give svg, pdf or png, or several with commas between")
    if not formats:
        raise UserError("--format: give svg, pdf or png, or several with commas between")
    if not 2.5 <= width <= 30:
        raise UserError(f"--width {width:g}: give inches, 2.5 to 30")
    if not 50 <= dpi <= 1200:
        raise UserError(f"--dpi {dpi}: give pixels per inch, 50 to 1200")
    if published and kind not in (Kind.all, Kind.progression):
        raise UserError(f"--published: goes with --kind progression, not with {kind.value}")
    folder = runs.find(run)
    scores = runs.load(folder)
    look = Look(benchmark, x, y, tuple(method or ()), published, width)
    figures.check(look, scores)
    table = scores.table()
    kinds = [name for name in figures.KINDS if kind.value in ("all", name)]
    drawn: dict[str, Figure] = {}
    missing: dict[str, UserError] = {}
    for name, figure in figures.drawable(scores, table, folder, look, kinds):
        if isinstance(figure, UserError):
            missing[name] = figure
        else:
            drawn[name] = figure
    if not drawn and kind is not Kind.all:
        raise next(iter(missing.values()))
    reasons = {what: re.sub("^--kind [a-z]+: ", "", str(error)) for what, error in missing.items()}
    if not drawn:
        said = "; ".join(f"{what}: {reason}" for what, reason in reasons.items())
        raise UserError(f"{folder}: nothing can be drawn. {said}")
    ending = f"-{benchmark}" if benchmark else ""
    for what, made in drawn.items():
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", what if what == "training" else what + ending)
        for file in figures.save(made, (out or folder / "figures") / stem, formats, dpi):
            print(printable(str(file)))
    for what, reason in reasons.items():
        print(printable(f"no {what}: {reason}"))
