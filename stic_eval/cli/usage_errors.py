"""What typer refuses on a command line, in this program's words."""

from __future__ import annotations

import inspect
from typing import Any, Literal, get_args, get_origin

import typer


def explain(error: typer.TyperException) -> str:
    """One line that names the option or argument, and says what to give or which help lists what there is."""
    context = getattr(error, "ctx", None)
    if context is None:
        return error.format_message()
    if isinstance(error, typer.BadParameter) and (line := _wrong_value(error, context)):
        return line
    listed = "commands and options" if hasattr(context.command, "commands") else "options"
    return (
        f"{_unknown_option(error) or error.format_message()} (`{context.command_path} --help` lists {listed})"
    )


def _unknown_option(error: typer.TyperException) -> str | None:
    """What is said of an option that there is not, with the likeliest one; None: something else is wrong."""
    if not hasattr(error, "possibilities"):
        return None
    from stic_eval.registry import suggest  # which takes as long to import as all that `--help` needs

    name, known = getattr(error, "option_name", ""), list(error.possibilities or ())
    return f"{name}: no such option{suggest(name, known)}" if name else None


def _wrong_value(error: typer.BadParameter, context: Any) -> str | None:
    """What to give in place of a value; None: there is none, or it can be of any kind."""
    found = getattr(error.__cause__, "errors", lambda: ())()  # of pydantic, which typer reads values with
    declared = inspect.signature(context.command.callback).parameters
    if not found or error.param is None or error.param.name not in declared:
        return None
    value, option = str(found[0]["input"]) or '""', error.param
    is_option = option.param_type_name == "option"
    place = option.opts[0] if is_option else context.command_path.partition(" ")[2]
    annotation, info = get_args(declared[option.name].annotation)
    return f"{place} {value}: give {_wanted(annotation, info)}"


def _wanted(annotation: Any, info: Any) -> str:
    """What an annotation takes: `a, b or c`, `a whole number, 1 or more`."""
    kinds = [annotation]
    while kinds:
        kind = kinds.pop()
        if get_origin(kind) is Literal:
            *others, last = map(str, get_args(kind))
            return f"{', '.join(others)} or {last}" if others else last
        if kind in (int, float):
            return f"a {'whole number' if kind is int else 'number'}{_range(info.min, info.max)}"
        kinds += get_args(kind)
    return "another value"


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f", {most:g} or less"
    return f", {least:g} or more" if most is None else f", {least:g} to {most:g}"
