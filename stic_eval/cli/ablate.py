"""`stic-eval ablate`: a method under varied settings; what cells have in common is computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stic_eval.cli import options as o

_GRID = "Grid"
_OF_THE_GRID = ("name", "vary", "one_at_a_time", "exclude", "seeds", "method", "dar", "output")


def ablate(
    name: Annotated[
        str | None,
        typer.Argument(help="Shipped (`stic-eval ls ablations`) or a YAML file; none with --vary."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=VALUE,...", rich_help_panel=_GRID,
            help="An axis and its values, e.g. `corruption=low_res,jitter,both` or `stage1.beta=0.05,0.1`; "
            "repeatable: all combinations. With a name, in place of its axes.",
        ),
    ] = None,
    one_at_a_time: Annotated[
        bool | None,
        typer.Option("--one-at-a-time/--full", rich_help_panel=_GRID,
                     help="Only the default and single departures from it, or all combinations.",
                     show_default="full"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", rich_help_panel=_GRID,
                     help="Cells to leave out, e.g. `p_corrupt=0 corruption!=both`; repeatable."),
    ] = None,
    seeds: Annotated[
        list[str] | None,
        typer.Option(
            "--seeds",
            "--seed",
            help="Training seeds of every cell, e.g. `0,1,2`; repeatable.",
            show_default="0",
            rich_help_panel=_GRID,
        ),
    ] = None,
    jobs: o.Jobs = 1,
    model: o.Model = None,
    revision: o.Revision = None,
    profile: o.Profile = None,
    system_prompt: o.SystemPrompt = None,
    chat_template: o.ChatTemplate = None,
    trust_remote_code: o.TrustRemoteCode = None,
    engine: o.Engine = None,
    method: Annotated[
        str | None,
        typer.Option(help="What cells train.", show_default="stic", rich_help_panel="Method and evaluation"),
    ] = None,
    benchmarks: o.Benchmarks = None,
    protocol: o.Protocol = None,
    dar: o.Dar = None,
    solver: o.Solvers = None,
    limit: o.Limit = None,
    images: o.Images = None,
    sft_data: o.SftData = None,
    pairs: o.Pairs = None,
    image_root: o.ImageRoot = None,
    prompts: o.Prompts = None,
    preset: o.Preset = None,
    config: o.Config = None,
    option: o.Overrides = None,
    judge: o.Judge = None,
    judge_base_url: o.JudgeBaseUrl = None,
    judge_api_key_env: o.JudgeApiKeyEnv = None,
    judge_protocol: o.JudgeProtocol = None,
    judge_samples: o.JudgeSamples = None,
    judge_max_requests: o.JudgeMaxRequests = None,
    base_url: o.BaseUrl = None,
    api_key_env: o.ApiKeyEnv = None,
    adapter_name: o.AdapterNames = None,
    concurrency: o.Concurrency = None,
    timeout: o.Timeout = None,
    allow_remote_images: o.AllowRemoteImages = None,
    offline: o.Offline = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    batch_size: o.BatchSize = None,
    attn: o.Attn = None,
    load_in_4bit: o.LoadIn4bit = None,
    load_in_8bit: o.LoadIn8bit = None,
    gradient_checkpointing: o.GradientCheckpointing = None,
    output: o.Output = None,
    dry_run: o.DryRun = False,
    resume: o.Resume = True,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Train and evaluate a method under varied settings, sharing what cells have in common."""
    flags = o.given(locals(), without=_OF_THE_GRID)
    from stic_eval import registry
    from stic_eval.ablate import spec as specs
    from stic_eval.cli import ablation, gridbuild
    from stic_eval.errors import UserError

    if name is None and not vary:
        raise UserError("give an ablation by name (`stic-eval ls ablations`), or axes with --vary")
    if solver and dar is not None:
        raise UserError(f"--{'' if dar else 'no-'}dar: with --solver as well; give one of both")
    spec = specs.load(name) if name else specs.Spec(dar=None)
    spec = spec.model_copy(
        update={
            "method": registry.named("method", method or spec.method),
            "design": spec.design if one_at_a_time is None else "one-at-a-time" if one_at_a_time else "full",
            # Conditions on axes that others have taken the place of would make no sense.
            "exclude": (*(() if vary else spec.exclude), *(exclude or ())),
            "dar": None if solver else spec.dar if dar is None else dar,
            "seeds": _seeds(seeds) or spec.seeds,
        }
    )
    flags["seeds"] = spec.seeds or None
    where = "--vary" if vary else f"ablation {name}" if name in specs.shipped() else str(name)
    given = gridbuild.Given(spec, where, tuple(vary or ()), preset, config, tuple(option or ()), flags)
    axes, without_default = gridbuild.axes(given)
    flag = "--solver" if solver else f"--{'' if dar else 'no-'}dar" if dar is not None else ""
    if flag and any(value.solver is not None for axis in axes for value in axis.values):
        raise UserError(f"{flag}: the axis dar decides; leave one of both out")
    known = Path(name).stem if name and not vary else "grid"
    grid = gridbuild.grid(given, axes, known, output)
    ablation.run(
        grid, spec, axes, without_default, name=known, jobs=jobs,
        dry_run=dry_run, fresh=not resume, verbose=verbose, quiet=quiet,
    )  # fmt: skip


def _seeds(given: list[str] | None) -> tuple[int, ...]:
    from stic_eval.errors import UserError

    parts = [part.strip() for item in given or () for part in item.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds {','.join(given or ())}: give whole numbers, e.g. 0,1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))
