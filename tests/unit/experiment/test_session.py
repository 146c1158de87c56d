"""What a run computes, reuses, resumes and reports; `conftest.World` says which parts are real."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import yaml

from stic_eval import registry
from stic_eval.cli.app import invoke
from stic_eval.contracts.benchmark import HubId
from stic_eval.contracts.engine import Estimate
from stic_eval.experiment import score_reports
from stic_eval.training import trackers

if TYPE_CHECKING:
    from conftest import World


def test_a_run_trains_once_and_evaluates_everything_once(world: World) -> None:
    assert world.run() == 0
    assert world.calls == Counter([*world.everything, "pairs", "preference"])
    names = {path.name for path in world.results().iterdir()}
    assert names >= {"config.yaml", "manifest.json", "scores.json", "run.log"}
    assert names >= {f"table.{suffix}" for suffix in ("md", "tex", "csv", "json")}
    assert yaml.safe_load((world.results() / "config.yaml").read_text())["method_options"]["stic"] == {
        "beta": 0.1
    }


def test_a_second_run_computes_nothing_and_prints_the_same(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run() == 0
    first, manifest = capsys.readouterr().out, (world.results() / "manifest.json").read_text()
    world.forget()
    assert world.run() == 0
    assert world.calls == Counter()
    assert capsys.readouterr().out == first
    assert (world.results() / "manifest.json").read_text() == manifest
    assert invoke(["table", world.results().name]) == 0
    assert capsys.readouterr().out.strip() in first


def test_a_run_that_was_interrupted_goes_on_where_it_was(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fail_at = "stic/two"
    assert world.run() == 130
    assert "the same command resumes" in capsys.readouterr().err
    world.fail_at = None
    world.forget()
    assert world.run() == 0
    assert world.calls == Counter(["stic/two", "stic+dar/one", "stic+dar/two"])


def test_what_fails_takes_nothing_else_along(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.fail_at, world.error = "stic/one", RuntimeError
    assert world.run() == 1
    out, err = capsys.readouterr()
    assert "STIC + DaR" in out and "RuntimeError: pulled the plug (see " in err and "run.log)" in err
    assert len(err.splitlines()) == 1
    world.fail_at = None
    world.forget()
    assert world.run() == 0
    assert world.calls == Counter(["stic/one"])


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_goes_on_still_says_where_all_rows_were_had(
    killed: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = [word for option in world.on_the_hub(monkeypatch) for word in ("-o", option)]
    world.fail_at, world.error = "stic/two", RuntimeError
    assert world.run(*hub) == 1
    world.fail_at = None
    if killed:  # before it could write that
        (world.results() / "manifest.json").unlink()
        copy = HubId("somebody/one", "c" * 40), True
        monkeypatch.setattr("stic_eval.evals.hub.plan_source", lambda source: copy)
    assert world.run(*hub) == 0
    rows = json.loads((world.results() / "manifest.json").read_text())["rows"]
    assert rows == {name: {"id": f"somebody/{name}", "revision": "c" * 40} for name in ("one", "two")}


def test_another_option_is_another_run_that_shares_what_it_can(world: World) -> None:
    assert world.run() == 0
    world.forget()
    assert world.run("-o", "beta=0.5") == 0
    assert world.calls["preference"] == 1
    assert world.calls["pairs"] == 0
    assert len(list((world.folder / "results").iterdir())) == 2


def test_rows_or_weights_that_changed_are_evaluated_again(world: World) -> None:
    assert world.run() == 0
    world.forget()
    with (world.folder / "two.jsonl").open("a") as file:
        file.write('{"id": 99, "question": "?", "answer": "yes"}\n')
    assert world.run() == 0
    assert world.calls == Counter(name for name in world.everything if name.endswith("two"))


def test_fresh_computes_again_without_touching_the_shared_cache(world: World) -> None:
    assert world.run() == 0
    shared = sorted(path.name for path in (world.folder / "cache" / "stages").iterdir())
    world.forget()
    assert world.run("--fresh") == 0
    assert world.calls == Counter([*world.everything, "pairs", "preference"])
    assert sorted(path.name for path in (world.folder / "cache" / "stages").iterdir()) == shared
    world.forget()
    assert world.run() == 0
    assert world.calls == Counter()


def test_trainings_from_the_cache_are_said_to_send_no_curves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "version", lambda name: "1")
    monkeypatch.setattr(score_reports, "open_run", lambda *given: SimpleNamespace(log=print, close=print))
    said = "--report-to wandb: trainings from the cache (1) send no curves; --fresh trains again"
    for times in (0, 1):
        assert world.run("--report-to", "wandb") == 0
        assert (world.results() / "run.log").read_text().count(said) == times


def test_seeds_train_apart_and_meet_in_one_row(world: World) -> None:
    assert world.run("--seed", "0", "--seed", "4", "--no-dar") == 0
    variants = ("baseline", "stic@seed0", "stic@seed4")
    trained = ["pairs", "pairs", "preference", "preference"]
    assert world.calls == Counter([*(f"{v}/{name}" for v in variants for name in ("one", "two")), *trained])
    rows = json.loads((world.results() / "table.json").read_text())["rows"]
    assert [(row["label"], row["seeds"]) for row in rows] == [("Baseline", []), ("STIC", [0, 4])]


@pytest.mark.parametrize(("seeds", "mark"), [((0,), "§"), ((0, 1, 2), "**")])
def test_a_better_method_is_marked_with_several_seeds(
    world: World, seeds: tuple[int, ...], mark: str
) -> None:
    world.answer = lambda variant, sample: sample.target if variant.startswith("stic") else "yes"
    assert world.run("--no-dar", *(word for seed in seeds for word in ("--seed", str(seed)))) == 0
    row = json.loads((world.results() / "table.json").read_text())["rows"][1]
    assert row["cells"]["average"]["score"] == 100.0
    assert row["cells"]["average"]["difference"]["mark"] == mark


def test_unscored_rows_and_skipped_files_end_with_3(world: World) -> None:
    world.answer = lambda variant, sample: "?" if sample.id == "3" else "yes"
    assert world.run("--no-dar") == 3
    cell = json.loads((world.results() / "table.json").read_text())["rows"][0]["cells"]["one"]
    assert (cell["unscored"], cell["complete"]) == (1, False)


def test_skipped_files_are_listed_with_their_reason(world: World) -> None:
    (world.folder / "photos" / "empty.jpg").write_bytes(b"")
    (world.folder / "photos" / "notes.txt").write_text("hello")  # no image by its name: nothing is lost
    assert world.run("--no-dar") == 3
    lines = [json.loads(line) for line in (world.results() / "skipped.jsonl").read_text().splitlines()]
    assert {line["source"] for line in lines} == {"empty.jpg"}
    assert all(line["reason"] for line in lines)


def test_a_dry_run_shows_the_plan_and_leaves_no_trace(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.run("--dry-run") == 0
    text = capsys.readouterr().out
    assert world.calls == Counter()
    assert not (world.folder / "results").exists()
    assert "pairs, seed 0" in text
    assert "to do in all" in text
    # 30 for the pairs; two benchmarks of 20 rows, asked once without and twice with DaR, by two methods.
    total = next(line for line in text.splitlines() if line.startswith("to do in all"))
    assert total.split()[-2:] == [str(30 + 2 * 2 * (20 + 40)), "7"]
    world.run()
    capsys.readouterr()
    assert world.run("--dry-run") == 0
    assert next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("to do in all")
    ).split()[-2:] == ["0", "0"]


@pytest.mark.parametrize(
    ("method", "jobs", "said"),
    [
        ("stic", 1, "10 min and"),
        ("stic", 2, "5 min with 2 jobs and"),
        ("stic", 99, "2 min with 4 jobs and"),
        ("baseline", 99, "10 min and"),
    ],
)
def test_a_dry_run_estimates_for_so_many_jobs_as_can_be_at_work_at_once(
    method: str, jobs: int, said: str,
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ten = Estimate(600.0, 2.0**30, "a machine")
    monkeypatch.setattr(registry.engines().get("hf"), "estimate", lambda self, generations, steps: ten)
    assert world.run("--dry-run", "--method", method, "--jobs", str(jobs)) == 0
    assert f"estimate on a machine: about {said} 1.0 GiB of memory" in capsys.readouterr().out


def test_a_dry_run_estimates_for_hardware_that_is_named(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.engines().get("hf"), "size", lambda self: (7e9, 2.0))
    assert world.run("--dry-run", "--hardware", "rtx-4090", "--jobs", "2", "--gpus", "2") == 0
    text = capsys.readouterr().out
    assert "2 workers at once, on hardware that was named (RTX 4090, weights in bfloat16)" in text
    assert "time by a GPU's figures, none of it measured: evaluate " in text and ", preference " in text
    for argv, said in (
        (["--hardware", "h100"], "--hardware h100: is for plans; add --dry-run"),
        (
            ["--dry-run", "--hardware", "abacus"],
            "--hardware abacus: there are figures only for H200, H100, A100",
        ),
        (["--dry-run", "--hardware", "h100", "--device", "cpu"], "--device cpu is not; leave one out"),
    ):
        assert world.run(*argv) == 2
        assert said in capsys.readouterr().err
    assert world.calls == Counter()


def test_an_adapter_is_evaluated_beside_the_model(world: World) -> None:
    folder = world.folder / "mine"
    folder.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_bytes(b"{}")
    argv = ["eval", "--model", "vlm", "--adapter", str(folder), "-o", f"rows={world.folder}/one.jsonl", "-q"]
    assert invoke([*argv, "--benchmarks", "one"]) == 0
    assert world.calls == Counter(["baseline/one", "adapter/one"])


def test_train_prints_adapters_and_evaluates_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(["train", "--model", "vlm", "--images", "photos", "-q"]) == 0
    assert world.calls == Counter(["pairs", "preference"])
    label, _, path = capsys.readouterr().out.strip().partition(": ")
    assert label == "stic"
    assert (Path(path) / "adapter_config.json").is_file()


def test_training_again_computes_nothing_and_leaves_the_manifest(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "--model", "vlm", "--images", "photos", "-q"]
    assert invoke(argv) == 0
    said, manifest = capsys.readouterr().out, (world.results() / "manifest.json").read_text()
    world.forget()
    assert invoke(argv) == 0
    assert capsys.readouterr().out == said
    assert world.calls == Counter()
    assert (world.results() / "manifest.json").read_text() == manifest
