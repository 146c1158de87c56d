"""A run's folder and keys: what is kept, refused and redone, and what is shown of a run under way."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import HubData
from stic_eval.store import content_key

if TYPE_CHECKING:
    from conftest import World

# ---------------------------------------------------------------- one folder, one run


def scores(folder: Path) -> dict[str, list[str]]:
    variants = json.loads((folder / "scores.json").read_text())["variants"]
    return {entry["folder"]: sorted(entry["summaries"]) for entry in variants}


def test_redoing_one_evaluation_keeps_the_others(world: World) -> None:
    assert world.run() == 0
    with (world.folder / "two.jsonl").open("a") as file:
        file.write('{"id": 99, "question": "?", "answer": "yes"}\n')
    world.fail_at = "baseline+dar/two"
    assert world.run() == 130
    assert scores(world.results()) == {
        "baseline": ["one", "two"], "baseline+dar": ["one"], "stic": ["one"], "stic+dar": ["one"],
    }  # fmt: skip
    world.fail_at = None
    world.forget()
    assert world.run() == 0
    assert world.calls == Counter(["baseline+dar/two", "stic/two", "stic+dar/two"])


def test_a_folder_with_another_run_is_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run_in("mine") == 0
    kept = (path for path in Path("mine").rglob("*") if path.is_file() and path.name != "run.log")
    before = {path: path.read_bytes() for path in kept}
    capsys.readouterr()
    for extra in ([], ["--dry-run"]):
        assert world.run_in("mine", "-o", "beta=0.5", *extra) == 2
        err = capsys.readouterr().err
        assert "--output mine: holds the results of a run with other settings" in err
        assert len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in before} == before
    world.forget()
    assert world.run_in("mine", "--device", "cpu", "--batch-size", "3") == 0
    assert world.calls == Counter()  # the same run
    assert world.run_in("mine", "-o", "beta=0.5", "--fresh", "--no-dar") == 0
    assert sorted(scores(Path("mine"))) == ["baseline", "stic"]


def test_settings_without_results_do_not_hold_a_folder(world: World) -> None:
    world.fail_at = "baseline/one"
    assert world.run_in("mine") == 130
    world.fail_at = None
    assert world.run_in("mine", "-o", "beta=0.5") == 0


def files(folder: Path) -> list[Path]:
    """All of a folder but SQLite's own side files, which go when a connection is collected."""
    return sorted(path for path in folder.rglob("*") if not path.name.endswith(("-shm", "-wal")))


@pytest.mark.parametrize("wrong", [["-o", "rows.one=gone.jsonl"], ["--device", "cuda:99"]])
def test_wrong_input_costs_nothing(
    world: World, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run_in("mine", "--fresh") == 0
    before = files(Path("mine"))
    world.forget()
    capsys.readouterr()
    assert world.run_in("mine", "--fresh", *wrong) == 2
    assert wrong[-1].rpartition("=")[2] in capsys.readouterr().err
    assert world.calls == Counter()
    assert files(Path("mine")) == before


# ---------------------------------------------------------------- what keys hold


def test_on_a_cpu_auto_is_float32(world: World) -> None:
    on_cpu = ["--device", "cpu", "--dtype"]
    assert world.run_in("a", *on_cpu, "auto") == 0
    world.forget()
    assert world.run_in("b", *on_cpu, "float32") == 0
    assert world.calls["preference"] == 0  # the same stages
    assert world.run_in("c", *on_cpu, "bfloat16") == 0
    assert world.calls["preference"] == 1
    model = json.loads(Path("a", "manifest.json").read_text())["model"]
    assert model == {"name": "vlm", "fingerprint": content_key("vlm"), "dtype": "float32"}


def test_answers_of_another_device_are_not_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.run_in("a", "--device", "cpu") == 0
    world.forget()
    monkeypatch.setattr("stic_eval.models.devices.check_device", lambda device: None)
    assert world.run_in("a", "--device", "cuda") == 0
    assert world.calls == Counter([*world.everything, "pairs", "preference"])


def test_another_way_to_make_model_input_is_evaluated_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.run() == 0
    world.forget()
    monkeypatch.setattr("stic_eval.store.REQUEST_VERSION", 99)
    assert world.run() == 0
    assert world.calls == Counter(world.everything)  # the stand-in for stages has keys of its own


# ---------------------------------------------------------------- under way


def test_a_run_under_way_shows_what_is_complete(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.fail_at = "stic@seed4/two"
    assert world.run("--seed", "0", "--seed", "4", "--seed", "5", "--no-dar") == 130
    capsys.readouterr()
    assert invoke(["table", world.results().name, "--format", "json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [(row["label"], row["seeds"]) for row in table["rows"]] == [("Baseline", []), ("STIC", [0])]
    note = "unfinished: stic@seed4 (1 of 2 benchmarks), stic@seed5 (0 of 2 benchmarks)."
    assert note in table["notes"]
    for command in (["table", world.results().name], ["ls", "runs"]):
        assert invoke(command) == 0
    assert "unfinished" in capsys.readouterr().out
    world.fail_at = None
    assert world.run("--seed", "0", "--seed", "4", "--seed", "5", "--no-dar") == 0
    assert "unfinished" not in capsys.readouterr().out


@pytest.mark.parametrize("at", ["baseline/two", "stic@seed0/one", "stic@seed0/two"])
def test_a_run_that_has_hardly_begun_can_be_shown(
    world: World, at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fail_at = at
    assert world.run("--seed", "0", "--seed", "4", "--no-dar") == 130
    for command in (["table", world.results().name], ["ls", "runs"]):
        assert invoke(command) == 0
    assert "unfinished" in capsys.readouterr().out


# ---------------------------------------------------------------- plans and adapters


def test_a_plan_to_start_over_has_nothing_cached(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run_in("mine", "--fresh") == 0
    capsys.readouterr()
    assert world.run_in("mine", "--fresh", "--dry-run") == 0
    assert "cached" not in capsys.readouterr().out
    assert world.run_in("mine", "--dry-run") == 0
    assert "cached" in capsys.readouterr().out


def test_a_plan_downloads_no_data_set(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise AssertionError("read the rows")

    known = registry.benchmarks()
    counted = replace(known.get("one"), source=HubData("nobody/one", "test", rows=1000))
    monkeypatch.setitem(known.known, "one", counted)  # type: ignore[attr-defined]
    monkeypatch.setattr(registry, "benchmarks", lambda: known)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("stic_eval.evals.sources.samples", download)
    argv = ["run", "--model", "vlm", "--method", "baseline", "-q", "--dry-run"]
    for limit, rows in (([], "1,000"), (["--limit", "0.1"], "100"), (["--limit", "30"], "30")):
        assert invoke([*argv, *limit]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert next(line for line in lines if "baseline one" in line).split()[-2:] == [rows, "0"]
        assert any("baseline two (rows unknown)" in line for line in lines)


def test_adapters_in_folders_of_one_name_do_not_meet(world: World) -> None:
    for name in ("a", "b"):
        folder = world.folder / name / "run" / "adapter"
        folder.mkdir(parents=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (folder / file).write_text(f'{{"{name}": 1}}')
        argv = [
            "eval",
            "--model",
            "vlm",
            "--adapter",
            str(folder),
            "-o",
            f"rows={world.folder}/one.jsonl",
            "-q",
        ]
        assert invoke([*argv, "--benchmarks", "one"]) == 0
    folders = list((world.folder / "results").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert json.loads((folder / "table.json").read_text())["rows"][1]["label"] == "Adapter run"


def test_the_plan_of_a_grid_that_starts_over_counts_nothing_as_done(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run("--method", "stic") == 0
    argv = ["ablate", "--vary", "beta=0.1,0.2", "--model", "vlm", "--images", "photos", "--dry-run"]
    argv += [f"-orows.{name}={world.folder}/{name}.jsonl" for name in ("one", "two")]
    for more, cached in ((), 2), (("--fresh",), 0):
        capsys.readouterr()
        assert invoke([*argv, *more]) == 0
        assert f"shared it is 3, of which {cached} are cached" in capsys.readouterr().out
