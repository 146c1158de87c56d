"""`stic-eval eval`: scores of a model, and of an adapter beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stic_eval.cli import options as o
from stic_eval.cli.run import session


def eval_(
    model: o.Model = None,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = None,
    adapter: Annotated[
        Path | None,
        typer.Option(help="PEFT adapter folder to evaluate beside the model.", rich_help_panel="Model"),
    ] = None,
    benchmarks: o.Benchmarks = None,
    dar: o.Dar = None,
    limit: o.Limit = None,
    prompts: o.Prompts = None,
    preset: o.Preset = None,
    config: o.Config = None,
    option: o.Overrides = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    batch_size: o.BatchSize = None,
    output: o.Output = None,
    resume: o.Resume = True,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:
    """Evaluate a model, optionally with an adapter, without training anything."""
    from stic_eval.cli import inputs
    from stic_eval.cli.plan import adapter_name
    from stic_eval.cli.table import print_table
    from stic_eval.models.fingerprint import adapter_fingerprint

    flags = {
        "model": model,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "methods": ["baseline"],
        "benchmarks": benchmarks,
        "dar": dar,
        "limit": limit,
        "prompts": prompts,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "output": output,
    }
    built = o.configure(preset, config, option, flags)
    if adapter is not None:
        adapter = adapter.expanduser()
        inputs.check_adapter(adapter)
        if built.output is None:
            # By content: many adapters lie in folders of one name.
            name = f"{built.folder.name}-{adapter_name(adapter)}-{adapter_fingerprint('', adapter)[:8]}"
            built = built.model_copy(update={"output": built.folder.with_name(name)})
    with session(built, fresh=not resume, verbose=verbose, quiet=quiet) as current:
        current.adapter = adapter
        table = current.run()
    print_table(table)
    typer.echo(f"\n{current.folder}/table.md, .tex, .csv, .json; records/; run.log")
    if table.unscored:
        raise typer.Exit(3)
