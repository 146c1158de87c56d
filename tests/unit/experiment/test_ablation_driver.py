"""The driver of an ablation, with what does its tasks given by argument."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stic_eval import config
from stic_eval.ablations.grid import BASELINE, Grid, GridCell
from stic_eval.evals.scoring.aggregate import summarize
from stic_eval.experiment import driver, graph, planning
from stic_eval.experiment.executors.local import Local
from stic_eval.experiment.progress import Reporter
from stic_eval.experiment.resources import Resources


def test_what_is_made_of_rows_that_change_meanwhile_is_not_taken_for_one_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    row = {"question_id": 1, "image": "0.png", "question": "?", "answers": ["yes"] * 10}
    rows.write_text(json.dumps(row) + "\n")
    flags = {"methods": [BASELINE], "benchmarks": "textvqa", "output": "out", "dar": False}
    built = config.load(flags=flags, overrides=[f"rows.textvqa={rows}"])
    grid = Grid(built, (GridCell({}, BASELINE),), (built,))

    def planned() -> tuple[planning.Experiment, Resources]:
        resources = Resources(built, Reporter(None, quiet=True), tmp_path / "cache")
        arms = graph.arms_of(grid, resources)
        return planning.plan("grid", arms, resources), resources

    def edited(task: graph.Task) -> Iterator[tuple[str, Any]]:
        rows.write_text(rows.read_text().replace("yes", "no"))
        yield "result", (b"", summarize([]))

    found, resources = planned()
    (item,) = found.evaluations
    driver.carry_out(found, Local(edited), resources, lambda event: None)
    assert item.entry.keys["textvqa"] == item.keys["textvqa"][0]
    (now,) = planned()[0].evaluations
    assert now.missing == ("textvqa",)
    assert now.keys["textvqa"][0] != item.keys["textvqa"][0]
