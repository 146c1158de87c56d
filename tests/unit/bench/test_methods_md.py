"""docs/methods.md and bench/README.md have the tables that the files and results give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import measured, methods_md, search
from stic_eval import registry


def test_the_tables_of_methods_are_up_to_date() -> None:
    written = methods_md.PAGE.read_text(encoding="utf-8")
    assert written == methods_md.page(written), "stale: python -m bench.methods_md"


def test_a_search_is_stated_by_what_every_method_has_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "OUT", tmp_path / "search.json")
    assert "not been run" in methods_md.searched()
    trials = [
        {"method": name, "settings": {"a": number}, "average": 50.0 + number, "seconds": 3600.0}
        for number in range(3)
        for name in search.SPACES
    ]
    found = {"compared": 2, "core_hours": 20.0, "limit": 60, "trials": trials[:-1]}
    search.OUT.write_text(json.dumps(found))
    said = methods_md.searched()
    assert "2 configurations of each method, in 20.0 hours of one core" in said
    assert "| `stic` | 2 | 50.0 | 51.0 | `a=1` |" in said


def test_every_method_is_compared_that_trains() -> None:
    compared = {*methods_md.ORDER, "stic_stage1"}
    assert set(registry.methods().own()) == compared


def test_the_measurements_are_up_to_date() -> None:
    written = measured.PAGE.read_text(encoding="utf-8")
    assert written == measured.page(written), "stale: python -m bench.measured"


def test_a_goal_that_is_missed_is_called_missed() -> None:
    lines = list(measured.tables())
    ratios = [line.split(" | ") for line in lines if line.endswith("x |") or line.endswith("missed |")]
    for *_, ratio, goal in (cells for cells in ratios if cells[-2].endswith("x")):
        wanted = float(goal.removesuffix(" |").removesuffix(", missed").removesuffix("x"))
        assert ("missed" in goal) == (float(ratio.removesuffix("x")) < wanted - 0.005), (ratio, goal)
