"""`--help` of every command: a flag shows no type, and an option that can be repeated that of one value."""

from __future__ import annotations

import pytest
import typer

from stic_eval.cli.app import app, invoke

GROUP = typer.main.get_command(app)
COMMANDS = [
    [name, *below]
    for name, command in GROUP.commands.items()
    for below in [[], *([own] for own in getattr(command, "commands", ()))]
]


@pytest.mark.parametrize("words", [[], *COMMANDS], ids=" ".join)
def test_types_are_those_of_values(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert "<bool>" not in said
    assert not [line for line in said.splitlines() if "list[" in line and " --" in line]


def test_a_group_by_itself_prints_its_help_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["data"]) == 2
    said = capsys.readouterr()
    assert "prepare" in said.out and said.err == ""
