"""`stic-eval eval`: scores of a model, and of an adapter beside it."""

from __future__ import annotations

from stic_eval import flags as f
from stic_eval.cli import options as o


def eval_(
    model: f.Model,
    adapters: f.Adapters,
    evaluation: f.Evaluation,
    settings: f.Settings,
    judge: f.Judge,
    server: f.Server,
    access: f.Access,
    machine: f.Machine,
    output: f.Output,
) -> None:
    """Evaluate a model, optionally with adapters, without training anything."""
    # Of a server's adapters, those that are named; of a folder's the one that --adapter gives.
    named = [item.partition("=")[0].partition("@")[0] for item in server.adapter_name or ()]
    built = o.configure(
        model, adapters, evaluation, settings, judge, server, access, machine, output,
        methods=["baseline", *named],
    )  # fmt: skip
    if output.dry_run:
        from stic_eval.cli.dryrun import print_plan

        print_plan(built, settings.option or (), fresh=not output.resume)
        return
    from stic_eval.cli.conduct import evaluate

    evaluate(
        built, settings.option or (), jobs=1, fresh=not output.resume, verbose=output.verbose,
        quiet=output.quiet,
    )  # fmt: skip
