"""Gains split by the wording of questions, on scores that are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import wordings
from stic_eval.report import runs
from stic_eval.report.table_rows import Column
from stic_eval.types import DIRECT, Summary

CONFIG = "prompts: pocket\nbenchmark_options: {llava_bench: {protocol: llava}}\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in which a method is right on training prompts alone, with two seeds, and the base never."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    empty = Summary(None, 200, 0, {}, {})
    scores = runs.Scores("run", [Column("llava_bench", "LLaVA-Bench")], [], model="pocket")
    scores.entries = [
        runs.Entry(folder, folder.partition("@")[0], folder, DIRECT, seed, summaries={"llava_bench": empty})
        for folder, seed in (("baseline", None), ("mine@seed0", 0), ("mine@seed1", 1))
    ]
    runs.save(scores, tmp_path)
    about = wordings.asked(tmp_path)["llava_bench"]
    for entry in scores.entries:
        units = {u: (float(entry.seed is not None and u in about.prompts), 1.0) for u in sorted(about.units)}
        score = 100 * sum(v for v, _ in units.values()) / len(units)
        entry.summaries["llava_bench"] = replace(empty, units=units, score=score)
    runs.save(scores, tmp_path)
    return tmp_path


def test_a_gain_on_training_prompts_alone_is_none_without_them(run: Path) -> None:
    about = wordings.asked(run)["llava_bench"]
    assert (len(about.units), len(about.prompts)) == (200, 50)
    (gain,) = wordings.gains(run)
    assert gain.all.delta == pytest.approx(25)
    assert gain.others.delta == 0
    assert gain.by_seed == (0, 0)
    these, others = gain.parts["llava_bench"]
    assert (these.delta, these.n, others.delta, others.n) == (pytest.approx(100), 50, 0, 150)
    assert wordings.main([str(run)]) == 0
    data = json.loads((run / "wordings.json").read_text())
    assert data["gains"][0]["others"]["delta"] == 0
    assert "50 of 200 LLaVA-Bench rows" in (run / "wordings.md").read_text()
    assert wordings.main([str(run), "--check"]) == 0
    (run / "wordings.md").write_text("by hand")
    assert wordings.main([str(run), "--check"]) == 1


def test_other_rows_than_those_that_are_drawn_are_refused(run: Path) -> None:
    scores = runs.load(run)
    first = scores.entries[0].summaries
    first["llava_bench"] = replace(first["llava_bench"], units={"201": (1.0, 1.0)}, score=100.0)
    runs.save(scores, run)
    with pytest.raises(ValueError, match="other rows"):
        wordings.asked(run)


@pytest.mark.parametrize("run", ["results/pocket", "results/pocket/methods"])
def test_what_is_committed_is_up_to_date(run: str) -> None:
    folder = Path(__file__).parents[3] / run
    assert wordings.main([str(folder), "--check"]) == 0, f"stale: python -m bench.wordings {run}"
