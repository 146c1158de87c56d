"""A value that an option or argument cannot take is answered by what to give, in every command."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import typer

from stic_eval.cli.app import app, invoke


def leaves(command: Any, *words: str) -> Iterator[tuple[list[str], Any]]:
    for part, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, *words, part)
    if not hasattr(command, "commands"):
        yield list(words), command


def typed_values() -> Iterator[tuple[list[str], str, Any, Any]]:
    """Of every command what takes choices or numbers: the words, its name, its type, its declaration."""
    for words, command in leaves(typer.main.get_command(app)):
        for name, parameter in inspect.signature(command.callback).parameters.items():
            annotation, declaration = parameter.annotation, None
            while get_origin(annotation) is Annotated:
                annotation, declaration = annotation.__origin__, annotation.__metadata__[0]
            kinds = [annotation, *get_args(annotation)]
            if get_origin(annotation) is Literal:
                kinds = [annotation]
            for kind in (*kinds, *(inner for one in kinds for inner in get_args(one))):
                if get_origin(kind) is Literal or kind in (int, float):
                    shown = next(one for one in command.params if one.name == name)
                    yield words, shown.opts[0], kind, declaration
                    break


FOUND = list(typed_values())


def test_all_kinds_are_found() -> None:
    assert {(" ".join(words), name) for words, name, _, _ in FOUND} > {
        ("export run", "--to"), ("table", "--format"), ("table", "--layout"), ("plot", "--kind"),
        ("ls", "what"), ("new", "kind"), ("export pairs", "--to"), ("run", "--jobs"), ("run", "--seed"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "name", "kind", "declaration"), FOUND, ids=[f"{' '.join(w)} {n}" for w, n, _, _ in FOUND]
)
def test_a_wrong_value_is_answered_by_what_to_give(
    words: list[str], name: str, kind: Any, declaration: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    is_option = name.startswith("-")
    assert invoke([*words, *([name] if is_option else []), "fo'o"]) == 2
    line = capsys.readouterr().err.rstrip("\n")
    given = f"{name} fo'o" if is_option else f"{' '.join(words)} fo'o"
    assert line.startswith(f"stic-eval: {given}: give "), line
    assert not any(part in line for part in ("Value error", "Input should", "Invalid", "\n")), line
    if kind in (int, float):
        assert f": give a {'whole ' * (kind is int)}number" in line
        for end in (declaration.min, declaration.max):
            assert end is None or f"{end:g}" in line
    else:
        assert all(choice in line for choice in get_args(kind))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "-j", "0"], "--jobs 0: give a whole number, 1 to 256"),
        (["run", "--jobs=300"], "--jobs 300: give a whole number, 1 to 256"),
        (["run", "--nodes", "0"], "--nodes 0: give a whole number, 1 or more"),
        (["run", "--seed", "1", "--seed", "y"], "--seed y: give a whole number"),
        (["export", "run", "R", "--to", "foo"], "--to foo: give inspect, lm-eval or hub"),
        (["new", "thing", "x"], "new thing: give method or benchmark"),
        (["export", "run", "R", "--too", "hub"], "--too: no such option; did you mean \"--to\"? "
         "(`stic-eval export run --help` lists options)"),
        (["data", "chek"], "No such command 'chek'. Did you mean 'check'? "
         "(`stic-eval data --help` lists commands and options)"),
        (["runn"], "No such command 'runn'. Did you mean 'run'? "
         "(`stic-eval --help` lists commands and options)"),
        (["new"], "Missing argument 'kind'. Choose from: method, benchmark "
         "(`stic-eval new --help` lists options)"),
    ],
)  # fmt: skip
def test_the_whole_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(argv) == 2
    assert capsys.readouterr().err == f"stic-eval: {said}\n"
