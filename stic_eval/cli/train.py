"""`stic-eval train`: the adapters of one or more methods, without evaluating them."""

from __future__ import annotations

import typer

from stic_eval import registry
from stic_eval.cli import options as o
from stic_eval.cli.run import session
from stic_eval.errors import UserError

_NOT_THERE = (
    "a server's model cannot be trained; train it with --engine hf, let the server load "
    "the adapter, and name it with `stic-eval run --engine openai --adapter-name METHOD=NAME`"
)


def train(
    model: o.Model = None,
    revision: o.Revision = None,
    profile: o.Profile = None,
    system_prompt: o.SystemPrompt = None,
    chat_template: o.ChatTemplate = None,
    trust_remote_code: o.TrustRemoteCode = None,
    engine: o.Engine = None,
    method: o.Methods = None,
    seed: o.Seeds = None,
    images: o.Images = None,
    sft_data: o.SftData = None,
    pairs: o.Pairs = None,
    image_root: o.ImageRoot = None,
    prompts: o.Prompts = None,
    preset: o.Preset = None,
    config: o.Config = None,
    option: o.Overrides = None,
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
) -> None:
    """Train what the methods need and print where the adapters lie (PEFT folders)."""
    flags = {
        "model": model,
        "revision": revision,
        "profile": profile,
        "system_prompt": system_prompt,
        "chat_template": chat_template,
        "trust_remote_code": trust_remote_code,
        "engine": engine,
        "methods": method or None,
        "seeds": seed or None,
        "images": images,
        "sft_data": sft_data,
        "pairs_file": pairs,
        "image_root": image_root,
        "prompts": prompts,
        "offline": offline,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "attn": attn,
        "load_in_4bit": load_in_4bit,
        "load_in_8bit": load_in_8bit,
        "gradient_checkpointing": gradient_checkpointing,
        "output": output,
    }
    if engine is not None and not registry.engines().get(engine).trains:
        raise UserError(f"--engine {engine}: {_NOT_THERE}")
    built = o.configure(preset, config, option, flags)
    if not registry.engines().get(built.engine).trains:
        raise UserError(f"--engine {built.engine}: {_NOT_THERE}")
    if dry_run:
        from stic_eval.cli.dryrun import print_plan

        print_plan(built, evaluate=False, fresh=not resume)
        return
    from stic_eval.cli.untrained import discard_untrained

    with session(built, fresh=not resume, verbose=verbose, quiet=quiet) as current:
        discard_untrained([current])
        trained = {(v.method.name, v.seed): v for v in reversed(current.variants) if v.plan.adapter}
        adapters = {variant.label: current.train(variant) for variant in reversed(trained.values())}
        skipped = current.skipped()
    for label, folder in adapters.items():
        typer.echo(f"{label}: {folder}")
    if not adapters:
        typer.echo("nothing to train: the methods of this run have no adapter")
    if skipped:
        raise typer.Exit(3)
