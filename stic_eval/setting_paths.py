"""Paths of a run's settings, as `-o` and files name them: which there are, and what stands at one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stic_eval import config_layers, documents, registry
from stic_eval.dar_setting import DESCRIBE
from stic_eval.errors import UserError, shorten
from stic_eval.flags import name_of
from stic_eval.settings import RunConfig


def of_the_run(path: str) -> bool:
    """Whether an option's path is one of `RunConfig` rather than of a method.

    Methods, too, may have settings below `training`, e.g. `training.learning_rate`.
    """
    head = path.partition(".")[0]
    known = head in ("dar", *RunConfig.model_fields)
    return known and (head != "training" or config_layers.has(path, RunConfig))


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


def flag_of(path: str) -> str:
    """What a setting is called on the command line."""
    shown = path.replace("benchmark_options.", "benchmarks.", 1)
    return name_of(path) or (path if path == "method_options" else f"-o {shown}")
