"""From declared options to what typer reads, and from what was given to a configuration."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import typer

from stic_eval import flags as f
from stic_eval.cli.completion import complete
from stic_eval.errors import Interrupted, UserError
from stic_eval.printable import printable

if TYPE_CHECKING:
    from stic_eval.settings import RunConfig

R = TypeVar("R")


def command(function: Callable[..., R]) -> Callable[..., R]:
    """A command as typer reads it: the options themselves in place of the sets that it takes."""
    own = inspect.signature(function, eval_str=True).parameters.values()
    sets: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
    parameters = [q for p in own for q in (_of_set(p.annotation) if p.name in sets else [_one(p)])]

    @wraps(function)
    def call(**given: Any) -> R:
        for name, kind in sets.items():
            given[name] = kind(**{own: given.pop(own) for own, _, _ in f.flags_of(kind)})
        try:
            return function(**given)
        except Interrupted as error:  # which typer would take for one of its own
            typer.echo(f"stic-eval: {printable(str(error))}", err=True)
            raise typer.Exit(130) from None

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call


def _of_set(kind: Any) -> Iterator[inspect.Parameter]:
    for name, annotation, flag in f.flags_of(kind):
        yield _parameter(name, annotation, flag, getattr(kind, name), getattr(kind, "panel", None))


def _one(parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter that is an option or an argument by itself."""
    if get_origin(parameter.annotation) is not Annotated:
        return parameter
    annotation, declaration = get_args(parameter.annotation)
    return _parameter(parameter.name, annotation, declaration, parameter.default)


def _parameter(
    name: str, annotation: Any, declaration: f.Argument, default: Any, panel: str | None = None
) -> inspect.Parameter:
    common: dict[str, Any] = {
        "help": declaration.help,
        "show_default": declaration.default or True,
        "metavar": declaration.metavar,
        "autocompletion": complete(declaration.values) if declaration.values else None,
    }
    info = typer.Argument(**common)
    option: Any = typer.Option  # whose own type takes the first name for a default
    if isinstance(declaration, f.Flag):
        common |= {"min": declaration.min, "max": declaration.max}
        common |= {"rich_help_panel": declaration.panel or panel}
        common["metavar"] = declaration.metavar or _type_of_one(annotation)
        info = option(*declaration.names_of(name), **common)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[annotation, info])


def _type_of_one(annotation: Any) -> str | None:
    """What an option that can be repeated takes each time, e.g. `<str>`; None: it cannot be repeated."""
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is list:
            return f"<{get_args(kind)[0].__name__}>"
    return None


def given(*sets: object) -> dict[str, Any]:
    """What the options of sets were given, as functions of the Python API take them."""
    found = f.given(*sets)
    return {"options": found.pop("option", ()), **found}


def conduct(output: f.Output) -> dict[str, Any]:
    """The options of output, as functions of the Python API take them."""
    found = f.given(output)
    del found["dry_run"]
    return {**found, "command": sys.argv[1:]}


def of_benchmark(name: str, option: list[str] | None, *sets: object, **more: Any) -> RunConfig:
    """The configuration of a command about one benchmark, whose `-o` items need not say so."""
    from stic_eval.experiment.arguments import configure

    apart = ("benchmarks", "benchmark_options", "judge", "rows", "thinking")
    heads = {item: item.partition("=")[0].partition(".")[0].strip() for item in option or ()}
    items = [item if heads[item] in apart else f"benchmarks.{name}.{item}" for item in option or ()]
    given = {flag: value for flag, value in f.given(*sets).items() if flag != "option"}
    found = f.settings({**given, **more, "benchmarks": name, "methods": ["baseline"]})
    return configure(found, items)


def check_file(flag: str, path: Path | None) -> None:
    """Refuses a folder where a file is to be written.

    Raises:
        UserError: It is one.
    """
    if path is not None and path.is_dir():
        raise UserError(f"{flag} {path}: is a folder; give the name of a file")
