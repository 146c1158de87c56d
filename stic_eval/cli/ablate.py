"""`stic-eval ablate`: a method under varied settings; what cells have in common is computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stic_eval.cli import options as o

if TYPE_CHECKING:
    from stic_eval.ablate.grid import Axis, Value
    from stic_eval.ablate.spec import Spec
    from stic_eval.config import RunConfig

_GRID = "Grid"


def ablate(
    name: Annotated[
        str | None,
        typer.Argument(help="Shipped (`stic-eval ls ablations`) or a YAML file; none with --vary."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AXIS=VALUE,...", rich_help_panel=_GRID,
            help="An axis and its values, e.g. `corruption=low_res,jitter,both` or `stage1.beta=0.05,0.1`; "
            "repeatable: all combinations.",
        ),
    ] = None,
    one_at_a_time: Annotated[
        bool | None,
        typer.Option("--one-at-a-time/--full", rich_help_panel=_GRID,
                     help="Only the default and single departures from it, or all combinations.",
                     show_default="full"),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", rich_help_panel=_GRID,
                     help="Cells to leave out, e.g. `p_corrupt=0 corruption!=both`; repeatable."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", "--seed", help="Training seeds, e.g. `0,1,2`.", show_default="0",
                     rich_help_panel=_GRID),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=256, help="Worker processes.", rich_help_panel="Machine")
    ] = 1,
    model: o.Model = None,
    revision: o.Revision = None,
    trust_remote_code: o.TrustRemoteCode = None,
    method: Annotated[
        str | None,
        typer.Option(help="What cells train.", show_default="stic", rich_help_panel="Method and evaluation"),
    ] = None,
    benchmarks: o.Benchmarks = None,
    protocol: o.Protocol = None,
    dar: o.Dar = None,
    limit: o.Limit = None,
    images: o.Images = None,
    sft_data: o.SftData = None,
    image_root: o.ImageRoot = None,
    prompts: o.Prompts = None,
    preset: o.Preset = None,
    config: o.Config = None,
    option: o.Overrides = None,
    judge: o.Judge = None,
    judge_base_url: o.JudgeBaseUrl = None,
    judge_api_key_env: o.JudgeApiKeyEnv = None,
    allow_remote_images: o.AllowRemoteImages = None,
    offline: o.Offline = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    batch_size: o.BatchSize = None,
    output: o.Output = None,
    dry_run: o.DryRun = False,
    resume: o.Resume = True,
    verbose: o.Verbose = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Train and evaluate a method under varied settings, sharing what cells have in common."""
    from stic_eval.ablate import spec as specs
    from stic_eval.errors import UserError

    if name is None and not vary:
        raise UserError("give an ablation by name (`stic-eval ls ablations`), or axes with --vary")
    spec = specs.load(name) if name else specs.Spec(dar=None)
    spec = spec.model_copy(
        update={
            "method": method or spec.method,
            "design": spec.design if one_at_a_time is None else "one-at-a-time" if one_at_a_time else "full",
            "exclude": (*spec.exclude, *(exclude or ())),
            "dar": spec.dar if dar is None else dar,
            "seeds": _seeds(seeds) or spec.seeds,
        }
    )
    flags = {
        "model": model,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "benchmarks": benchmarks,
        "limit": limit,
        "images": images,
        "sft_data": sft_data,
        "image_root": image_root,
        "prompts": prompts,
        "protocol": protocol,
        "judge": judge,
        "judge_base_url": judge_base_url,
        "judge_api_key_env": judge_api_key_env,
        "allow_remote_images": allow_remote_images,
        "offline": offline,
        "device": device,
        "dtype": dtype,
        "batch_size": batch_size,
        "seeds": spec.seeds or None,
    }
    build = _Build(preset, config, tuple(option or ()), flags, spec)
    axes = build.axes(tuple(vary or ()))
    known = Path(name).stem if name and not vary else "grid"
    grid = build.grid(axes, known, output)
    from stic_eval.cli import ablation

    ablation.run(
        grid, spec, axes, name=known, jobs=jobs,
        dry_run=dry_run, fresh=not resume, verbose=verbose, quiet=quiet,
    )  # fmt: skip


def _seeds(text: str | None) -> tuple[int, ...]:
    from stic_eval.errors import UserError

    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds {text}: give whole numbers, e.g. 0,1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))


class _Build:
    """Makes settings of cells from the command line's values and an ablation."""

    def __init__(
        self,
        preset: str | None,
        file: Path | None,
        overrides: Sequence[str],
        flags: Mapping[str, Any],
        spec: Spec,
    ) -> None:
        self.preset, self.file, self.flags, self.spec = preset, file, flags, spec
        import json

        self.overrides = [
            *(f"{path}={json.dumps(value)}" for path, value in spec.options.items()),
            *overrides,
        ]

    def settings(self, method: str, options: Sequence[str] = (), dar: bool | None = None) -> RunConfig:
        """The settings of a cell."""
        use = self.spec.dar if dar is None else "only" if dar else False
        flags = {**self.flags, "methods": [method]}
        built = o.configure(self.preset, self.file, [*self.overrides, *options], flags)
        if use is None:
            return built
        return built.model_copy(update={"dar": built.dar.model_copy(update={"use": use})})

    def axes(self, vary: Sequence[str]) -> list[Axis]:
        """The axes, each with its default value first where it has one."""
        from stic_eval.ablate import grid
        from stic_eval.errors import UserError

        named = self.spec.vary.get("method", ())
        methods = [self.spec.method, *(str(m) for m in named if m != self.spec.method)]
        if vary:
            parts = [item.partition("=") for item in vary]
            for key, _, values in parts:
                if key.strip() == "method":
                    methods += [m.strip() for m in values.split(",") if m.strip() not in methods]
            axes = [grid.parse_axis(item, methods) for item in vary]
            names = [axis.name for axis in axes]
            twice = next((n for n in names if names.count(n) > 1), None)
            if twice:
                raise UserError(f"--vary {twice}: is given more than once; give all values in one")
        else:
            where = "ablation"
            axes = [grid.axis(key, values, methods, where) for key, values in self.spec.vary.items()]
        return [self._default_first(axis) for axis in axes]

    def _default_first(self, axis: Axis) -> Axis:
        from stic_eval.ablate.grid import Axis as _Axis

        default = next((value for value in axis.values if self._is_default(value)), None)
        if default is None:
            return axis
        return _Axis(axis.name, (default, *(value for value in axis.values if value != default)))

    def _is_default(self, value: Value) -> bool:
        if value.dar is not None and not value.options:
            return value.dar
        method = value.method or self.spec.method
        return method == self.spec.method and self.settings(method, value.options) == self.settings(method)

    def grid(self, axes: Sequence[Axis], name: str, output: Path | None) -> Any:
        """The cells with their settings, all in one folder.

        Raises:
            UserError: A value does not fit its setting, or an axis has no default to depart from.
        """
        import os

        from stic_eval.ablate import grid as grids
        from stic_eval.cli.cells import Grid
        from stic_eval.store import content_key

        one = self.spec.design == "one-at-a-time"
        default = {axis.name: self._default(axis, one) for axis in axes}
        cells = grids.cells(
            axes, self.spec.method, default=default, one_at_a_time=one, exclude=self.spec.exclude
        )
        base = self.settings(self.spec.method)
        configs = [self.settings(cell.method, cell.options, cell.dar) for cell in cells]
        key = content_key(
            [base.key, [[cell.settings, config.key] for cell, config in zip(cells, configs, strict=True)]]
        )
        shown = base.name.split(f"-{self.spec.method}-")[0]
        folder = Path(os.path.expanduser(output)) if output else Path("results") / f"{shown}-{name}-{key[:8]}"
        here = {"output": folder}
        return Grid(
            base.model_copy(update=here),
            tuple(cells),
            tuple(config.model_copy(update=here) for config in configs),
        )

    def _default(self, axis: Axis, needed: bool) -> Value:
        from stic_eval.ablate.grid import Value
        from stic_eval.errors import UserError

        if self._is_default(axis.values[0]) or not needed:
            return axis.values[0]
        paths = {option.partition("=")[0] for value in axis.values for option in value.options}
        if len(paths) == 1:  # the value that the setting has by itself
            (path,) = paths
            found: Any = self.settings(self.spec.method).model_dump(mode="json")
            if path.partition(".")[0] not in found:
                found = found["method_options"][self.spec.method]
            for part in path.split("."):
                found = found[part]
            return Value(found if isinstance(found, (str, int, float, bool)) else "default")
        raise UserError(
            f"--one-at-a-time: no value of {axis.name} is the default; add one, or leave that flag out"
        )
