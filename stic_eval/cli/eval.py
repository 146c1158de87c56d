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
) -> int:
    """Evaluate a model, optionally with adapters, without training anything."""
    from stic_eval import api
    from stic_eval.cli import dryrun, outcome
    from stic_eval.experiment import arguments

    given = o.given(model, adapters, evaluation, settings, judge, server, access, machine)
    if output.dry_run:
        return dryrun.print_run(*arguments.settings_of_evaluation(**given, output=output.output), output)
    return outcome.of(lambda: api.evaluate(**given, **o.conduct(output)))
