"""Solvers and engines from outside, as the documentation has them, and solvers that methods name."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
import yaml

from stic_eval import flags
from stic_eval.cli.app import invoke
from stic_eval.settings import RunConfig

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "extending.md"
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))
COMMANDS = re.findall(r"```console\n\$ stic-eval (.*?)\n```", DOCUMENT.read_text())
OPTIONS = re.findall(r"<!-- option: (\w+) -->\n```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
SOLVER, ENGINE = FILES["second_look.py"], FILES["program.py"]
METHOD = """
from pydantic import BaseModel, ConfigDict
from stic_eval.contracts.method import Method, Plan

class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

method = Method("mine", "Mine", lambda config, data: Plan(None, SOLVER), Config)
"""
SMALL = ("--benchmarks", "chartqa", "--limit", "3", "--output", "run", "-q")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


def variants() -> dict[str, dict[str, Any]]:
    return {entry["folder"]: entry for entry in json.loads(Path("run/scores.json").read_text())["variants"]}


def method(plan: str) -> None:
    Path("mine.py").write_text(METHOD.replace("SOLVER", plan))


def by_path() -> list[str]:
    Path("second_look.py").write_text(SOLVER)
    return ["--solver", "./second_look.py"]


def by_folder() -> list[str]:
    Path("plugins").mkdir()
    Path("plugins/second_look.py").write_text(SOLVER)
    return ["--solver", "second_look"]


@pytest.mark.parametrize("named", [by_path, by_folder])
def test_a_solver_of_somebody_answers(
    named: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STIC_EVAL_PLUGINS", "plugins" if named is by_folder else "")
    run = ["run", "--method", "baseline", *named(), *SMALL]
    assert len(SOLVER.splitlines()) <= 30
    assert invoke(run) == 0
    assert set(variants()) == {"baseline", "baseline+second"}
    assert "Baseline + 2nd look" in Path("run/table.md").read_text()
    first = variants()["baseline+second"]
    assert invoke([*run, "-o", "solvers.second_look.wording=Sure? {}", "--output", "other"]) == 0
    again = json.loads(Path("other/scores.json").read_text())["variants"][1]
    assert again["keys"] != first["keys"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.partition(".py")[0].split("/")[-1])
def test_the_commands_of_the_page_are_understood(command: str) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    assert invoke([*shlex.split(command), "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("was", "then", "said"),
    [
        ('"2nd look"', '""', "title and suffix tell its rows from others"),
        ("requests=lambda options: 2", "key=3", "key is 3"),
        ("requests=lambda options: 2", 'version="two"', "version is 'two'"),
        ("requests=lambda options: 2", "requests=2", "requests is 2"),
        (' = "Somebody answered: {}\\nGive the right answer."', "", "options.wording has no default"),
    ],
)
def test_what_is_wrong_with_a_solver_is_one_line(
    was: str, then: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert was in SOLVER
    Path("second_look.py").write_text(SOLVER.replace(was, then))
    assert invoke(["run", "--method", "baseline", "--solver", "./second_look.py", *SMALL]) == 2
    message = capsys.readouterr().err
    assert said in message and "second_look.py, line 2" in message and message.count("\n") == 1


def test_what_a_plan_names_may_be_in_a_file_that_the_run_names() -> None:
    Path("second_look.py").write_text(SOLVER)
    method('"second_look"')
    assert invoke(["run", "--method", "./mine.py", "-o", "plugins=[./second_look.py]", *SMALL]) == 0
    saved = yaml.safe_load(Path("run/config.yaml").read_text())
    assert {Path(path).name for path in saved["plugins"]} == {"mine.py", "second_look.py"}
    assert invoke(["run", "--config", "run/config.yaml", "--output", "run", "-q"]) == 0


def test_the_plan_of_a_method_names_a_solver_with_options(capsys: pytest.CaptureFixture[str]) -> None:
    method('"self_consistency", {"k": 2}')
    assert invoke(["run", "--method", "./mine.py", *SMALL]) == 0
    assert list(variants()) == ["baseline", "baseline+sc", "mine", "mine+sc"]
    rows = [json.loads(line) for line in Path("run/records/mine+sc/chartqa.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert (
        invoke(
            [
                "run",
                "--method",
                "./mine.py",
                *SMALL,
                "-o",
                "solvers.self_consistency.k=3",
                "--dry-run",
                "--output",
                "other",
            ]
        )
        == 0
    )
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "evaluate mine+sc" in line]
    assert line.split()[-2] == "9"


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ('"majority_vote"', 'no solver is called "majority_vote"'),
        ('"self_consistancy"', 'did you mean "self_consistency"?'),
        ('"self_consistency", {"n": 2}', 'Plan.solver self_consistency: unknown option "n"'),
    ],
)
def test_a_solver_that_there_is_not_is_refused_when_it_is_planned(
    plan: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    method(plan)
    assert invoke(["run", "--method", "./mine.py", *SMALL, "--dry-run"]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "mine.py" in message


def test_cells_of_an_ablation_answer_by_any_solver(capsys: pytest.CaptureFixture[str]) -> None:
    cells = ["ablate", "--vary", "corruption=blur,crop", "--solver", "self_consistency"]
    ablate = [*cells, *SMALL[:4], "--dry-run"]
    assert invoke([*ablate, "-o", "stage1.images=4", "-o", "solvers.self_consistency.k=2"]) == 0
    assert "\nto do: " in capsys.readouterr().out
    for more, said in (
        (["--dar"], "--dar: with --solver as well"),
        (["--vary", "dar=on,off"], "--solver: the axis dar decides"),
    ):
        assert invoke([*ablate, *more]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("other", ["solvers=direct,self_consistency", "dar.use=true,false"])
def test_two_axes_do_not_both_say_who_answers(other: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells = ["ablate", "--method", "baseline", "--vary", "dar=on,off", "--vary", other]
    assert invoke([*cells, *SMALL[:4], "--dry-run"]) == 2
    assert "both say how answers are obtained" in capsys.readouterr().err


def test_one_layer_does_not_say_twice_who_answers() -> None:
    assert RunConfig(dar="only").solvers == ("describe_and_respond",)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="dar and solvers both say"):
        RunConfig(dar=True, solvers=("self_consistency",))  # type: ignore[call-arg]


@pytest.mark.parametrize("suffix", ["dar", "DAR"])
def test_two_solvers_that_name_rows_alike_are_refused(
    suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("second_look.py").write_text(SOLVER.replace('"second"', f'"{suffix}"'))
    solvers = ["--solver", "describe_and_respond", "--solver", "./second_look.py"]
    assert invoke(["run", "--method", "baseline", *solvers, *SMALL, "--dry-run"]) == 2
    assert "--solver second_look: its rows would be called" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--solver", "drect"], 'no solver is called "drect"; did you mean "direct"?'),
        (["-o", "solvers.self_consistency.n=2"], 'unknown option "n"'),
        (["-o", "solvers.self_consistency.k=0"], "-o solvers.self_consistency.k 0"),
        (["--solver", "direct", "--dar"], "--dar: with --solver as well"),
        (["-o", "dar=maybe"], "dar is true, false, only or null"),
    ],
)
def test_a_mistake_is_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "--method", "baseline", *SMALL, *argv, "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_an_engine_of_somebody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    Path("program.py").write_text(ENGINE)
    assert len(ENGINE.splitlines()) <= 30
    model = ["--engine", "./program.py", "--model", "cat", "-o", "rows=pocket", *SMALL]
    assert invoke(["run", "--method", "baseline", *model, "--dry-run"]) == 0
    assert "answered by cat (program)" in capsys.readouterr().out
    assert invoke(["run", "--method", "baseline", *model]) == 0
    rows = [json.loads(line) for line in Path("run/records/baseline/chartqa.jsonl").read_text().splitlines()]
    assert [row["response"] for row in rows] == [row["question"].strip() for row in rows]
    assert invoke(["train", "--method", "stic", *model[:4], "--dry-run"]) == 2
    assert "--engine ./program.py" in capsys.readouterr().err
    assert invoke(["run", "--method", "stic", *model, "--output", "other", "--dry-run"]) == 2
    assert "--adapter-name" in capsys.readouterr().err
    assert invoke(["run", "--engine", "openia", *SMALL, "--dry-run"]) == 2
    assert 'did you mean "openai"?' in capsys.readouterr().err
    for was, then, said in (
        ("def answers", "def replies", "has no answers"),
        ('    name = "program"\n', "", "is called None"),
        ('    name = "program"\n', '    name, trains = "program", True\n', "has no trainable"),
    ):
        assert was in ENGINE
        Path("program.py").write_text(ENGINE.replace(was, then))
        assert invoke(["run", "--method", "baseline", *model]) == 2
        assert said in capsys.readouterr().err


def test_the_content_of_its_file_is_in_the_keys_of_an_engine() -> None:
    run = ["run", "--method", "baseline", "--engine", "./program.py", "--model", "cat", "-o", "rows=pocket"]
    answers = []
    for text in (ENGINE, ENGINE.replace("said.strip()", '"none"'), ENGINE):
        Path("program.py").write_text(text)
        assert invoke([*run, *SMALL]) == 0
        rows = Path("run/records/baseline/chartqa.jsonl").read_text().splitlines()
        answers.append({json.loads(row)["response"] for row in rows})
    assert answers[1] == {"none"}
    assert answers[0] == answers[2] != answers[1]


# The command with another file in the place of `stic_eval/flags.py`.
LAUNCHER = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("stic_eval.flags", "flags.py")
sys.modules["stic_eval.flags"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["stic_eval.flags"])
from stic_eval.cli.app import main
main()
"""


def test_an_option_more_is_one_file_more() -> None:
    ((kind, field),) = OPTIONS
    head = f"class {kind}:"
    before, there, after = Path(flags.__file__).read_text().partition(head)
    assert there
    Path("flags.py").write_text(f"{before}{head}\n{indent(field, '    ')}{after}")

    def command(*argv: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "COLUMNS": "120"}
        return subprocess.run(
            [sys.executable, "-c", LAUNCHER, *argv],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )

    for name in ("run", "train", "ablate"):
        assert "How training sees images" in command(name, "--help").stdout
    assert "--training-images" not in command("eval", "--help").stdout
    done = command("run", "--training-images", "single_tile", "--dry-run")
    assert (done.returncode, "trains on images as: single_tile" in done.stdout) == (0, True), done.stderr
    done = command("run", "--training-images", "none")
    assert done.returncode == 2
    assert done.stderr.startswith("stic-eval: --training-images 'none': "), done.stderr
