"""Gains split by the wording of questions, on scores that are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import wordings
from stic_eval.pocket.rows import benchmark_rows
from stic_eval.report import runs
from stic_eval.report.table_rows import Column
from stic_eval.types import DIRECT, Summary

CONFIG = "prompts: pocket\nbenchmark_options: {llava_bench: {protocol: llava}}\n"
TITLES = {"llava_bench": "LLaVA-Bench", "mmbench": "MMBench"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run in which a method is right in shared wordings alone, with two seeds, and the base never."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    columns = [Column(name, title) for name, title in TITLES.items()]
    scores = runs.Scores("run", columns, [], model="pocket")
    empty = dict.fromkeys(TITLES, Summary(None, 200, 0, {}, {}))
    scores.entries = [
        runs.Entry(folder, folder.partition("@")[0], folder, DIRECT, seed, summaries=dict(empty))
        for folder, seed in (("baseline", None), ("mine@seed0", 0), ("mine@seed1", 1))
    ]
    runs.save(scores, tmp_path)
    for name, about in wordings.asked(tmp_path).items():
        for entry in scores.entries:
            units = {
                u: (float(entry.seed is not None and u not in about.held_out), 1.0)
                for u in sorted(about.units)
            }
            score = 100 * sum(v for v, _ in units.values()) / len(units)
            entry.summaries[name] = replace(empty[name], n=len(units), units=units, score=score)
    runs.save(scores, tmp_path)
    return tmp_path


def test_a_gain_in_shared_wordings_alone_is_none_in_those_held_out(run: Path) -> None:
    about = wordings.asked(run)
    assert {name: len(it.units) for name, it in about.items()} == {"llava_bench": 200, "mmbench": 50}
    assert all(0.3 < len(it.held_out) / len(it.units) < 0.37 for it in about.values())
    assert all(it.prompts == 0 for it in about.values())
    (gain,) = wordings.gains(run)
    assert 63 < gain.all.delta < 70
    assert gain.shared.delta == pytest.approx(100)
    assert gain.held_out.delta == 0
    assert gain.by_seed == (0, 0)
    for name, (shared, unseen) in gain.parts.items():
        assert (shared.delta, unseen.delta) == (pytest.approx(100), 0)
        assert (shared.n, unseen.n) == (len(about[name].shared), len(about[name].held_out))


def test_the_files_say_so_and_are_checked(run: Path) -> None:
    assert wordings.main([str(run)]) == 0
    (gain,) = json.loads((run / "wordings.json").read_text())["gains"]
    assert gain["held_out"]["delta"] == 0
    assert gain["benchmarks"]["mmbench"]["shared"]["delta"] == pytest.approx(100)
    text = (run / "wordings.md").read_text()
    assert "of 250 units ask in wordings that no instruction item has; no row asks word for word" in text
    assert " | MMBench | +100.00 [" in text
    assert wordings.main([str(run), "--check"]) == 0
    (run / "wordings.md").write_text("by hand")
    assert wordings.main([str(run), "--check"]) == 1


def test_units_in_held_out_wordings_ask_what_no_item_asks(run: Path) -> None:
    for name, it in wordings.asked(run).items():
        asked = {
            row["question"]
            for row in benchmark_rows(name)
            if str(row.get("question_id", row.get("index", 0) % 1_000_000)) in it.held_out
        }
        assert asked and not asked & wordings._item_questions()


def test_other_rows_than_those_that_are_drawn_are_refused(run: Path) -> None:
    scores = runs.load(run)
    first = scores.entries[0].summaries
    first["llava_bench"] = replace(first["llava_bench"], units={"none": (1.0, 1.0)}, score=100.0)
    runs.save(scores, run)
    with pytest.raises(ValueError, match="other rows"):
        wordings.asked(run)


@pytest.mark.parametrize("run", ["results/pocket", "results/pocket/methods"])
def test_what_is_committed_is_up_to_date(run: str) -> None:
    folder = Path(__file__).parents[3] / run
    assert wordings.main([str(folder), "--check"]) == 0, f"stale: python -m bench.wordings {run}"
