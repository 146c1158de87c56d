"""The simulation of `compare` measures what it says, and what is committed of it meets the criteria."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from bench import coverage, coverage_md
from bench.coverage import Scenario


@pytest.mark.parametrize("kind", ["binary", "graded", "continuous", "ratio"])
def test_studies_have_the_difference_that_they_are_said_to_have(kind: str) -> None:
    large = Scenario("independent", 20_000, 20_000, 0.0, kind)
    for effect in (0.0, 5.0, -5.0):
        found = coverage.study(large, np.random.default_rng(1), effect)
        assert found.delta == pytest.approx(effect, abs=1.2)


def test_rows_of_a_cluster_are_correlated_as_they_are_said_to_be() -> None:
    """By what that does to the error: with four rows a cluster it grows by the root of 1 + 3 ICC, or so."""
    plain, tied = (
        [coverage.study(Scenario("x", 400, 100, icc), np.random.default_rng([2, i]), 0.0) for i in range(40)]
        for icc in (0.0, 0.6)
    )
    widths = [np.mean([d.high - d.low for d in found]) for found in (plain, tied)]
    assert widths[1] / widths[0] == pytest.approx((1 + 3.7 * 0.6) ** 0.5, rel=0.15)  # sizes differ


def test_seeds_spread_by_their_luck() -> None:
    few = [coverage.study(Scenario("x", 2000, 2000, seeds=1, luck=8), np.random.default_rng([3, i]), 0.0)
           for i in range(60)]  # fmt: skip
    assert np.std([d.delta for d in few]) == pytest.approx(8, rel=0.3)
    assert all(d.lacks and d.mark == "§" for d in few)


def test_a_quick_look_prints_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage, "RESULTS", tmp_path / "coverage.json")
    assert coverage.main(["--simulations", "40", "--only", "50 rows", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("marks 0." in line and "coverage 0.9" in line for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_missed_criterion_is_named() -> None:
    row = {**asdict(Scenario("independent", 200, 200)), "simulations": 2000, "marks": 0.05, "coverage": 0.95}
    assert coverage.missed(row) == []
    assert coverage.missed({**row, "marks": 0.08}) == ["8.0 % false marks"]
    assert coverage.missed({**row, "marks": 0.02}) == ["only 2.0 % false marks"]
    assert coverage.missed({**row, "marks": 0.02, "n": 100}) == []
    assert coverage.missed({**row, "coverage": 0.9}) == ["90.0 % coverage"]
    alone = {
        **row,
        **asdict(replace(Scenario("independent", 200, 200), luck=3.0)),
        "coverage": 0.7,
        "marks": 0.0,
    }
    assert coverage.missed(alone) == [], "what is never marked has no criterion but that"


def test_the_committed_simulation_is_whole_and_meets_the_criteria() -> None:
    assert coverage.main(["--check"]) == 0
    found = json.loads(coverage.RESULTS.read_text(encoding="utf-8"))["scenarios"]
    names = set(Scenario.__annotations__)
    assert [{name: row[name] for name in names} for row in found] == [
        asdict(one) for one in coverage.scenarios()
    ]
    assert {row["simulations"] for row in found} == {coverage.SIMULATIONS}


def test_the_page_shows_it() -> None:
    written = coverage_md.PAGE.read_text(encoding="utf-8")
    assert written == coverage_md.page(written), "stale: python -m bench.coverage_md"
