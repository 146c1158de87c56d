"""`stic-eval export run`: a whole run in the form of other tools, or as repositories of the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stic_eval import flags as f
from stic_eval.cli.export import Choice, Force, staged_output
from stic_eval.cli.outcome import INCOMPLETE
from stic_eval.errors import count_of
from stic_eval.flags import Flag
from stic_eval.printable import printable

if TYPE_CHECKING:
    from stic_eval.experiment.artifacts import RunArtifacts

_SHOWN = 20  # files that are listed


def export_run(
    run: f.Run,
    to: Annotated[
        Literal["inspect", "lm-eval", "hub"],
        Flag("Form: logs for Inspect's viewer, lm-evaluation-harness's results, or the hub's repositories."),
    ],
    choice: Choice,
    output: Annotated[Path | None, Flag("Folder to write; without it the files are only listed.")] = None,
    push: Annotated[
        str | None,
        Flag("With --to hub: upload there, and the pairs to OWNER/NAME-pairs. New ones are private.",
             metavar="OWNER/NAME"),
    ] = None,
    pairs: Annotated[
        bool, Flag("With --to hub: preference pairs, and the images in them, as a data set.",
                   names="--pairs/--no-pairs"),
    ] = True,
    force: Force = False,
) -> None:  # fmt: skip
    """Write a run as other tools' logs or results, or as a model and a data set for the Hugging Face hub."""
    from stic_eval.errors import UserError
    from stic_eval.experiment import artifacts, hub_export

    if push is not None and to != "hub":
        raise UserError(f"--push {push}: goes with --to hub")
    if push is not None:
        hub_export.check_repository(push)
    found = artifacts.open_run(run, lambda text: typer.echo(printable(f"note: {text}"), err=True))
    if found.scores is None and to != "hub":
        raise UserError(f"{found.folder}: it was only trained, so there are no scores to export")
    with _folder(output, force) as folder:
        if to == "hub":
            notes = _write_repositories(found, choice, pairs, push, folder)
        else:
            notes = _write_results(found, to, choice, folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in files[:_SHOWN]:
            size = f"{path.stat().st_size / 1e3:,.1f} kB"
            typer.echo(printable(f"{size:>14}  {path.relative_to(folder).as_posix()}"))
        if len(files) > _SHOWN:
            typer.echo(f"{'':>14}  and {len(files) - _SHOWN} more")
        for note in notes:
            typer.echo(printable(f"note: {note}"), err=True)
        sent = hub_export.push(folder, push) if push is not None else []
    for address in sent:
        typer.echo(printable(address))
    if output is not None:
        typer.echo(printable(f"{count_of(len(files), 'file')}: {output}"))
    elif not sent:
        more = ", --push OWNER/NAME uploads them" if to == "hub" else ""
        typer.echo(f"{count_of(len(files), 'file')}; nothing is kept: --output DIR writes them{more}")
    unfinished = found.scores.unfinished_notes() if found.scores else []
    for note in unfinished:
        typer.echo(printable(f"note: {note}"), err=True)
    if unfinished:
        raise typer.Exit(INCOMPLETE)


@contextmanager
def _folder(output: Path | None, force: bool) -> Iterator[Path]:
    """Where files are written: the output, when all are there, or a folder that goes again."""
    if output is not None:
        with staged_output(output.expanduser(), force) as folder:
            yield folder
    else:
        with TemporaryDirectory(prefix="stic-eval-export-") as name:
            yield Path(name)


def _write_results(run: RunArtifacts, to: str, choice: Choice, folder: Path) -> Sequence[str]:
    from stic_eval.errors import UserError
    from stic_eval.report import inspect_export, lm_eval_export
    from stic_eval.report.run_texts import origin_of

    assert run.scores is not None
    for flag, value in (("--method", choice.method), ("--seed", choice.seed), ("--key", choice.key)):
        if value is not None:
            raise UserError(f"{flag} {value}: goes with --to hub; {to} gets every variant")
    write = inspect_export.write_logs if to == "inspect" else lm_eval_export.write_results
    done = list(write(run.folder, run.scores, origin_of(run.folder), folder))
    if not done:
        raise UserError(f"{run.folder}: holds no records of any benchmark")
    return ["images are named by their sha256 and not included"]


def _write_repositories(
    run: RunArtifacts, choice: Choice, pairs: bool, push: str | None, folder: Path
) -> Sequence[str]:
    from stic_eval import registry
    from stic_eval.errors import UserError
    from stic_eval.experiment import artifacts, cardfacts, hub_export

    if not registry.engines().get(run.config.engine).trains_in(run.config):
        raise UserError(f"{run.folder}: its adapters are the server's; none is here to export")
    picked = artifacts.pick(run, "adapter", choice.method, choice.seed, key=choice.key)
    model = re.sub(r"[^\w.-]+", "-", Path(run.config.model).name)
    name = push.rpartition("/")[2] if push else f"{model}-{picked.entries[0].method}-seed{picked.seed or 0}"
    notes = [
        f"not in .eval_results: {line}"
        for line in hub_export.write_model(run, picked, name, folder / hub_export.MODEL)
    ]
    if unknown := cardfacts.unknown(run, picked):
        notes.append(f"the card leaves out papers and data sets of {', '.join(unknown)}: plug-ins of the run")
    made = hub_export.pairs_of(run, picked) if pairs else []
    if made:
        count = hub_export.write_pairs(run, made, folder / hub_export.PAIRS)
        notes.append(
            f"{count_of(count, 'pair')} with their images: may you publish them? --no-pairs leaves them out"
        )
    return notes
