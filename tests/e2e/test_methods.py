"""The controls beside STIC, what they share with it, and training seeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Finished, Lab

METHODS = ("stic_stage1", "sft", "positive_only")


def table(run: Path) -> Any:
    return json.loads((run / "table.json").read_text())


def responses(run: Path, variant: str) -> list[str]:
    lines = (run / "records" / variant / "textvqa.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["response"] for line in lines]


def test_controls_share_what_stic_has_made(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    shutil.copytree(finished.lab.folder / "cache", tmp_path / "cache")
    before = {stage: lab.done(stage) for stage in ("pairs", "preference", "infused_sft")}
    methods = [part for name in METHODS for part in ("--method", name)]
    done = lab.invoke(
        *lab.argv("run", *methods, "--no-dar", "--benchmarks", "textvqa", "--output", "controls")
    )
    assert done.code == 0, done.err
    run = lab.folder / "controls"
    labels = [row["label"] for row in table(run)["rows"]]
    assert labels == ["Baseline", "STIC, stage 1 only", "SFT only", "Positive only"]
    assert lab.done("pairs") == before["pairs"]  # one folder for all four methods
    assert lab.done("preference") == before["preference"]
    assert len(lab.done("sft")) == len(lab.done("positive_sft")) == 1
    assert len(lab.done("infused_sft")) == 2  # STIC's, and that of positives only
    answers = [responses(run, name) for name in ("baseline", *METHODS)]
    answers.append(responses(finished.folder, "stic"))
    assert all(a != b for i, a in enumerate(answers) for b in answers[:i])  # five different models


def test_seeds_train_apart_and_meet_in_one_row(lab: Lab, tmp_path: Path) -> None:
    lab = lab.at(tmp_path)
    argv = lab.argv("run", "--method", "sft", "--seed", "0", "--seed", "1", "--benchmarks", "textvqa,chartqa",
                    "--limit", "4", leave=("stage1", "stage2.max"))  # fmt: skip
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    assert len(lab.done("sft")) == 2
    (run,) = lab.runs()
    row = table(run)["rows"][1]
    assert (row["label"], row["seeds"], len(table(run)["rows"])) == ("SFT only", [0, 1], 2)
    assert row["cells"]["chartqa"]["sd"] is not None
    assert row["cells"]["chartqa"]["n"] == 4
    assert responses(run, "sft@seed0") != responses(run, "sft@seed1")


def test_axes_are_set_from_the_command_line(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    shutil.copytree(finished.lab.folder / "cache", tmp_path / "cache")
    before = lab.done("preference")
    settings = (
        "iterations=2", "reference=base", "stage1.rejected_logp=runner_up", "stage1.alpha_over=token_mean",
        "stage1.chosen_prompt=plain", "stage1.filter=near_duplicates", "stage1.similarity=1",
        "stage1.corruptions={blur: 4, jitter: 1, low_res: 0}", "stage1.fraction=0.5", "stage2.items=0",
        "dar.prompt_role=step_by_step",
    )  # fmt: skip
    options = [part for setting in settings for part in ("-o", setting)]
    argv = lab.argv("run", "--method", "stic", "--benchmarks", "textvqa", "--output", "axes", *options)
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    trained = [path for path in lab.done("preference") if path not in before]
    params = [json.loads((path / "manifest.json").read_text())["params"] for path in trained]
    assert sorted(p.get("reference", "") for p in params) == ["", "base"]
    assert {(p["rejected_logp"], p["alpha_over"]) for p in params} == {("runner_up", "token_mean")}
    made = [json.loads((path / "manifest.json").read_text())["params"] for path in lab.done("pairs")]
    made = [p for p in made if "chosen_prompt" in p]
    assert sorted(p.get("iteration", 1) for p in made) == [1, 2]
    assert all(p["images"] == 3 and "length_ratio" not in p for p in made)
    assert all(p["corruptions"] == {"jitter": 0.2, "blur": 0.8} for p in made)
    assert "dropped (filter near_duplicates)" in (lab.folder / "axes" / "run.log").read_text()
    described = responses(lab.folder / "axes", "stic+dar")
    assert described != responses(finished.folder, "stic+dar")
    again = lab.invoke(*argv)  # everything is found again
    assert again.code == 0
    assert len(lab.done("preference")) == len(before) + 2


def test_a_wrong_value_of_an_axis_names_the_flag_and_computes_nothing(lab: Lab, tmp_path: Path) -> None:
    lab = lab.at(tmp_path)
    for setting, said in (
        ("stage1.fraction=0", "greater than 0"),
        ("stage1.filter=twins", "near_duplicates"),
    ):
        done = lab.invoke(*lab.argv("run", "--method", "stic", "-o", setting))
        assert done.code == 2
        assert f"-o stic.{setting.partition('=')[0]}" in done.err
        assert said in done.err
        assert len(done.err.strip().splitlines()) == 1
    assert not lab.stages.exists()
