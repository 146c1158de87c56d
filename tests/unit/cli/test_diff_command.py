"""`diff`, and the message about a folder that holds another run: which settings differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stic_eval.cli.app import invoke
from stic_eval.experiment.arguments import configure
from stic_eval.report import runs
from stic_eval.report.runs import Scores

CHARTS = {"benchmarks": "chartqa", "methods": ["sft"]}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    return tmp_path


def put_run(name: str, *options: str, made: dict[str, Any] | None = None, **settings: Any) -> Path:
    """A run's folder with settings, no scores, and a manifest."""
    folder = Path("results") / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(configure({**CHARTS, **settings}, options).to_yaml())
    (folder / "manifest.json").write_text(json.dumps(made or {}))
    runs.save(Scores(name, [], []), folder)
    return folder


def test_settings_that_differ_are_named_as_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    put_run("a", "stage2.items=8", limit=4, made={"versions": {"torch": "2.8.0", "trl": "1"}})
    put_run(
        "b", "stage2.items=8", output="elsewhere", limit=4, made={"versions": {"torch": "2.8.0", "trl": "1"}}
    )
    put_run(
        "c", "stage2.items=9", "benchmarks.chartqa.max_new_tokens=5", device="cpu",
        judge={"model": "judge"}, made={"versions": {"torch": "2.9.0", "trl": "1"}},
    )  # fmt: skip
    assert (invoke(["diff", "a", "b"]), capsys.readouterr().out) == (0, "no setting differs\n")
    assert invoke(["diff", "a", "results/c"]) == 1
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["a", "c"]
    assert ["--limit", "4", "-"] in rows
    assert ["--judge", "-", "judge"] in rows
    assert ["-o", "sft.stage2.items", "8", "9"] in rows
    assert ["-o", "benchmarks.chartqa.max_new_tokens", "-", "5"] in rows
    assert ["--device", "(changes", "no", "result)", "auto", "cpu"] in rows
    assert ["made", "with", "versions.torch", "2.8.0", "2.9.0"] in rows
    assert not [row for row in rows if "trl" in " ".join(row) or "output" in " ".join(row)]
    put_run("d", "stage2.items=8", limit=4, methods=["sft", "stic"], benchmarks="chartqa,textvqa")
    assert invoke(["diff", "a", "d"]) == 1
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines if "made with" not in line] == ["--method", "--benchmarks"]
    assert lines[0].rstrip().endswith("  sft, stic")
    assert invoke(["diff", "a", "e"]) == 2
    assert invoke(["diff", "a"]) == 2


def test_whoever_meets_another_run_in_a_folder_hears_how_it_differs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = put_run("a", limit=4, device="cpu")
    argv = ["run", "--method", "sft", "--benchmarks", "chartqa", "--output", str(folder), "--dry-run"]
    assert invoke([*argv, "--limit", "5"]) == 2
    said = capsys.readouterr().err
    assert "with other settings (--limit: 4 there, 5 here); give another folder" in said
    vary = ["ablate", "--vary", "infusion=own,none", "--benchmarks", "chartqa", "--output", str(folder)]
    assert invoke([*vary, "--dry-run"]) == 2
    assert "another run or grid (it is a run, not an ablation); give" in capsys.readouterr().err
    (folder / "ablation.json").write_text(json.dumps({"key": "1", "axes": {"x": [1]}, "method": "stic"}))
    assert invoke([*vary, "--dry-run"]) == 2
    assert "another run or grid (axes.x: 1 there, - here; " in capsys.readouterr().err


def test_runs_of_any_folder_are_listed_by_what_commands_take(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_run("a")
    Path("results").rename("theirs")
    assert invoke(["ls", "runs"]) == 0
    assert capsys.readouterr().out == "no runs\n"
    for where in ("theirs", "theirs/a", str(place / "theirs")):
        assert invoke(["ls", "runs", where]) == 0
        name = capsys.readouterr().out.splitlines()[1].split()[0]
        assert name == f"{where.removesuffix('/a')}/a" and runs.find(name).is_dir()
    for argv, why in ((["runs", "nowhere"], "no such folder"), (["methods", "theirs"], "leave it out")):
        assert invoke(["ls", *argv]) == 2
        assert why in capsys.readouterr().err
