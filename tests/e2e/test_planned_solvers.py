"""Solvers that plans name: their options, and rows that could not be told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from stic_eval.cli.app import invoke

METHOD = """
from pydantic import BaseModel, ConfigDict
from stic_eval.contracts.method import Method, Plan

class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

method = Method("NAME", "NAME", lambda config, data: Plan(None, "self_consistency", OPTIONS), Config)
"""
SOLVER = """
from stic_eval.contracts.solver import NoOptions, Solver
from stic_eval.solvers.direct import solve

solver = Solver("other", "DaR", "other", NoOptions, solve)
"""
SMALL = ("--benchmarks", "chartqa", "--limit", "3", "--output", "run", "-q", "--dry-run")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


def method(name: str, options: str) -> str:
    Path(f"{name}.py").write_text(METHOD.replace("NAME", name).replace("OPTIONS", options))
    return f"./{name}.py"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("None", "options is None; it has to map"),
        ("[1]", "options is [1]; it has to map"),
        ('{"k": 0}', "k 0: input should be greater than"),
        ('{"k": "x"}', "k 'x': input should be a valid integer"),
    ],
)
def test_wrong_options_are_the_methods_mistake(
    options: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["run", "--method", method("mine", options), *SMALL]) == 2
    message = capsys.readouterr().err
    assert f"mine.py: Plan.solver self_consistency: {said}" in message and message.count("\n") == 1


def test_rows_that_are_compared_are_answered_alike(capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--method", method("three", '{"k": 3}'), "--method", method("nine", '{"k": 9}')]
    assert invoke(["run", *both, *SMALL]) == 2
    assert "three and nine answer by self_consistency with different options" in capsys.readouterr().err
    assert invoke(["run", *both, *SMALL, "-o", "solvers.self_consistency.k=2"]) == 0
    plan = capsys.readouterr().out
    assert [line.split()[-2] for line in plan.splitlines() if "+sc" in line] == ["6", "6", "6"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("run --method baseline -o solvers.self_consistency.k=3", "-o solvers.self_consistency.k"),
        ("run --method sft -o dar.max_new_tokens=8", "-o dar.max_new_tokens"),
        ("run --method stic --no-dar -o dar={max_new_tokens:8}", "-o dar"),
        ("run --method baseline -o dar.separator=x", "-o dar.separator"),
        ("eval --model pocket -o solver_options={self_consistency:{k:3}}", "-o solver_options"),
        ("train --method sft -o solvers.self_consistency.k=3", "-o solvers.self_consistency.k"),
        ("ablate --vary solvers.self_consistency.k=1,3", "--vary solvers.self_consistency.k"),
        ("ablate --vary beta=0.1,0.2 -o solvers.self_consistency.k=3", "-o solvers.self_consistency.k"),
        ("ablate --vary dar.sees_image=true,false --no-dar", "--vary dar.sees_image"),
    ],
)
def test_options_of_a_solver_that_nothing_is_answered_by_are_refused(
    argv: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace(":", ": ") for word in argv.split()]
    plan = [word for word in SMALL if words[0] == "run" or word != "--dry-run"]
    small = ["--output", "run"] if words[0] == "train" else plan
    assert invoke([*words, *small]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"stic-eval: {said}: no row is answered by ") and message.count("\n") == 1
    assert not Path("run").exists()


@pytest.mark.parametrize(
    "argv",
    [
        "run --method stic -o dar.max_new_tokens=8",
        "run --method sft --dar -o dar.max_new_tokens=8",
        "run --method stic --no-dar -o dar.separator=x",
        "run --method baseline --solver self_consistency -o solvers.self_consistency.k=3",
        "ablate --vary solvers=[[direct],[self_consistency]] -o solvers.self_consistency.k=3",
        "ablate --vary dar.separator=x,y --no-dar",
    ],
)
def test_options_that_one_row_goes_by_are_not(argv: str) -> None:
    assert invoke([*argv.split(), *SMALL]) == 0


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("solvers.self_consistensy.k=3", 'no solver is called "self_consistensy"; did you mean'),
        ("solvers.self_consistency.n=3", 'unknown option "n"'),
    ],
)
def test_an_unknown_solver_or_option_is_named(
    option: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["run"], ["ablate", "--vary", "beta=0.1,0.2"]):
        assert invoke([*command, *SMALL, "-o", option]) == 2
        message = capsys.readouterr().err
        assert f"-o {option.partition('=')[0]}: {said}" in message and message.count("\n") == 1


def test_two_solvers_of_one_title_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.py").write_text(SOLVER)
    solvers = ["--solver", "describe_and_respond", "--solver", "./other.py"]
    assert invoke(["run", "--method", "baseline", *solvers, *SMALL]) == 2
    assert '--solver other: its rows would be called "Baseline + DaR"' in capsys.readouterr().err
