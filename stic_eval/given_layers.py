"""What is given for a run's settings, layer by layer, each checked by itself: preset, file, flags, `-o`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stic_eval import config_layers, registry
from stic_eval.config_layers import read_file, read_preset
from stic_eval.dar_setting import expand_all
from stic_eval.errors import UserError, quote
from stic_eval.setting_paths import flag_of, of_the_run, require, split


@dataclass(frozen=True)
class GivenLayers:
    """What a configuration is put together from, later layers over earlier ones.

    Attributes:
        preset: The preset's name; None: there is none.
        shipped: What it says.
        file: What a file says, checked.
        given: Fields from the command line.
        direct: What `-o` says of the run itself: path -> value.
        of_methods: The other `-o` items, which are about methods.
        named: Whether anybody has named the model or the preset.
    """

    preset: str | None
    shipped: dict[str, Any]
    file: dict[str, Any]
    given: dict[str, Any]
    direct: dict[str, Any]
    of_methods: list[tuple[str, Any]]
    named: bool


def read_layers(
    preset: str | None, file: Path | None, flags: Mapping[str, Any], overrides: Sequence[str]
) -> GivenLayers:
    from_file = _by_name(_expand_dar(read_file(file), f"--config {file}"), f"--config {file}") if file else {}
    flags = {key: value for key, value in flags.items() if value is not None}
    given = _by_name(_expand_dar(flags, "--dar"), "flags")
    pairs = [pair for item in overrides for pair in split(item)]
    direct = {path: value for path, value in pairs if of_the_run(path)}
    direct = _by_name(direct, "-o plugins")
    model = direct.get("model", given.get("model", from_file.get("model")))
    preset = preset or from_file.get("preset")
    if not isinstance(preset, str | None):
        raise UserError(f"--config {file}: preset {quote(preset)}: give the name of a preset")
    named = model is not None or preset is not None
    preset = preset or ("pocket" if model in (None, "pocket") else None)
    where = f"preset {preset}"
    shipped = _check_layer(_expand_dar(read_preset(preset), where), where) if preset else {}
    if model not in (None, shipped.get("model")):
        shipped.pop("conversation", None)  # how the preset's own model is asked; this may be another one
    checked = _check_layer(from_file, f"--config {file}")
    of_methods = [pair for pair in pairs if pair[0] not in direct]
    return GivenLayers(preset, shipped, checked, given, direct, of_methods, named)


def _expand_dar(layer: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return expand_all(layer)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _by_name(layer: dict[str, Any], where: str) -> dict[str, Any]:
    """A layer in which plug-in files are registered and replaced by the names of what they hold."""
    found = dict(layer)
    paths = found.get("plugins") or ()
    if not isinstance(paths, Sequence) or isinstance(paths, str):
        raise UserError(f"{where}: plugins {quote(paths)}: give a list of plug-in files")
    for path in paths:
        registry.register(str(path), where)
    if "engine" in found:
        found["engine"] = registry.resolve_name("engine", str(found["engine"]))
    for key in ("methods", "benchmarks", "solvers"):
        value = found.get(key)
        parts = [value] if isinstance(value, str) else value
        if isinstance(parts, Sequence) and any(".py" in str(part) for part in parts):
            for part in parts:
                if "," in str(part) and os.path.isfile(os.path.expanduser(str(part))):
                    flag = flag_of(key)
                    raise UserError(f"{flag} {part}: commas separate names; give the file a path without any")
            names = [name.strip() for part in parts for name in str(part).split(",")]
            found[key] = [registry.resolve_name(key.removesuffix("s"), name) for name in names]
    return found


def _check_layer(layer: dict[str, Any], where: str) -> dict[str, Any]:
    """Checks a layer's own keys, those of unselected methods included, so that a typo never hides."""
    for key in layer:
        require(str(key), where)
    for name, given in _mapping_in(layer, "solver_options", where).items():
        if not isinstance(given or {}, dict):
            raise UserError(f"{where}: solver_options.{name} {quote(given)}: expected `option: value` lines")
        for path, _ in config_layers.leaves(given or {}):
            require(f"solver_options.{name}.{path}", where)
    check_benchmarks(layer, where)
    options = _mapping_in(layer, "method_options", where)
    known = registry.methods().names()
    for name, values in options.items():
        if name not in known:
            advice = registry.suggest(str(name), known)
            raise UserError(f'{where}: method_options: no method is called "{name}"{advice}')
        if not isinstance(values or {}, dict):
            raise UserError(f"{where}: method_options.{name} {quote(values)}: expected `option: value` lines")
        try:
            config = registry.methods().get(name).config
        except UserError:  # a broken plug-in, which is only told of where it is to be used
            continue
        for path, _ in config_layers.leaves(values or {}):
            config_layers.require(path, config, f"{where}: method_options.{name}")
    return expand_fields(layer)


def _mapping_in(layer: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    found = layer.get(key) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}: {key} maps a {key.removesuffix('_options')}'s name to its options")
    return found


def check_benchmarks(layer: Mapping[str, Any], where: str) -> None:
    """Refuses rows and options of a benchmark that does not exist, which would otherwise be ignored."""
    known = registry.benchmarks().names()
    for key, more in (("rows", ["all"]), ("benchmark_options", [])):
        values = layer.get(key)
        for name in values if isinstance(values, dict) else ():
            named = str(name).removesuffix(".root") if key == "rows" else str(name)
            if named not in [*more, *known] and not registry.of_family(named):
                advice = registry.suggest(str(name), known)
                shown = where.replace("-o benchmark_options.", "-o benchmarks.")
                raise UserError(f'{shown}: no benchmark is called "{name}"{advice}')


def expand_fields(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: expand_field(key, value) for key, value in layer.items()}


def expand_field(key: str, value: Any) -> Any:
    """The mapping that a short form of a RunConfig field stands for, so that layers merge."""
    return {"all": value} if key == "rows" and isinstance(value, str) else value
