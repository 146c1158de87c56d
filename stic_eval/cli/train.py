"""`stic-eval train`: the adapters of one or more methods, without evaluating them."""

from __future__ import annotations

import typer

from stic_eval import registry
from stic_eval.cli import options as o
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
    flags = o.given(locals())
    if engine is not None and not registry.engines().get(engine).trains:
        raise UserError(f"--engine {engine}: {_NOT_THERE}")
    built = o.configure(preset, config, option, flags)
    if not registry.engines().get(built.engine).trains:
        raise UserError(f"--engine {built.engine}: {_NOT_THERE}")
    if dry_run:
        from stic_eval.cli.dryrun import print_plan

        print_plan(built, option or (), evaluate=False, fresh=not resume)
        return
    from stic_eval.cli.conduct import at_work, raise_first, work_here
    from stic_eval.experiment import driver

    with at_work(built, fresh=not resume, verbose=verbose, quiet=quiet) as (resources, _):
        arms = driver.arms_of_run(built, resources, not resume, option or ())
        driver.start_over(built, not resume)
        experiment = driver.plan(built.name, arms, resources, evaluate=False)
        outcome = work_here(experiment, resources)
        if outcome.interrupted:
            raise KeyboardInterrupt
        raise_first(outcome, built.folder)
        driver.finish(experiment, outcome, resources, driver.of_run(built))
    trained = {(s.variant.method.name, s.variant.seed): s for s in reversed(experiment.subjects) if s.stages}
    for subject in reversed(trained.values()):
        stage, key = subject.stages[-1]
        typer.echo(f"{subject.variant.label}: {resources.stages.folder(stage.name, key) / 'adapter'}")
    if not trained:
        typer.echo("nothing to train: the methods of this run have no adapter")
    if experiment.skipped:
        raise typer.Exit(3)
