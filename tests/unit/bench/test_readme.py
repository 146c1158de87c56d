"""The examples of README.md and docs/ work as they stand there, and what they show is what commands print."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bench import readme
from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.contracts.method import Data, Method
from stic_eval.evals.sources import samples
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import Record

PAGE = Path(__file__).parents[3] / "docs" / "add-a-benchmark.md"


def example(name: str) -> dict[str, Any]:
    pattern = rf"<!-- example: {name} -->\n```python\n(.*?)```"
    match = re.search(pattern, PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    names: dict[str, Any] = {"__name__": f"page_{name}"}
    exec(compile(match[1], f"{PAGE.name} ({name})", "exec"), names)
    return names


def test_the_benchmark_reads_rows_asks_scores_and_sums_up(tmp_path: Path) -> None:
    benchmark = example("benchmark")["benchmark"]
    assert isinstance(benchmark, Benchmark)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    rows = [
        {"question_id": i, "image": "red.png", "question": "Is there a dog?", "answer": answer}
        for i, answer in enumerate(["yes", "no"])
    ]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = samples(benchmark, tmp_path / "test.jsonl")
    assert found[0].images[0].load().size == (8, 8)
    scores = [benchmark.score(sample, "No.") for sample in found]
    assert [score.value for score in scores] == [0.0, 1.0]
    records = [
        Record(s.id, s.question, (), s.target, {}, None, "No.", v.answer, v.value, v.weight, v.why, 0.0, 1)
        for s, v in zip(found, scores, strict=True)
    ]
    assert benchmark.aggregate(records).score == 50.0


def test_the_method_plans_and_refuses_options_it_does_not_have() -> None:
    method = example("method")["method"]
    assert isinstance(method, Method)
    plan = method.plan(method.config(), Data((), (), "", "", load_prompts()))
    assert plan.adapter is None
    assert plan.solver == "describe_and_respond"
    with pytest.raises(ValueError, match="beta"):
        method.config.model_validate({"beta": 1})


def test_a_command_that_fails_is_not_shown() -> None:
    assert "stic-eval" in readme.output_of("stic-eval --version")
    with pytest.raises(subprocess.CalledProcessError):
        readme.output_of("stic-eval no-such-command")


def test_gains_are_those_of_the_main_run_and_their_absence_fails_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "README.md"
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "POCKET", tmp_path)
    every, unseen = {"delta": 4.25, "low": 3.0, "high": 5.5}, {"delta": -0.5, "low": -1.5, "high": 0.5}
    rows = [
        {"row": label, "all": every, "held_out": unseen, "by_seed": [1.0] * 5}
        for label in ("STIC", "STIC + DaR")
    ]
    (tmp_path / "wordings.json").write_text(json.dumps({"gains": rows}))
    page.write_text("Before.\n<!-- gains -->\n<!-- /gains -->\nAfter.\n")
    monkeypatch.setattr(sys, "argv", ["readme", "--check"])
    with pytest.raises(SystemExit, match="no output yet for: gains"):
        readme.main()
    monkeypatch.setattr(sys, "argv", ["readme"])
    readme.main()
    said = " ".join(page.read_text().split())
    gain = "+4.2 [3.0, 5.5] points, and -0.5 [-1.5, 0.5] in held-out wordings"
    assert f"Over 5 training seeds STIC's average gain is {gain}; with" in said
    assert said.endswith("<!-- /gains --> After.")


def test_an_empty_block_fails_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    (tmp_path / "README.md").touch()
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(sys, "argv", ["readme", "--check"])
    text = "<!-- output: stic-eval ls -->\n{}<!-- /output -->\n"
    for body, code in (
        ("", "page.md: no output yet for: stic-eval ls"),
        ("```text\n$ stic-eval ls\n```\n", 0),
    ):
        (tmp_path / "docs" / "page.md").write_text(text.format(body))
        with pytest.raises(SystemExit) as done:
            readme.main()
        assert done.value.code == code


def test_of_a_table_notes_are_left_out_and_of_an_error_its_line_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readme, "_run", lambda command: (0, "a  b\n1  2\n\nnotes\n", ""))
    assert readme.output_of("stic-eval table x", "table") == "```text\n$ stic-eval table x\na  b\n1  2\n```\n"
    monkeypatch.setattr(readme, "_run", lambda command: (2, "", "stic-eval: no\n"))
    assert "stic-eval: no\n```" in readme.output_of("stic-eval table x", "error")


ERRORS = [
    (match["command"], match["body"])
    for page in readme.pages()
    for match in readme.BLOCK.finditer(page.read_text(encoding="utf-8"))
    if match["kind"] == "error"
]


@pytest.mark.parametrize(("command", "body"), ERRORS, ids=[command for command, _ in ERRORS])
def test_errors_are_those_of_the_command(
    command: str,
    body: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if ("cuda" in command and torch.cuda.is_available()) or ("vllm" in command and shutil.which("vllm")):
        pytest.skip("this machine has it")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    assert invoke(shlex.split(command)[1:]) in (1, 2)
    assert body == f"```text\n$ {command}\n{capsys.readouterr().err}```\n"
