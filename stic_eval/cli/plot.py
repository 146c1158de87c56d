"""`stic-eval plot`: figures of a finished run, without computing anything anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from stic_eval.flags import Argument, Flag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHAT, _OUTPUT = "What is drawn", "Output"


Kind = Literal["all", "gains", "progression", "scaling", "heatmap", "training"]


def plot(
    run: Annotated[
        str, Argument("A run or ablation: its folder, or its name under results/.", values="run")
    ],
    kind: Annotated[
        Kind,
        Flag("`gains` over the baseline, `progression` over STIC's stages, `scaling` along an ablation's "
             "numeric axes, `heatmap` of two axes, `training` curves, or `all` that the run has data for.",
             panel=_WHAT),
    ] = "all",
    benchmark: Annotated[
        str | None,
        Flag("One benchmark, or `average`.", "average; gains: all", values="benchmark", panel=_WHAT),
    ] = None,
    x: Annotated[
        str | None, Flag("Ablation axis along the bottom.", metavar="AXIS", panel=_WHAT)
    ] = None,
    y: Annotated[
        str | None, Flag("Ablation axis down the side (heatmap).", metavar="AXIS", panel=_WHAT)
    ] = None,
    method: Annotated[
        list[str] | None,
        Flag("Only this method (`stic+dar`: only its rows with DaR). Repeatable.", "all", values="method",
             panel=_WHAT),
    ] = None,
    published: Annotated[bool, Flag("Add the paper's scores (progression).", panel=_WHAT)] = False,
    format_: Annotated[
        str, Flag("Comma-separated: svg, pdf, png.", names="--format", panel=_OUTPUT)
    ] = "svg,pdf,png",
    out: Annotated[
        Path | None, Flag("Folder for the files.", "<run>/figures", names="--output --out", panel=_OUTPUT)
    ] = None,
    width: Annotated[
        float, Flag("Width in inches: 3.3 fits a column of a two-column page, 6.9 both.", panel=_OUTPUT)
    ] = 6.9,
    dpi: Annotated[int, Flag("Pixels per inch of a PNG.", panel=_OUTPUT)] = 200,
) -> None:  # fmt: skip
    """Draw a finished run: gains, stages, scaling, heat maps, training curves."""
    from stic_eval.errors import UserError
    from stic_eval.printable import printable
    from stic_eval.report import figures, runs
    from stic_eval.report.canvas import Look, check_installed

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
    if published and kind not in ("all", "progression"):
        raise UserError(f"--published: goes with --kind progression, not with {kind}")
    check_installed("plot")
    folder = runs.find(run)
    scores = runs.load(folder)
    look = Look(benchmark, x, y, tuple(method or ()), published, width)
    figures.check(look, scores)
    table = scores.table()
    kinds = [name for name in figures.KINDS if kind in ("all", name)]
    drawn: dict[str, Figure] = {}
    missing: dict[str, UserError] = {}
    for name, figure in figures.drawable(scores, table, folder, look, kinds):
        if isinstance(figure, UserError):
            missing[name] = figure
        else:
            drawn[name] = figure
    if not drawn and kind != "all":
        raise next(iter(missing.values()))
    reasons = {what: re.sub("^--kind [a-z]+: ", "", str(error)) for what, error in missing.items()}
    if not drawn:
        whys = "; ".join(f"{what}: {reason}" for what, reason in reasons.items())
        raise UserError(f"{folder}: nothing can be drawn. {whys}")
    ending = f"-{benchmark}" if benchmark else ""
    for what, figure_ in drawn.items():
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", what if what == "training" else what + ending)
        for file in figures.save(figure_, (out or folder / "figures") / stem, formats, dpi):
            print(printable(str(file)))
    for what, reason in reasons.items():
        print(printable(f"no {what}: {reason}"))
