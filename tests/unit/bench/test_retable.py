"""Committed runs get what their answers would have told, as far as it can be known without them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import retable
from stic_eval.report import runs

OF = {("baseline", False): None, ("stic", False): 0, ("stic", True): 0}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The committed main run and one ablation, of each a few rows on ScienceQA and TextVQA, without notes."""
    for name in ("pocket", "pocket/ablations/components"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        shutil.copy(retable.RESULTS / name / "config.yaml", folder)
        data = json.loads((retable.RESULTS / name / "scores.json").read_text())
        data["columns"] = [c for c in data["columns"] if c["name"] in ("scienceqa", "textvqa")]
        data["variants"] = [
            v
            for v in data["variants"]
            if OF.get((v["method"], v["solver"]["suffix"] == "dar"), -1) == v["seed"]
        ]
        data["notes"] = []
        for variant in data["variants"]:
            kept = {column["name"]: variant["summaries"][column["name"]] for column in data["columns"]}
            variant["summaries"] = kept
            for summary in kept.values():
                for key in ("constant", "best_constant", "blank", "cut"):
                    summary.pop(key, None)
        (folder / "scores.json").write_text(json.dumps(data))
    monkeypatch.setattr(retable, "RESULTS", tmp_path)
    monkeypatch.setattr("stic_eval.report.table_formats.write", lambda table, folder: None)
    return tmp_path


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "scores.json"
    data = json.loads(path.read_text())
    for variant in data["variants"]:
        for summary in variant["summaries"].values():
            edit(summary)
    path.write_text(json.dumps(data))


def test_an_ablations_constant_answers_are_those_of_the_same_rows_of_the_main_run(place: Path) -> None:
    change(place / "pocket", lambda summary: summary.update(constant="B", blank=3))
    folder = place / "pocket" / "ablations" / "components"
    scores = runs.load(folder)
    last = scores.entries[-1]
    units = dict(last.summaries["scienceqa"].units)
    right = next(unit for unit, (value, _) in units.items() if value)
    wrong = next(unit for unit, (value, _) in units.items() if not value)
    units[right], units[wrong] = units[wrong], units[right]
    path = folder / "scores.json"
    data = json.loads(path.read_text())
    data["variants"][-1]["summaries"]["scienceqa"]["units"] = units
    path.write_text(json.dumps(data))
    retable.retable(folder)
    scores = runs.load(folder)
    found = {entry.folder: entry.summaries["scienceqa"] for entry in scores.entries}
    assert (found["baseline"].constant, found["baseline"].blank) == ("B", 3)
    assert (found[last.folder].constant, found[last.folder].blank) == ("", 0), "right in other rows"
    assert retable.UNKNOWN in scores.table().notes
    retable.retable(folder)
    assert runs.load(folder) == scores, "once more changes nothing"


def test_who_is_right_where_a_constant_base_is_gives_the_same_answer(place: Path) -> None:
    change(place / "pocket", lambda summary: summary.update(constant="B", blank=3))
    folder = place / "pocket" / "ablations" / "components"
    path = folder / "scores.json"
    data = json.loads(path.read_text())
    data["variants"][-1]["seed"] = 7  # of which the main run has nothing
    units = data["variants"][0]["summaries"]["scienceqa"]
    data["variants"][-1]["summaries"]["scienceqa"] = units
    path.write_text(json.dumps(data))
    retable.retable(folder)
    found = runs.load(folder).entries[-1].summaries["scienceqa"]
    assert (found.constant, found.blank) == ("B", 0)


def test_what_a_constant_answer_scores_is_known_by_the_targets_alone(place: Path) -> None:
    folder = place / "pocket" / "ablations" / "components"
    retable.retable(folder)
    for entry in runs.load(folder).entries:
        best = entry.summaries["scienceqa"].best_constant
        assert best is not None and best[0] in "ABCD" and 25 <= best[1] < 50
        assert entry.summaries["textvqa"].best_constant is None, "its targets are lists"


def test_answers_that_were_looked_at_stay_as_they_are(place: Path) -> None:
    folder = place / "pocket" / "ablations" / "components"
    change(place / "pocket", lambda summary: summary.update(constant="B"))
    change(folder, lambda summary: summary.update(constant="", cut=5))
    retable.retable(folder)
    scores = runs.load(folder)
    assert {(s.constant, s.cut) for e in scores.entries for s in e.summaries.values()} == {("", 5)}
    assert retable.UNKNOWN not in scores.notes


def test_of_a_main_run_without_answers_nothing_is_known_even_when_it_is_written_anew(place: Path) -> None:
    retable.retable(place / "pocket")
    assert retable.UNKNOWN in runs.load(place / "pocket").notes
    folder = place / "pocket" / "ablations" / "components"
    retable.retable(folder)
    assert retable.UNKNOWN in runs.load(folder).notes
