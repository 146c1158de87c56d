"""`stic-eval train`: the adapters of one or more methods, without evaluating them."""

from __future__ import annotations

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.printable import printable


def train(
    model: f.Model,
    methods: f.Methods,
    training: f.Training,
    settings: f.Settings,
    server: f.Server,
    machine: f.Machine,
    output: f.Output,
) -> int:
    """Train what the methods need, and print the folder of each adapter (PEFT)."""
    from stic_eval import api
    from stic_eval.cli import dryrun, outcome
    from stic_eval.experiment import arguments

    given = o.given(model, methods, training, settings, server, machine)
    if output.dry_run:
        settled = arguments.settings_of_training(**given, output=output.output)
        return dryrun.print_run(*settled, output, evaluate=False)
    done = api.train(**given, **o.conduct(output))
    for label, folder in done.adapters.items():
        print(printable(f"{label}: {folder}"))
    if not done.adapters:
        print("nothing to train: the methods of this run have no adapter")
    return outcome.INCOMPLETE if done.skipped else 0
