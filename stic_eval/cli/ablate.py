"""`stic-eval ablate`: a method under varied settings; what cells have in common is computed once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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
        "The default settings and single departures from them, or all combinations.",
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
    jobs: f.Jobs = 1,
) -> None:  # fmt: skip
    """Train and evaluate a method under varied settings; what cells have in common is computed once."""
    from stic_eval import registry
    from stic_eval.ablate import build
    from stic_eval.ablate import spec as specs
    from stic_eval.cli import ablation
    from stic_eval.errors import UserError

    vary, single, solver, dar = axes.vary, axes.one_at_a_time, evaluation.solver, evaluation.dar
    if name is None and not vary:
        raise UserError("give an ablation by name (`stic-eval ls ablations`), or axes with --vary")
    flags = o.fields(model, evaluation, training, settings, judge, server, access, machine)
    flags.pop("dar", None)  # the grid's, below
    spec = specs.load(name) if name else specs.Spec(dar=None)
    spec = spec.model_copy(
        update={
            "method": registry.named("method", axes.method or spec.method),
            "design": spec.design if single is None else "one-at-a-time" if single else "full",
            # Conditions on axes that others have taken the place of would make no sense.
            "exclude": (*(() if vary else spec.exclude), *(axes.exclude or ())),
            "dar": None if solver else spec.dar if dar is None else dar,
            "seeds": _seeds(axes.seeds) or spec.seeds,
        }
    )
    flags |= {"seeds": spec.seeds} if spec.seeds else {}
    where = "--vary" if vary else f"ablation {name}" if name in specs.shipped() else str(name)
    overrides = tuple(settings.option or ())
    given = build.Given(spec, where, tuple(vary or ()), settings.preset, settings.config, overrides, flags)
    varied, without_default = build.axes(given)
    flag = "--solver" if solver else f"--{'' if dar else 'no-'}dar" if dar is not None else ""
    if flag and any(value.solver is not None for axis in varied for value in axis.values):
        raise UserError(f"{flag}: the axis dar decides; leave one of both out")
    known = Path(name).stem if name and not vary else "grid"
    grid = build.grid(given, varied, known, output.output)
    ablation.run(
        grid, spec, varied, without_default, name=known, jobs=jobs, dry_run=output.dry_run,
        fresh=not output.resume, verbose=output.verbose, quiet=output.quiet,
    )  # fmt: skip


def _seeds(given: list[str] | None) -> tuple[int, ...]:
    from stic_eval.errors import UserError

    parts = [part.strip() for item in given or () for part in item.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds {','.join(given or ())}: give whole numbers, e.g. 0,1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))
