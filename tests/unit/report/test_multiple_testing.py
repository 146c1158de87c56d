"""The one procedure by which comparisons are marked, against its error guarantees."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stic_eval.report.multiple_testing import PValues, correct, holm


def test_averages_come_first_and_benchmarks_behind_them() -> None:
    rows = [PValues(0.01, {"a": 0.001, "b": 0.2}), PValues(0.3, {"a": 0.001, "b": 0.002})]
    first, second = correct(rows)
    assert first.average == pytest.approx(0.02) and second.average == pytest.approx(0.3)
    assert first.benchmarks == pytest.approx({"a": 0.02, "b": 0.2})
    assert second.benchmarks == pytest.approx({"a": 0.3, "b": 0.3}), "however small its own p is"


def test_more_benchmarks_cost_an_average_nothing() -> None:
    many = {f"b{i}": 1.0 for i in range(26)}
    assert correct([PValues(0.02, many), PValues(0.9, many)])[0].average == pytest.approx(0.04)


def test_a_row_that_is_not_tested_is_no_member_of_the_family() -> None:
    alone, untested = correct([PValues(0.02, {"a": 0.01}), PValues(None, {"a": math.nan})])
    assert alone.average == 0.02 and untested.average is None
    assert math.isnan(untested.benchmarks["a"])


def test_a_row_without_an_average_is_tested_by_its_smallest_p() -> None:
    row, other = correct([PValues(None, {"a": 0.004, "b": 0.5}), PValues(0.9, {})])
    assert row.average is None and other.average == 0.9
    assert row.benchmarks == pytest.approx({"a": 0.016, "b": 0.5})  # twice 0.004, times two rows


def test_false_marks_among_averages_and_within_a_row_are_rare() -> None:
    """All averages null but one; in the row of that one, half of the benchmarks are null."""
    rng = np.random.default_rng(1)
    averages = rows = 0
    studies = 3_000
    for _ in range(studies):
        nulls = [PValues(p, {"a": q}) for p, q in rng.random((6, 2))]
        within = {f"true{i}": 1e-5 for i in range(3)} | {f"null{i}": p for i, p in enumerate(rng.random(3))}
        found = correct([*nulls, PValues(1e-6, within)])
        averages += any(row.average is not None and row.average < 0.05 for row in found[:-1])
        rows += any(p < 0.05 for name, p in found[-1].benchmarks.items() if name.startswith("null"))
    slack = 3 * math.sqrt(0.05 * 0.95 / studies)
    assert 0.05 - slack < averages / studies < 0.05 + slack
    assert 0.05 - slack < rows / studies < 0.05 + slack


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == [] and correct([]) == []
