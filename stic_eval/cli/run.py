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
    jobs: f.Jobs = None,
    cluster: f.Cluster = "local",
    hardware: f.Hardware = "",
) -> int:
    """Train what the methods need, evaluate them and the baseline, and print and save the table."""
    from stic_eval import api
    from stic_eval.cli import dryrun, outcome
    from stic_eval.experiment import arguments

    given = o.given(model, adapters, methods, evaluation, training, settings, judge, server, access, machine)
    if output.dry_run:
        config, items = arguments.settings_of_run(**given, output=output.output)
        return dryrun.print_run(config, items, output, jobs=jobs, cluster=cluster, hardware=hardware)
    dryrun.check_hardware(hardware)
    return outcome.of(lambda: api.run(**given, **o.conduct(output), jobs=jobs, cluster=cluster))
