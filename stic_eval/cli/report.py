"""`stic-eval report`: a run as one HTML file, to be opened offline and sent to somebody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.flags import Flag

if TYPE_CHECKING:
    from stic_eval.experiment.progress import Reporter
    from stic_eval.report.html_report import PageFacts
    from stic_eval.report.runs import Scores
    from stic_eval.report.tables import Known
    from stic_eval.types import ImageRef

_SKIPPED = 3


def report(
    run: f.Run,
    out: Annotated[
        Path | None, Flag("File to write.", "report.html in the run's folder", names="--output --out")
    ] = None,
    image_budget: Annotated[
        float,
        Flag("Images to embed in the file; the rest go into a folder beside it.", metavar="MB", min=0),
    ] = 20.0,
    pairs: Annotated[int, Flag("Preference pairs to show for each training seed.", metavar="N", min=0)] = 60,
    no_images: Annotated[bool, Flag("Show texts and scores only.")] = False,
    open_: Annotated[bool, Flag("Open the file in the browser.", names="--open")] = False,
    quiet: f.Quiet = False,
) -> int:
    """Write a run's table, plots, samples, preference pairs and provenance as one HTML file."""
    from stic_eval.errors import write_failure
    from stic_eval.experiment.progress import Reporter
    from stic_eval.printable import printable
    from stic_eval.report import html_report, runs
    from stic_eval.report.run_adapters import stages_of

    folder = runs.find(run)
    scores = runs.load(folder)
    target = out or folder / "report.html"
    o.check_file("--output", target)
    warnings: list[str] = []
    with Reporter(None, quiet=quiet) as reporter:
        refs = {} if no_images else _images(scores, folder, reporter, warnings)
        found = len(warnings)
        with reporter.step("figures"):
            facts = _facts(scores, folder, warnings)
        with reporter.updates("images") as progress:
            try:
                made = html_report.write(
                    scores, folder, target, facts, refs=refs, images=not no_images, n_pairs=pairs,
                    stages=stages_of(folder),
                    budget=int(image_budget * 1_000_000), progress=progress,
                )  # fmt: skip
            except OSError as error:
                raise write_failure(f"{target} (--output)", error) from error
        for line in made.warnings:
            reporter.plain(line)
    print(printable(f"{made.page} ({_size(made.bytes)})"))
    if made.pictures.folder is not None:
        print(printable(f"{made.pictures.folder}/ ({_size(made.pictures.bytes)} of images)"))
    if open_:
        import webbrowser

        webbrowser.open(made.page.resolve().as_uri())
    return _SKIPPED if found or made.pictures.missing else 0


def _images(scores: Scores, folder: Path, reporter: Reporter, warnings: list[str]) -> dict[str, ImageRef]:
    """Content hash -> image of the rows that were asked, read from where the run had them."""
    from pydantic import ValidationError

    from stic_eval.config_layers import read_file
    from stic_eval.errors import RunError, UserError, fault_of, first_line
    from stic_eval.experiment.folder import cache_of
    from stic_eval.experiment.resources import Resources
    from stic_eval.hub_access import go_offline
    from stic_eval.settings import RunConfig

    try:
        config = RunConfig.model_validate(read_file(folder / "config.yaml"))
        go_offline(config.offline)
        resources = Resources(config, reporter, cache_of(config))
    except (UserError, ValidationError, OSError) as error:
        first = first_line(error)
        if isinstance(error, ValidationError):
            first = fault_of(error.errors(include_url=False)[0])
        warnings.append(f"No images of samples: the run's config.yaml cannot be used ({first}).")
        return {}
    refs: dict[str, ImageRef] = {}
    wanted = {column.name for column in scores.columns}
    for name, benchmark in resources.benchmarks.items():
        if name not in wanted:
            continue
        try:
            with reporter.step(f"rows of {benchmark.title}"):
                rows = resources.samples(name)
        except (UserError, RunError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            warnings.append(f"{benchmark.title}: no images, because its rows cannot be read ({first}).")
            continue
        refs.update((ref.sha256, ref) for sample in rows for ref in sample.images)
    for line in resources.hub_lines:
        reporter.line(line)
    return refs


def _facts(scores: Scores, folder: Path, warnings: list[str]) -> PageFacts:
    """Table and figures; what a run has no figure for is left out."""
    from stic_eval.errors import UserError
    from stic_eval.report import figures, html_report, html_table
    from stic_eval.report.canvas import Look, check_installed
    from stic_eval.report.table_layouts import lay_out

    known: Known = {}  # both tables are of the same comparisons
    table = scores.table(known)
    drawn: dict[str, list[html_report.SvgFigure]] = {"scores": [], "training": []}
    kinds = figures.KINDS
    try:
        check_installed("report")
    except UserError as error:
        kinds = ()
        warnings.append(f"No figures. {error}")
    for kind, figure in figures.drawable(scores, table, folder, Look(), kinds):
        if isinstance(figure, UserError):
            continue
        where = "training" if kind == "training" else "scores"
        drawn[where].append(html_report.SvgFigure(str(figure.get_label()), figures.to_svg(figure)))
    return html_report.PageFacts(
        html_table.to_html(lay_out([scores], known=known)),
        drawn["scores"],
        drawn["training"],
        tuple(warnings),
    )


def _size(n: int) -> str:
    return f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{max(1, round(n / 1e3))} kB"
