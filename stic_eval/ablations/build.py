"""From an ablation and the settings beside it to the settings of every cell."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval import config_layers, registry
from stic_eval.ablations import grid as grids
from stic_eval.ablations.grid import Axis, Grid, Value
from stic_eval.config import load
from stic_eval.config_layers import read_file
from stic_eval.dar_setting import DESCRIBE
from stic_eval.errors import UserError
from stic_eval.hub_access import go_offline
from stic_eval.report.table_rows import setting
from stic_eval.setting_paths import of_the_run
from stic_eval.settings import RunConfig

if TYPE_CHECKING:
    from stic_eval.ablations.spec import Spec


@dataclass(frozen=True)
class GridArguments:
    """What an ablation is asked for by.

    Attributes:
        spec: The ablation.
        where: What it is called in messages: its file, its name, or `--vary`.
        vary: Axes of the command line; they take the place of the ablation's.
        preset: As for a run.
        file: As for a run.
        overrides: `-o` items.
        flags: RunConfig fields.
    """

    spec: Spec
    where: str
    vary: tuple[str, ...]
    preset: str | None
    file: Path | None
    overrides: tuple[str, ...]
    flags: Mapping[str, Any]

    @property
    def methods(self) -> list[str]:
        """Methods that cells evaluate, the ablation's own first."""
        named: list[str] = []
        for item in self.vary:
            axis, _, values = item.partition("=")
            if axis.strip() == "method":
                named += [value.strip() for value in values.strip("[] ").split(",")]
        listed = self.spec.vary.get("method", []) if not self.vary else []
        named += [str(method) for method in listed] if isinstance(listed, (list, dict)) else []
        return list(
            dict.fromkeys(registry.resolve_name("method", name) for name in [self.spec.method, *named])
        )


def settings(
    given: GridArguments, method: str, options: Sequence[str] = (), solver: str | None = None
) -> RunConfig:
    """The settings of a cell: the ablation's below the command line's, the cell's own above all."""
    spec = given.spec
    own = [f"{path}={json.dumps(value)}" for path, value in spec.options.items()]
    if spec.dar is not None and not (given.file and "dar" in read_file(given.file)):
        own.insert(0, f"dar.use={json.dumps(spec.dar)}")
    shared = [item for item in (*own, *given.overrides) if _concerns(item, method, given.methods)]
    last = [] if solver is None else [f"solvers={json.dumps([solver])}"]
    also = [axis for axis in ("solvers", "dar.use") if any(o.startswith(f"{axis}=") for o in options)]
    if solver is not None and also:
        raise UserError(f"the axes dar and {also[0]} both say how answers are obtained; leave one out")
    # Adapters of the grid's other methods are none of this cell's.
    others = set(given.methods) - {method}
    flags = {**given.flags, "methods": [method]}
    if names := flags.get("server", {}).get("adapters"):
        own_names = {of: name for of, name in names.items() if of.partition("@")[0] not in others}
        flags["server"] = {**flags["server"], "adapters": own_names}
    built = load(preset=given.preset, file=given.file, flags=flags, overrides=[*shared, *options, *last])
    go_offline(built.offline)
    return built


def _concerns(item: str, method: str, methods: Sequence[str]) -> bool:
    """Whether an `-o` item is for a method, where others of the grid have what it names."""
    path = item.partition("=")[0].strip()
    head, _, rest = path.partition(".")
    if head in methods and rest:
        return head == method
    configs = {name: registry.methods().get(name).config for name in methods}
    if of_the_run(path) or not any(config_layers.has(path, config) for config in configs.values()):
        return True  # not of a method, or of none, which is refused where it is read
    return config_layers.has(path, configs[method])


def axes(given: GridArguments) -> tuple[list[Axis], list[str]]:
    """The axes, each with its default value first, and the names of those that have no default.

    One at a time, an axis without its default gets it: departures are from it.

    Raises:
        UserError: An axis or a value is none, or one at a time has no default to depart from.
    """
    methods = given.methods
    settings(given, methods[0])  # registers the plug-ins that it names, which values may be of
    if given.vary:
        found = [grids.parse_axis(item, methods) for item in given.vary]
        names = [axis.name for axis in found]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UserError(f"--vary {twice}: is given more than once; give all values in one")
    else:
        items = given.spec.vary.items()
        found = [grids.axis(key, values, methods, given.where) for key, values in items]
    if not found:
        raise UserError(f"{given.where}: varies nothing; name axes under `vary`, or give --vary")
    ordered, without = [], []
    for axis in found:
        default = next((value for value in axis.values if _is_default(given, value)), None)
        if default is None and given.spec.design == "one-at-a-time":
            default = _default(given, axis)
        if default is None:
            without.append(axis.name)
            ordered.append(axis)
        else:
            ordered.append(Axis(axis.name, (default, *(v for v in axis.values if v != default))))
    return ordered, without


def _is_default(given: GridArguments, value: Value) -> bool:
    if value.solver is not None and not value.options:
        return value.solver == DESCRIBE
    own = given.spec.method
    if (value.method or own) != own:
        return False
    default = settings(given, own)
    try:
        return settings(given, own, value.options) == default
    except UserError as error:  # of the value, for the default alone went well
        raise UserError(f"{given.where}: value {setting(value.label)}: {error}") from error


def _default(given: GridArguments, axis: Axis) -> Value:
    """The value that an axis' setting has by itself."""
    paths = {option.partition("=")[0] for value in axis.values for option in value.options}
    if len(paths) != 1:
        raise UserError(
            f"--one-at-a-time: no value of {axis.name} is the default; add one, or leave that flag out"
        )
    (path,) = paths
    default = settings(given, given.spec.method)
    found: Any = {**default.model_dump(mode="json"), "dar": default.dar}
    if path.partition(".")[0] not in found:
        found = found["method_options"][given.spec.method]
    for part in path.split("."):
        found = found[part]
    return Value(grids.label(found))


def grid(given: GridArguments, varied: Sequence[Axis], name: str, output: Path | None) -> Grid:
    """The cells with their settings, all in one folder.

    Raises:
        UserError: A value does not fit its setting.
    """
    spec = given.spec
    cells = grids.cells(
        varied,
        spec.method,
        default={axis.name: axis.values[0] for axis in varied},
        one_at_a_time=spec.design == "one-at-a-time",
        exclude=spec.exclude,
    )
    base = settings(given, spec.method)
    configs = []
    for cell in cells:
        try:
            configs.append(settings(given, cell.method, cell.options, cell.solver))
        except UserError as error:
            raise UserError(f"{given.where}: cell {cell.label}: {error}") from error
    key = Grid(base, tuple(cells), tuple(configs)).key
    shown = base.name.split(f"-{spec.method}-")[0]
    folder = Path(os.path.expanduser(output)) if output else Path("results") / f"{shown}-{name}-{key[:8]}"
    here = {"output": folder}
    return Grid(
        base.model_copy(update=here),
        tuple(cells),
        tuple(config.model_copy(update=here) for config in configs),
        given.overrides,
    )
