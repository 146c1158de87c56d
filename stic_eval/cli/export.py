"""`stic-eval export`: what a run has made, for use elsewhere: its preference pairs, its adapters."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.cli.help_types import Command, Group
from stic_eval.errors import count_of
from stic_eval.flags import Argument, Flag, flag
from stic_eval.printable import printable

if TYPE_CHECKING:
    from stic_eval.experiment.artifacts import RunArtifacts

app = typer.Typer(
    cls=Group,
    help="Export a run, or its pairs or adapters alone, for use elsewhere.",
    no_args_is_help=True,
)

_SHOWN = 20
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
# Names that `save_pretrained` gives a model's weights, in one file or several.
_WEIGHTS = re.compile(r"model\.safetensors(\.index\.json)?|model-\d{5}-of-\d{5}\.safetensors")


Force = Annotated[
    bool,
    Flag("Write into a folder that is not empty: files of the same names are replaced, and a merged model "
         "replaces all weights of the model that is there."),
]  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """Which of several things that a run has made."""

    method: str | None = flag("The method, if the run has several.", values="method")
    seed: int | None = flag("The training seed, if there are several.")
    key: str | None = flag("The first digits of the content key, for an ablation.")


@app.command("pairs", cls=Command)
@o.command
def pairs(
    run: Annotated[
        str,
        Argument("A run (its folder, or its name under results/), or a file of pairs.", values="run"),
    ],
    to: Annotated[
        Literal["trl", "llama-factory", "ms-swift", "openrlhf", "hf-dataset", "csv"], Flag("Format to write.")
    ],
    choice: Choice,
    output: Annotated[
        Path | None, Flag("Folder to write; for trl also a .parquet file.", "pairs-<format>")
    ] = None,
    iteration: Annotated[int | None, Flag("The round of pairs, if there are several.")] = None,
    force: Force = False,
) -> None:
    """Write a run's preference pairs in another program's format, to train on them there."""
    from stic_eval.experiment import artifacts
    from stic_eval.training import pair_formats

    if run.endswith(".parquet"):
        source = Path(run).expanduser()
        pair_formats.check(source, "RUN")
    else:
        found = artifacts.open_run(run, _note)
        picked = artifacts.pick(found, "pairs", choice.method, choice.seed, iteration, choice.key)
        source = found.path(picked) / "pairs.parquet"
        pair_formats.check(source, "RUN")
        typer.echo(printable(f"pairs of {picked.label}"), err=True)
    target = (output or Path(f"pairs-{to}")).expanduser()
    single = to == "trl" and target.suffix == ".parquet"
    with staged_output(target, force, single) as folder:
        done = pair_formats.export(source, to, folder / target.name if single else folder)
        shown = target if single else target / done.path.relative_to(folder)
    for row, reason in done.left_out[:_SHOWN]:
        typer.echo(printable(f"row {row}: {reason}").replace("\n", " "))
    if done.left_out:
        typer.echo(f"{count_of(len(done.left_out), 'row')} left out")
    images = f" of {count_of(done.images, 'image')}" if done.images else ""
    typer.echo(printable(f"{count_of(done.rows, 'pair')}{images}: {shown}"))
    if done.left_out:
        raise typer.Exit(3)


@app.command("adapter", cls=Command)
@o.command
def adapter(
    run: f.Run,
    output: Annotated[Path, Flag("Folder to write.")],
    choice: Choice,
    merge: Annotated[bool, Flag("Write a whole model, the adapter added to the base's weights.")] = False,
    dtype: Annotated[
        str | None, Flag("Type of a merged model's weights: float32, bfloat16 or float16.", "the base's")
    ] = None,
    force: Force = False,
    quiet: f.Quiet = False,
) -> None:
    """Write a run's adapter, or the merged model, with a model card that says how it was made."""
    from stic_eval import registry
    from stic_eval.errors import UserError
    from stic_eval.experiment import artifacts, cardfacts
    from stic_eval.experiment.progress import Reporter
    from stic_eval.models.adapter_values import check_adapter_values
    from stic_eval.report.model_card import card

    found = artifacts.open_run(run, _note)
    if not registry.engines().get(found.config.engine).trains_in(found.config):
        raise UserError(f"{found.folder}: its adapters are the server's; none is here to export")
    picked = artifacts.pick(found, "adapter", choice.method, choice.seed, key=choice.key)
    source = found.adapter(picked)
    check_adapter_values(source, f"{found.folder}: its adapter {source}")
    output = output.expanduser()
    name = Path(os.path.realpath(output)).name
    config = found.config
    if dtype and not merge:
        raise UserError("--dtype: is of a merged model's weights; add --merge, or leave it out")
    _refuse_mixing(output, merge)
    if unknown := cardfacts.unknown(found, picked):
        _note(
            f"the card leaves out papers and data sets of {', '.join(unknown)}: plug-ins that a run names "
            "are not executed for it (those in folders of $STIC_EVAL_PLUGINS are)"
        )
    weights = ""
    with staged_output(output, force) as folder, Reporter(None, quiet=quiet) as report:
        if merge:
            from stic_eval.training.adapter_merge import merge as merged

            _check_base(found)
            with report.step(f"merge the adapter into {config.model}"):
                weights = merged(
                    config.model, source, folder,
                    revision=config.revision, dtype=dtype or "auto",
                    trust_remote_code=config.trust_remote_code,
                )  # fmt: skip
        else:
            for file in _ADAPTER:
                shutil.copyfile(source / file, folder / file)
        with report.step("model card"):
            facts = replace(cardfacts.facts(found, picked, name), merged=weights)
            (folder / "README.md").write_text(card(facts), encoding="utf-8")
    kind = f"merged model in {weights}" if merge else "adapter"
    use = f"--model {output}" if merge else f"--adapter {output}"
    typer.echo(printable(f"{kind}, {picked.flags}: {output} (stic-eval eval {use})"))


def _note(text: str) -> None:

    typer.echo(printable(f"note: {text}"), err=True)


def _refuse_mixing(output: Path, merge: bool) -> None:
    """Refuses to put an adapter and a whole model into one folder: loaders could take either."""
    from stic_eval.errors import UserError

    names = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if "adapter_config.json" in names if merge else any(map(_WEIGHTS.fullmatch, names)):
        what = ("an adapter", "a merged model") if merge else ("a model", "an adapter")
        raise UserError(
            f"--output {output}: holds {what[0]}, beside which {what[1]} is not found; give another name"
        )


def _check_base(run: RunArtifacts) -> None:
    """Refuses to merge into another base than the adapter was trained on."""
    from stic_eval.errors import UserError
    from stic_eval.models.fingerprint import model_fingerprint
    from stic_eval.store import read_object

    known = (read_object(run.folder / "manifest.json").get("model") or {}).get("fingerprint")
    if known and known != model_fingerprint(run.config.model, run.config.revision):
        raise UserError(
            f"--merge: {run.config.model} has changed since the adapter was trained on it; restore it, "
            "or export the adapter alone"
        )


# ---------------------------------------------------------------- putting it there


@contextmanager
def staged_output(target: Path, force: bool, single: bool = False) -> Iterator[Path]:
    """A folder to write into, whose content is put in its place when all is there.

    Args:
        target: The folder, or the file for `single`.
        force: Files of a folder that is not empty are replaced by those of the same name; a model's weights
            go as a whole, however many files they are, for transformers might load what is left of them.
        single: Whether it is one file.

    Raises:
        UserError: It already exists, or cannot be written.
        RunError: The disk is full, or fails.
    """
    from stic_eval.durable_files import make_folder, publish, sweep_once, sync_tree, temporary_folder
    from stic_eval.errors import UserError, write_failure

    sweep_once(target.parent)  # of one that was killed when all was there
    wrong = target.is_dir() if single else target.exists() and not target.is_dir()
    if wrong:
        raise UserError(f"--output {target}: is {'a folder' if single else 'a file'}; give another name")
    if (target.exists() and (single or any(target.iterdir()))) and not force:
        what = "already exists" if single else "is not empty"
        raise UserError(f"--output {target}: {what}; give another name, or --force to write there")
    try:
        make_folder(target.parent)
        with temporary_folder(target) as work:
            yield work
            if single:
                publish(work / target.name, target)
                return
            if not os.path.lexists(target):
                publish(work, target)
                return
            sync_tree(work)
            if any(_WEIGHTS.fullmatch(path.name) for path in work.iterdir()):
                for old in [path for path in target.iterdir() if _WEIGHTS.fullmatch(path.name)]:
                    old.unlink()
            for path in sorted(work.rglob("*")):
                there = target / path.relative_to(work)
                if path.is_dir():
                    there.mkdir(exist_ok=True)
                else:
                    os.replace(path, there)
            sync_tree(target)
    except OSError as error:
        raise write_failure(f"{target} (--output)", error) from error
