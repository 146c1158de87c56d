"""Writes docs/commands.md from the command line itself: `python -m bench.commands_md`.

`--check` fails if the page is not what would be written, and changes nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.rewriting import markdown_table

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"

HEAD = """\
# Commands and options

Written from the program by `python -m bench.commands_md`. `stic-eval COMMAND --help` prints the same. A
default in words describes what happens without the option. `-o PATH=VALUE` sets what has no option of its
own: [settings](axes.md) of STIC, [options of benchmarks](benchmarks.md), and everything that `stic-eval show
NAME` lists.
"""


def page() -> str:
    """The whole page."""
    sections = [_section(f"stic-eval {words}", command) for words, command in _commands("", _group())]
    return "\n".join([HEAD, *sections])


def commands() -> Iterator[tuple[str, set[str]]]:
    """Every command, e.g. `export pairs`, and the names of its options."""
    for words, command in _commands("", _group()):
        yield words, {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def _group() -> Any:
    import typer

    from stic_eval.cli.app import app

    return typer.main.get_command(app)


def _commands(name: str, group: Any) -> Iterator[tuple[str, Any]]:
    for own, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{own} ", command)
        elif not command.hidden:
            yield f"{name}{own}", command


def _section(words: str, command: Any) -> str:
    context = command.make_context(words, [], resilient_parsing=True)
    parameters = [one for one in command.get_params(context) if not getattr(one, "hidden", False)]
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    panels: dict[str, list[Any]] = {}
    for one in parameters:
        if one.param_type_name == "option" and one.name != "help":
            panels.setdefault(getattr(one, "rich_help_panel", None) or "Options", []).append(one)
    usage = " ".join([words, *map(_argument, arguments), *(["[OPTIONS]"] if panels else [])])
    parts = [f"## {words}", " ".join((command.help or "").split()), f"```text\n{usage}\n```"]
    if arguments:
        parts.append(
            markdown_table(("argument", "meaning"), [[f"`{_name(a)}`", _meaning(a)] for a in arguments])
        )
    for title, options in panels.items():
        head = ("option" if title == "Options" else f"{title}", "default", "meaning")
        parts.append(markdown_table(head, [[_option(o, context), _default(o), _meaning(o)] for o in options]))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name).upper()


def _argument(argument: Any) -> str:
    shown = _name(argument) + ("..." if argument.nargs != 1 else "")
    return shown if argument.required else f"[{shown}]"


def _option(option: Any, context: Any) -> str:
    names = [*option.opts, *option.secondary_opts]
    kind = option.display_type_rich(ctx=context)
    shown = f" `{kind.strip('<>').removesuffix(' range')}`" if kind else ""
    return ", ".join(f"`{name}`" for name in names) + shown


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return option.show_default
    if option.default in (None, False, True, []):
        return ""
    return f"`{option.default}`"


def _meaning(parameter: Any) -> str:
    return " ".join((parameter.help or "").split())


def main() -> None:
    """Writes the page, or checks that it has been written."""
    new = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(new, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != new:
        sys.exit(f"{PAGE.name} is not what the command line says: python -m bench.commands_md")


if __name__ == "__main__":
    main()
