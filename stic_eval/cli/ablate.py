"""`stic-eval ablate`: a method under varied settings; what cells have in common is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from stic_eval import flags as f
from stic_eval.cli import options as o
from stic_eval.flags import Argument, flag


@dataclass(frozen=True)
class Axes:
    """What is varied, and how."""

    panel: ClassVar[str] = "Grid"

    vary: list[str] | None = flag(
        "Axis to vary and its values, e.g. `corruption=low_res,jitter,both` or `stage1.beta=0.05,0.1`. "
        "Repeatable, for all combinations. Replaces the axes of a named ablation.",
        metavar="AXIS=VALUE,...",
    )
    one_at_a_time: bool | None = flag(
        "Change one setting at a time from the defaults, or try all combinations.",
        "full",
        names="--one-at-a-time/--full",
    )
    exclude: list[str] | None = flag(
        "Combinations to leave out, e.g. `p_corrupt=0 corruption!=both`. Repeatable.", metavar="CONDITION"
    )
    seeds: list[str] | None = flag(
        "Training seeds of every cell, e.g. `0,1,2`. Repeatable.", "0", names="--seeds --seed"
    )
    method: str | None = flag(
        "Method that cells train.", "stic", values="method", panel="Method and evaluation"
    )


def ablate(
    axes: Axes,
    model: f.Model,
    evaluation: f.Evaluation,
    training: f.Training,
    settings: f.Settings,
    judge: f.Judge,
    server: f.Server,
    access: f.Access,
    machine: f.Machine,
    output: f.Output,
    name: Annotated[
        str | None,
        Argument("A built-in ablation (`stic-eval ls ablations`) or a YAML file; optional with --vary.",
                 values="ablation"),
    ] = None,
    jobs: f.Jobs = None,
    cluster: f.Cluster = "local",
    hardware: f.Hardware = "",
) -> int:  # fmt: skip
    """Train and evaluate a method under varied settings; shared stages are computed once."""
    from stic_eval import api
    from stic_eval.cli import dryrun, gridplan, outcome
    from stic_eval.experiment import arguments

    given = o.given(axes, model, evaluation, training, settings, judge, server, access, machine)
    given |= {"name": name, "seeds": axes.seeds}
    if output.dry_run:
        planned = arguments.ablation_of(**given, output=output.output)
        return gridplan.print_ablation(planned, output, jobs, cluster, hardware)
    dryrun.check_hardware(hardware)
    return outcome.of(lambda: api.ablate(**given, **o.conduct(output), jobs=jobs, cluster=cluster))
