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


def test_two_solvers_of_one_title_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.py").write_text(SOLVER)
    solvers = ["--solver", "describe_and_respond", "--solver", "./other.py"]
    assert invoke(["run", "--method", "baseline", *solvers, *SMALL]) == 2
    assert '--solver other: its rows would be called "Baseline + DaR"' in capsys.readouterr().err
