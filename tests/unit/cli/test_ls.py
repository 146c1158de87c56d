"""`ls` and `doctor`: what others named cannot drive the terminal, and what is not there is not promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.report import runs
from stic_eval.report.runs import Entry, Scores
from stic_eval.report.table_rows import Column
from stic_eval.store import append_jsonl
from stic_eval.types import DIRECT, Summary


def test_a_run_folder_cannot_drive_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "run\x1b[2J\x9b2J"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    assert invoke(["ls", "runs"]) == 0
    out = capsys.readouterr().out
    assert "run\\x1b[2J\\x9b2J" in out
    assert not {"\x1b", "\x9b"} & set(out)


def put_run(folder: Path, *entries: Entry, **values: Any) -> Path:
    """A run's folder, with a record of each entry."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    for entry in entries:
        row = {"id": "7", "question": "?", "target": "yes", "response": f"by {entry.folder}", "score": 1.0}
        append_jsonl(folder / "records" / entry.folder / "one.jsonl", [row])
    runs.save(Scores(folder.name, [Column("one", "One")], list(entries), **values), folder)
    return folder


def scored(score: float) -> dict[str, Summary]:
    return {"one": Summary(score, 1, 0, {"7": (score / 100, 1.0)}, {})}


def grid() -> list[Entry]:
    """A baseline and two cells with two seeds each."""
    cells = [
        Entry(f"stic+x={x}@seed{seed}", "stic", "STIC", DIRECT, seed, {}, scored(score), {"x": x})
        for x, score in ((1, 50.0), (2, 70.0))
        for seed in (0, 1)
    ]
    return [Entry("baseline", "baseline", "Baseline", DIRECT, None, {}, scored(40.0)), *cells]


def test_runs_are_listed_wherever_they_lie_and_say_what_resumes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    results = tmp_path / "results"
    put_run(results / "mine", Entry("baseline", "baseline", "Baseline", DIRECT, None, {}, scored(40.0)))
    put_run(results / "mine" / "ablations" / "grid", *grid(), axes={"x": [1, 2]})
    under_way = put_run(results / "mine" / "ablations" / "begun", Entry("stic", "stic", "STIC", DIRECT, 0))
    for folder in (under_way, results / "torn"):
        folder.mkdir(exist_ok=True)
        (folder / "ablation.json").touch()
        (folder / "config.yaml").touch()
    (results / "killed").mkdir()
    (results / "killed" / "config.yaml").touch()
    assert invoke(["ls", "runs"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    said = {line.split()[0]: line for line in lines}
    assert said["mine"].split()[1:3] == ["Baseline", "40.0"]
    assert "mine/ablations/grid" in said and "2 cells by x: 50.0 to 70.0" in lines
    for name in ("mine/ablations/begun", "torn"):
        assert "`stic-eval ablate` with the same" in said[name]
    assert "`stic-eval run` with the same" in said["killed"]
    assert invoke(["show", "mine/ablations/grit"]) == 2
    assert 'did you mean "mine/ablations/grid"?' in capsys.readouterr().err
    assert invoke(["show", "mine/ablations/grid"]) == 0


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("what", ["ablations", "methods", "presets"])
def test_listings_break_no_word_and_stay_within_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], what: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert invoke(["ls", what]) == 0
    words = set(capsys.readouterr().out.split())
    monkeypatch.setenv("COLUMNS", str(width))
    assert invoke(["ls", what]) == 0
    out = capsys.readouterr().out
    assert set(out.split()) == words
    assert max(cell_len(line.rstrip()) for line in out.splitlines()) <= width


@pytest.mark.parametrize(
    ("name", "departures"),
    [
        (
            "stic",
            ["the projector", "rate 2e-5", "drops it", "group_by_modality_length", "bilinear filter",
             "enlarges", "dar.separator", "runner_up", "github.com/yihedeng9/STIC"],
        ),
        ("stic_stage1", ["bilinear filter", "group_by_modality_length"]),
        ("positive_only", ["no hyperparameters"]),
        ("seva", ["twice", "warm-up is 0"]),
        ("sima", ["random order", "sampled answer first"]),
        ("csr", ["diverse beam search"]),
        ("rlaif_v_lite", ["one model samples"]),
    ],
)  # fmt: skip
def test_show_of_a_method_says_in_what_it_differs_from_its_paper(
    name: str, departures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["show", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = " ".join(line for line in lines if line.startswith(("differs: ", "source: "))).lower()
    assert all(departure.lower() in said for departure in departures), said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf", "title: A model in this process.\ntrains: True\n"),
        ("openai", "trains: False\n"),
        ("self_consistency", "suffix: sc\nversion: 1\noptions:\n  k: 5\n"),
        ("robust", "constants: {'label_smoothing': (0.1, 0, 0.5)}\n"),
        ("blur", "defaults: {'radius': 0.05}\nrandom: False\n"),
    ],
)
def test_show_of_a_solver_engine_loss_or_corruption(
    name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["show", name]) == 0
    assert said in capsys.readouterr().out


def test_every_kind_that_is_registered_is_listed_and_broken_files_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setenv("STIC_EVAL_PLUGINS", str(tmp_path))
    (tmp_path / "mine.py").write_text("solver = 3\n")
    for known in registry.kinds().values():
        assert invoke(["ls", known.plural]) == 0
        out = capsys.readouterr().out
        assert set(known.names()) <= {line.split()[0] for line in out.splitlines()}
        assert "mine.py, line 1: `solver` is of type int" in out


def test_show_of_an_ablation_is_yaml_and_says_where_axes_are_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert invoke(["show", "components"]) == 0
    out = capsys.readouterr().out
    assert "vary" in yaml.safe_load(out) and "docs/axes.md" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], ["baseline", "stic+x=1@seed0", "stic+x=1@seed1", "stic+x=2@seed0", "stic+x=2@seed1"]),
        (["default", "baseline"], ["baseline", "stic+x=1@seed0", "stic+x=1@seed1"]),
        (["STIC, x=2"], ["stic+x=2@seed0", "stic+x=2@seed1"]),
        (["stic+x=2"], ["stic+x=2@seed0", "stic+x=2@seed1"]),
        (["x=2@seed1"], ["stic+x=2@seed1"]),
        (["stic+x=1@seed0"], ["stic+x=1@seed0"]),
    ],
)
def test_show_takes_variants_by_any_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], shown: list[str]
) -> None:
    folder = put_run(tmp_path / "grid", *grid(), axes={"x": [1, 2]})
    chosen = [word for name in names for word in ("--method", name)]
    assert invoke(["show", str(folder), "--benchmark", "one", *chosen]) == 0
    out = capsys.readouterr().out
    assert [line[3:].partition(":")[0] for line in out.splitlines() if line.startswith("-- ")] == shown


def test_show_lists_what_there_is_on_a_miss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = put_run(tmp_path / "grid", *grid(), axes={"x": [1, 2]})

    def said(*argv: str) -> str:
        assert invoke(["show", str(folder), *argv]) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    assert "(there are baseline, default, x=2)" in said("--benchmark", "one", "--method", "sft")
    assert "(there are one)" in said("--benchmark", "two")
    assert "(there are 0, 1)" in said("--benchmark", "one", "--method", "x=2@seed9")
    (folder / "scores.json").unlink()
    assert "(there are baseline, stic+x=1, stic+x=2)" in said("--method", "sft")
    assert invoke(["show", str(folder), "--method", "stic+x=1"]) == 0
    out = capsys.readouterr().out
    assert "by stic+x=1@seed0" in out and "by stic+x=1@seed1" in out and "x=2" not in out


def test_doctor_says_whether_a_judge_can_be_asked_and_what_is_optional(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    invoke(["doctor"])
    out = capsys.readouterr().out
    assert "warn  judge: OPENAI_API_KEY is not set; prompts: " in out
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-shown")
    invoke(["doctor"])
    shown = capsys.readouterr().out
    assert "ok    judge: OPENAI_API_KEY is set; prompts: " in shown
    assert "sk-not-shown" not in shown
    assert all(flag in out for flag in ("bitsandbytes", "flash_attn"))  # each for a flag that there is


def test_a_reader_that_goes_away_is_no_failure() -> None:
    command = [str(Path(sys.executable).parent / "stic-eval"), "ls", "benchmarks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # as `| head -0` does
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


def test_what_checks_scores_is_built_once_for_all_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pydantic

    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "three"):
        put_run(tmp_path / "results" / name, Entry("baseline", "baseline", "Baseline", DIRECT, None))
    built: list[object] = []
    real = pydantic.TypeAdapter
    monkeypatch.setattr(pydantic, "TypeAdapter", lambda kind: built.append(kind) or real(kind))
    runs._checker.cache_clear()
    assert invoke(["ls", "runs"]) == 0
    assert built == [Scores]


def test_a_preset_is_shown_without_references_within_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["show", "paper-llava-1.6"]) == 0
    out = capsys.readouterr().out
    assert yaml.safe_load(out)["method_options"]["stic"] and "&id" not in out and "*id" not in out
