"""`stic-eval import`: preference pairs that were made elsewhere, checked and put into one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.cli.help_types import Command, Group
from stic_eval.flags import Argument, Flag

if TYPE_CHECKING:
    from stic_eval.training.foreign_pairs import OpenedPairs
    from stic_eval.training.preference_pairs import AnsweredPair

app = typer.Typer(cls=Group, help="Import preference pairs that were made elsewhere.", no_args_is_help=True)

_SHOWN = 20


@app.callback()
def _commands() -> None:
    """Import preference pairs that were made elsewhere."""


@app.command("pairs", cls=Command)
@o.command
def pairs(
    file: Annotated[
        Path,
        Argument("The STIC authors' preference data, LLaMA-Factory's, TRL's or ms-swift's, RLAIF-V, RLHF-V, "
                 "POVID, mDPO, LLaVA-RLHF or VLFeedback: JSON, JSONL, parquet, a data set's folder."),
    ],
    image_root: Annotated[
        Path | None,
        Flag("Folder that image paths start from; `/` allows absolute ones.", "the folder of the file"),
    ] = None,
    output: Annotated[Path, Flag("File to write.")] = Path("pairs.parquet"),
    force: Annotated[bool, Flag("Replace the file if it exists.")] = False,
    quiet: f.Quiet = False,
) -> None:  # fmt: skip
    """Check preference pairs and write them to one file, for `--pairs` of run, train and ablate."""
    from stic_eval.durable_files import make_folder, publish, sweep_once, temporary_folder
    from stic_eval.errors import UserError, count_of, write_failure
    from stic_eval.experiment.progress import Reporter
    from stic_eval.printable import printable
    from stic_eval.store import append_jsonl
    from stic_eval.training.foreign_pairs import open_pairs
    from stic_eval.training.hyperparameters import PairFilter
    from stic_eval.training.preference_pairs import write_made

    file, output = file.expanduser(), output.expanduser()
    if output.suffix != ".parquet":
        raise UserError(f"--output {output}: give the name of a .parquet file")
    sweep_once(output.parent)  # of one that was killed when all was there
    if output.exists() and not (force and output.is_file()):
        raise UserError(f"--output {output}: already exists; give another name" + _or_force(output))
    opened = open_pairs(file, image_root.expanduser() if image_root else None)
    n_pairs = 0
    try:
        make_folder(output.parent)
        with (
            Reporter(None, quiet=quiet) as report,
            report.step(f"import {file.name}") as step,
            temporary_folder(output) as folder,
        ):

            def with_progress() -> Iterator[AnsweredPair]:
                for number, pair in enumerate(opened.pairs, 1):
                    yield pair
                    step.update(number)

            written = folder / "pairs.parquet"
            n_pairs = write_made(with_progress(), written, PairFilter()).pairs
            listed = output.with_suffix(".skipped.jsonl")
            if n_pairs:  # the list first: pairs that are there have it beside them
                listed.unlink(missing_ok=True)
                if opened.problems:
                    append_jsonl(
                        listed, [{"row": item.row, "reason": item.reason} for item in opened.problems]
                    )
                publish(written, output)
    except OSError as error:
        raise write_failure(f"{output} (--output)", error) from error
    if not n_pairs:
        first = opened.problems[0] if opened.problems else None
        why = f"row {first.row}: {first.reason}" if first else "there are no rows"
        raise UserError(f"{file}: no row can be used ({why}{_more(opened)})")
    known = ", ".join(f"{name} ({count_of(count, 'row')})" for name, count in opened.formats.items())
    typer.echo(printable(f"{file}: read as {known}"))
    if opened.problems:
        for problem in opened.problems[:_SHOWN]:
            typer.echo(printable(f"row {problem.row}: {problem.reason}").replace("\n", " "))
        typer.echo(printable(f"{count_of(len(opened.problems), 'row')} left out, listed in {listed}"))
    what = f"{count_of(n_pairs, 'pair')} of {count_of(len(opened.images), 'image')}"
    typer.echo(printable(f"{what}: {output} (stic-eval run --pairs {output})"))
    if opened.problems:
        raise typer.Exit(3)


def _or_force(output: Path) -> str:
    return ", or --force to replace it" if output.is_file() else ""


def _more(opened: OpenedPairs) -> str:
    return f", and {len(opened.problems) - 1} more" if len(opened.problems) > 1 else ""
