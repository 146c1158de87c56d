"""`stic-eval run`: the whole experiment, from configuration to side-by-side table."""

from __future__ import annotations

from stic_eval import flags as f
from stic_eval.cli import options as o


def run(
    model: f.Model,
    adapters: f.Adapters,
    methods: f.Methods,
    evaluation: f.Evaluation,
    training: f.Training,
    settings: f.Settings,
    judge: f.Judge,
    server: f.Server,
    access: f.Access,
    machine: f.Machine,
    output: f.Output,
    jobs: f.Jobs = 1,
) -> None:
    """Train what the methods need, evaluate them and the baseline, and print and save the table."""
    # Somebody's adapter by itself is evaluated, and nothing trained beside it that nobody has named.
    alone = adapters.adapter and not settings.config and not methods.method
    built = o.configure(
        model, adapters, methods, evaluation, training, settings, judge, server, access, machine, output,
        methods=["baseline"] if alone else None,
    )  # fmt: skip
    options = settings.option or ()
    if output.dry_run:
        from stic_eval.cli.dryrun import print_plan

        print_plan(built, options, jobs=jobs, fresh=not output.resume)
        return
    from stic_eval.cli.conduct import evaluate

    evaluate(built, options, jobs=jobs, fresh=not output.resume, verbose=output.verbose, quiet=output.quiet)
