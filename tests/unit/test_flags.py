"""Options are declared once: what commands take, what messages call them and what they set agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stic_eval import config_layers, flags, setting_paths
from stic_eval.cli import options
from stic_eval.cli.app import app, invoke
from stic_eval.settings import RunConfig


def leaves(command: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Every command with its whole name."""
    for part, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, f"{name} {part}".strip())
    if not hasattr(command, "commands"):
        yield name, command


COMMANDS = dict(leaves(typer.main.get_command(app)))
DECLARED = [(kind.__name__, name, flag) for kind in flags.SETS for name, _, flag in flags.flags_of(kind)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("kind", "name", "flag"), DECLARED, ids=lambda part: str(part)[:20])
def test_what_an_option_sets_is_a_setting(kind: str, name: str, flag: flags.Flag) -> None:
    if flag.path != "":
        path = flag.path or name
        assert config_layers.has(path, RunConfig) or path in setting_paths.paths(), path
        assert setting_paths.flag_of(path) == flag.names_of(name)[0].partition("/")[0]
    assert flag.help.endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_a_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help  # type: ignore[attr-defined]
    for parameter in command.params:  # type: ignore[attr-defined]
        assert parameter.help, parameter.name
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--judge", "j", "--judge-samples", "0"], "--judge-samples"),
        (["--engine", "openai", "--model", "m", "--base-url", "http://x/v1", "--concurrency", "0"],
         "--concurrency"),
        (["--dtype", "int3"], "--dtype"),
        (["-o", "thinking.opened=[]"], "-o thinking.opened"),
        (["-o", "rows=[]"], "-o rows"),
        (["--adapter-name", "stic"], "--adapter-name"),
    ],
)  # fmt: skip
def test_a_message_names_the_option(argv: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["eval", *argv]) == 2
    assert capsys.readouterr().err.startswith(f"stic-eval: {named} ")


@pytest.mark.parametrize(
    ("name", "former"),
    [("run", "--output-path"), ("table", "--out"), ("plot", "--out"), ("report", "--out"), ("new", "--to"),
     ("data prepare", "--to"), ("import pairs", ""), ("export pairs", ""), ("export adapter", ""),
     ("export run", "")],
)  # fmt: skip
def test_what_is_written_goes_to_output(name: str, former: str) -> None:
    found = [one.opts for one in COMMANDS[name].params if "--output" in one.opts]  # type: ignore[attr-defined]
    assert found == [["--output", *former.split()]]


@dataclass(frozen=True)
class Pair:
    """A set of options."""

    first: str | None = flags.flag("First.", path="judge.model")
    seen: list[int] | None = flags.flag("Seen.", "none", names="--seen -s", path="")
    on: bool = flags.flag("On.", path="", value=False)


def test_a_command_gets_its_sets_back() -> None:
    got: list[object] = []

    def command(pair: Pair, jobs: flags.Jobs = 1) -> None:
        """A command."""
        got.append((pair, jobs))

    # Annotations are texts here, which name what is only in this function.
    command.__annotations__ = {"pair": Pair, "jobs": flags.Jobs}
    own = typer.Typer()
    own.command()(options.command(command))
    assert (
        CliRunner().invoke(own, ["--first", "x", "-s", "1", "--seen", "2", "--on", "-j", "3"]).exit_code == 0
    )
    assert CliRunner().invoke(own, []).exit_code == 0
    assert got == [(Pair("x", [1, 2], True), 3), (Pair(), 1)]
    assert options.given(Pair("x", [1])) == {"first": "x", "seen": [1], "on": False, "options": ()}
    assert CliRunner().invoke(own, ["--jobs", "0"]).exit_code == 2
