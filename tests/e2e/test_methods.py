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
