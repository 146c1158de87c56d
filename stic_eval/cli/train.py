"""`stic-eval train`: the adapters of one or more methods, without evaluating them."""

from __future__ import annotations

import typer

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.errors import UserError

_NOT_THERE = (
    "a server's model cannot be trained; train it with --engine hf, let the server load "
    "the adapter, and name it with `stic-eval run --engine openai --adapter-name METHOD=NAME`"
)


def train(
    model: f.Model,
    methods: f.Methods,
    training: f.Training,
    settings: f.Settings,
    machine: f.Machine,
    output: f.Output,
) -> None:
    """Train what the methods need, and print the folder of each adapter (PEFT)."""
    from stic_eval import registry

    if model.engine is not None and not registry.engines().get(model.engine).trains:
        raise UserError(f"--engine {model.engine}: {_NOT_THERE}")
    built = o.configure(model, methods, training, settings, machine, output)
    if not registry.engines().get(built.engine).trains:
        raise UserError(f"--engine {built.engine}: {_NOT_THERE}")
    fresh, options = not output.resume, settings.option or ()
    if output.dry_run:
        from stic_eval.cli.dryrun import print_plan

        print_plan(built, options, evaluate=False, fresh=fresh)
        return
    from stic_eval.cli.conduct import at_work, raise_first, work_here
    from stic_eval.experiment import driver

    with at_work(built, fresh=fresh, verbose=output.verbose, quiet=output.quiet) as (resources, _):
        arms = driver.arms_of_run(built, resources, fresh, options)
        driver.start_over(built, fresh)
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
