"""From records to summaries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.evals.scoring.aggregate import all_right, percent, summarize
from stic_eval.types import Record


def record(name: str, score: float | None, weight: float = 1.0, **group: str) -> Record:
    return Record(name, "", (), "", group, None, "", None, score, weight, None, 0.0, 0)


def test_summarize_counts_and_breaks_down() -> None:
    summary = summarize(
        [record("1", 1, skill="a,b"), record("2", 0, skill="a"), record("3", None, skill="c")],
        several=("skill",),
    )
    assert (summary.score, summary.n, summary.unscored) == (50, 3, 1)
    assert summary.units == {"1": (1, 1), "2": (0, 1)}
    assert summary.breakdown == {"skill/a": 50, "skill/b": 100}


def test_a_ratio_divides_by_the_weights_not_by_the_count() -> None:
    assert summarize([record("1", 0.5, 1.0), record("2", 0.9, 0.6)]).score == pytest.approx(100 * 1.4 / 1.6)


def test_nothing_scored_is_none_not_zero() -> None:
    summary = summarize([record("1", None)])
    assert (summary.score, summary.n, summary.unscored, summary.units) == (None, 1, 1, {})
    assert percent([]) is None
    assert all_right([], str).score is None


def test_all_right_needs_every_member() -> None:
    records = [
        record("1", 1, ability="LR"), record("11", 1, ability="LR"),
        record("2", 1, ability="CP"), record("12", 0, ability="CP"),
        record("3", 0, ability="CP"), record("13", None, ability="CP"),
        record("4", 1, ability="CP"), record("14", None, ability="CP"),
    ]  # fmt: skip
    summary = all_right(records, lambda r: str(int(r.id) % 10))
    assert summary.units == {"1": (1, 1), "2": (0, 1)}  # 3 is wrong, but so would a right one be left out
    assert (summary.n, summary.unscored) == (4, 2)
    assert summary.score == 50
    assert summary.breakdown == pytest.approx({"ability/LR": 100, "ability/CP": 0, "vanilla": 100 * 4 / 6})


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0.0, 1.0, None])), min_size=1, max_size=40))
def test_circular_is_never_kinder_than_its_rows(rows: list[tuple[int, float | None]]) -> None:
    records = [record(f"{number}-{i}", score) for i, (number, score) in enumerate(rows)]
    summary = all_right(records, lambda r: r.id.split("-")[0])
    assert summary.n == len({number for number, _ in rows})
    assert len(summary.units) + summary.unscored == summary.n
    for name, (value, _) in summary.units.items():
        scores = [score for number, score in rows if str(number) == name]
        assert value == float(all(score == 1 for score in scores))
