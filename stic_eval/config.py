"""RunConfig: everything a run depends on, validated once, saved with the run.

Layers, the later the stronger: preset file, config file, flags, `-o key=value`.
An unknown key anywhere is an error that suggests the closest known one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stic_eval import config_layers, documents, hub_access, plugins, profiles, registry
from stic_eval.benchmark_protocols import complete, protocols
from stic_eval.config_layers import preset_names, read_file, read_preset
from stic_eval.contracts.solver import Solver
from stic_eval.errors import Contained, UserError, fault_of, headline, quote, shorten
from stic_eval.flags import name_of
from stic_eval.settings import DESCRIBE, RunConfig, adapter_folder, expand, expand_all

__all__ = ["RunConfig", "load", "of_the_run", "preset_names", "read_file", "read_preset", "split"]


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
    layers = _read_layers(preset, file, flags or {}, overrides)
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


@dataclass(frozen=True)
class _Layers:
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


def _read_layers(
    preset: str | None, file: Path | None, flags: Mapping[str, Any], overrides: Sequence[str]
) -> _Layers:
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
    return _Layers(preset, shipped, checked, given, direct, of_methods, named)


def _merge(layers: _Layers) -> dict[str, Any]:
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
    merged = config_layers.merge(merged, _expand_fields(layers.given))
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
        config_layers.put(merged, named_in_full, _expand_field(named_in_full, given_value))
        _check_benchmarks(merged, f"-o {path}")


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


def of_the_run(path: str) -> bool:
    """Whether an option's path is one of `RunConfig` rather than of a method.

    Methods, too, may have settings below `training`, e.g. `training.learning_rate`.
    """
    head = path.partition(".")[0]
    known = head in ("dar", *RunConfig.model_fields)
    return known and (head != "training" or config_layers.has(path, RunConfig))


def _expand_dar(layer: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return expand_all(layer)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def paths() -> list[str]:
    """Dotted paths of all settings of a run, those that `dar` is short for included."""
    own = registry.solvers().get(DESCRIBE).options
    inner = (f"dar.{path}" for path in config_layers.paths(own))
    return [*config_layers.paths(RunConfig), "dar", "dar.use", *inner]


def require(path: str, where: str) -> None:
    """Refuses a path that a run's settings do not have.

    Raises:
        UserError: Names `where`, the path, and the closest one that exists.
    """
    head, _, rest = path.partition(".")
    if head in ("solvers", "solver_options") and rest:
        name, _, option = rest.partition(".")
        known = registry.solvers().names()
        if name not in known:
            raise UserError(f'{where}: no solver is called "{name}"{registry.suggest(name, known)}')
        options = registry.solvers().get(name).options
        if option:
            config_layers.require(option, options, where)
    elif path not in paths() and not config_layers.has(path, RunConfig):
        raise UserError(f'{where}: unknown option "{path}"{registry.suggest(path, paths())}')


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


def split(item: str) -> Iterator[tuple[str, Any]]:
    """An `-o` item as path and value; of `method_options`, the values in it by their method's paths.

    `benchmarks.<name>.<option>` is the short form of what lies in `benchmark_options`.
    """
    path, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not path:
        raise UserError(f"-o {shorten(item)}: expected key.sub=value")
    try:
        value = documents.from_yaml(text)
    except ValueError as error:
        raise UserError(f"-o {shorten(item)}: the value is not valid YAML") from error
    head, _, rest = path.partition(".")
    if head in ("benchmarks", "benchmark_options") and rest:
        yield f"benchmark_options.{rest}", value
    elif head == "solvers" and rest:
        yield f"solver_options.{rest}", value
    elif path == "dar" and isinstance(value, dict):
        yield from ((f"dar.{name}", inner) for name, inner in value.items())
    elif head != "method_options" or not (rest or isinstance(value, dict)):
        yield path, value
    elif isinstance(value, dict):
        yield from config_layers.leaves(value, f"{rest}." if rest else "")
    else:
        yield rest, value


def _check_layer(layer: dict[str, Any], where: str) -> dict[str, Any]:
    """Checks a layer's own keys, those of unselected methods included, so that a typo never hides."""
    for key in layer:
        require(str(key), where)
    for name, given in _mapping_in(layer, "solver_options", where).items():
        if not isinstance(given or {}, dict):
            raise UserError(f"{where}: solver_options.{name} {quote(given)}: expected `option: value` lines")
        for path, _ in config_layers.leaves(given or {}):
            require(f"solver_options.{name}.{path}", where)
    _check_benchmarks(layer, where)
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
    return _expand_fields(layer)


def _mapping_in(layer: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    found = layer.get(key) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}: {key} maps a {key.removesuffix('_options')}'s name to its options")
    return found


def _check_benchmarks(layer: Mapping[str, Any], where: str) -> None:
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


def _expand_fields(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _expand_field(key, value) for key, value in layer.items()}


def _expand_field(key: str, value: Any) -> Any:
    """The mapping that a short form of a RunConfig field stands for, so that layers merge."""
    return {"all": value} if key == "rows" and isinstance(value, str) else value


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


def flag_of(path: str) -> str:
    """What a setting is called on the command line."""
    shown = path.replace("benchmark_options.", "benchmarks.", 1)
    return name_of(path) or (path if path == "method_options" else f"-o {shown}")


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
