"""A run's settings put together from what is given, validated once.

Layers, the later the stronger: preset file, config file, flags, `-o key=value`.
An unknown key anywhere is an error that suggests the closest known one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stic_eval import config_layers, hub_access, plugins, profiles, registry
from stic_eval.adapter_references import adapter_folder
from stic_eval.benchmark_protocols import complete, protocols
from stic_eval.contracts.solver import Solver
from stic_eval.dar_setting import DESCRIBE, expand
from stic_eval.errors import Contained, UserError, fault_of, headline, quote
from stic_eval.given_layers import GivenLayers, check_benchmarks, expand_field, expand_fields, read_layers
from stic_eval.setting_paths import flag_of, require
from stic_eval.settings import RunConfig


def load(
    *,
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Builds the one validated configuration of a run.

    Args:
        preset: Name of a shipped preset; without one, the model `pocket` brings its own.
        file: A partial RunConfig in YAML.
        flags: RunConfig fields given on the command line (None values are left out).
        overrides: `path=value` items: a RunConfig path, `<method>.<path>`, or a bare method path,
            which applies to every selected method that has it. Values are YAML.

    Raises:
        UserError: An unknown key, name or preset, or a value that does not fit.
    """
    layers = read_layers(preset, file, flags or {}, overrides)
    config: RunConfig = _validate(RunConfig, _merge(layers), "")
    config = config.model_copy(update={"benchmarks": _all_benchmarks(config.benchmarks)})
    if config.load_in_4bit and config.load_in_8bit:
        raise UserError("--load-in-8bit: with --load-in-4bit as well; give only one of them")
    engine = registry.engines().get(config.engine)
    config = engine.settled(config, layers.given, layers.named)
    if config.adapters and engine.trains_in(config):
        hub_access.go_offline(config.offline)
        lie = {folder: adapter_folder(folder) for folder in config.adapters}
        names = {str(lie[Path(given)]): name for given, name in config.adapter_names.items()}
        config = config.model_copy(update={"adapters": tuple(lie.values()), "adapter_names": names})
    _check_benchmark_options(config, layers.direct)
    chosen = benchmarks(config)
    complete = _method_options(config, layers.shipped, layers.of_methods)
    for name in {*(config.solvers or ()), *config.solver_options}:
        options_of(config, registry.solvers().get(name))
    files = _plugin_files(config, complete)
    done = {"method_options": complete, "benchmark_options": chosen, "plugins": files}
    return config.model_copy(update=done)


def _merge(layers: GivenLayers) -> dict[str, Any]:
    """All layers as one, before it is validated."""
    merged = dict(layers.shipped)
    if layers.preset:
        merged["preset"] = layers.preset
    # Weights that a file gives are the weights, not some more beside the preset's.
    whole = [
        f"method_options.{name}.{path}"
        for name in layers.file.get("method_options") or {}
        for path in _mappings(name)
    ]
    merged = config_layers.merge(merged, layers.file, whole)
    merged = config_layers.merge(merged, expand_fields(layers.given))
    _put(merged, layers.direct)
    merged["conversation"] = profiles.read_template(merged.get("conversation") or {})
    return merged


def _check_benchmark_options(config: RunConfig, direct: Mapping[str, Any]) -> None:
    """Refuses options of benchmarks that are not part of the run."""
    for path in direct:
        head, _, name = path.partition(".")
        if head == "benchmark_options" and name.partition(".")[0] not in config.benchmarks:
            raise UserError(f"-o benchmarks.{name}: not part of this run (--benchmarks chooses them)")


def _plugin_files(config: RunConfig, complete: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The files of all plug-ins that a run may ask for, those that were named first."""
    leaves = [leaf for own in complete.values() for leaf in config_layers.leaves(own)]
    options_name = [text for path, value in leaves for text in (path.rpartition(".")[2], str(value))]
    files = registry.files({
        "method": config.methods, "benchmark": config.benchmarks, "solver": config.solvers or (),
        "engine": [config.engine], "loss": options_name, "corruption": options_name,
    })  # fmt: skip
    return tuple(map(str, dict.fromkeys([*map(plugins.absolute, config.plugins), *files])))


def _put(merged: dict[str, Any], direct: Mapping[str, Any]) -> None:
    """Sets what `-o` says of the run itself."""
    for path, value in direct.items():
        require(path, f"-o {path.replace('solver_options.', 'solvers.', 1)}")
        try:
            named_in_full, given_value = expand(path, value)
        except ValueError as error:
            raise UserError(f"-o {path} {quote(value)}: {error}") from error
        head, _, name = named_in_full.partition(".")
        if head == "rows" and name:  # a benchmark's name, or that and `.root`
            named_in_full, given_value = head, {name: given_value}
        config_layers.put(merged, named_in_full, expand_field(named_in_full, given_value))
        check_benchmarks(merged, f"-o {path}")


def _method_options(
    config: RunConfig, shipped: Mapping[str, Any], assignments: Sequence[tuple[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Every option of the methods, validated, with what `-o` says of them."""
    classes = {name: registry.methods().get(name).config for name in config.methods}
    options = {name: _options(name, config, shipped) for name in config.methods}
    for path, value in assignments:
        _set_method_option(path, value, classes, options)
    return {
        name: _validate(classes[name], options[name], f"{name}.").model_dump(mode="json")
        for name in config.methods
    }


def options_of(config: RunConfig, solver: Solver, planned: Mapping[str, Any] | None = None) -> BaseModel:
    """A solver's options: a run's, over those of a method's plan.

    Raises:
        UserError: A value does not fit.
    """
    given = config_layers.merge(planned or {}, config.solver_options.get(solver.name, {}))
    head = "dar" if solver.name == DESCRIBE else f"solvers.{solver.name}"
    options: BaseModel = _validate(solver.options, given, f"{head}.")
    return options


def _options(name: str, config: RunConfig, preset: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are given for a method, over what it brings itself for a preset that has none for it."""
    method = registry.methods().get(name)
    given = dict(config.method_options.get(name, {}))
    own = method.presets.get(config.preset or "", {})
    if not own or name in (preset.get("method_options") or {}):
        return given
    for path, _ in config_layers.leaves(own):
        config_layers.require(path, method.config, f"{registry.origin(name)}: presets: {config.preset}")
    return config_layers.merge(own, given, config_layers.mappings(method.config))


def benchmarks(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Complete options of the benchmarks of a run, by name; `--protocol` where they do not say themselves.

    Raises:
        UserError: An option or value that a benchmark does not have, or a protocol that none of them has.
    """
    found: dict[str, dict[str, Any]] = {}
    known: set[str] = set()
    for name in config.benchmarks:
        benchmark = registry.benchmarks().get(name)
        options = dict(config.benchmark_options.get(name, {}))
        known |= set(protocols(benchmark))
        if config.protocol in protocols(benchmark):
            options.setdefault("protocol", config.protocol)
        chosen = complete(benchmark, options)
        if benchmark.options is not None or chosen:
            found[name] = chosen
    if config.protocol is not None and config.protocol not in known:
        names = ", ".join(sorted(known)) or "none"
        raise UserError(f"--protocol {config.protocol}: none of the benchmarks has it (there is {names})")
    return found


def _mappings(name: str) -> list[str]:
    """Paths of a method's mappings; of one that is broken, none."""
    try:
        return config_layers.mappings(registry.methods().get(name).config)
    except UserError:
        return []


def _all_benchmarks(names: Sequence[str]) -> tuple[str, ...]:
    """Names, `all` replaced by those that are built in: what else is installed does not change a run."""
    others = registry.foreign()
    own = [name for name in registry.benchmarks().names() if name not in others]
    found = [part for name in names or ("all",) for part in (own if name == "all" else [name])]
    return tuple(dict.fromkeys(found))


def _set_method_option(
    path: str, value: Any, classes: Mapping[str, type[BaseModel]], options: dict[str, dict[str, Any]]
) -> None:
    head, _, rest = path.partition(".")
    if head in registry.methods().names() and rest:
        if head not in classes:
            raise UserError(f"-o {path}: method {head} is not part of this run (add --method {head})")
        config_layers.require(rest, classes[head], f"-o {path}")
        config_layers.put(options[head], rest, value, rest in config_layers.mappings(classes[head]))
        return
    having = [name for name, config in classes.items() if config_layers.has(path, config)]
    if not having:
        own = ("benchmark_options", "method_options")
        settings = [p for p in config_layers.paths(RunConfig) if p not in own]
        known = [*settings, *(p for config in classes.values() for p in config_layers.paths(config))]
        raise UserError(
            f'-o {path}: no selected method has the option "{path}"{registry.suggest(path, known)}'
        )
    for name in having:
        config_layers.put(options[name], path, value, path in config_layers.mappings(classes[name]))


def _validate(config: type[BaseModel], data: Mapping[str, Any], prefix: str) -> Any:
    try:
        with Contained():
            found = config.model_validate(data)
        if (odd := config_layers.odd_value(found.model_dump(exclude_defaults=True))) is not None:
            where, value = odd
            name = f"-o {prefix}{where}" if prefix else flag_of(where)
            usable = "is not a usable value; give a number of at most 2^53, or a text without NUL"
            raise UserError(f"{name} {quote(value)}: {usable}")
        return found
    except (ArithmeticError, RecursionError) as error:  # of a plug-in's validators as well
        raise UserError(f"-o {prefix or 'options'}: do not fit: {headline(error)}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
        path = re.sub(r"\.(int|float|str|literal\[.*\])$", "", path)
        name = f"-o {prefix}{path}" if prefix else flag_of(path)
        # What is given in place of a variable's name may be the key itself.
        given = "" if path.endswith(".api_key_env") else f" {quote(first['input'])}"
        raise UserError(f"{name}{given}: {fault_of(first)}") from error
