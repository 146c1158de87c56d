"""What rows weigh in a step, however they are dealt out among micro-batches and processes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.errors import UserError
from stic_eval.training.step_rows import StepRows, check_divides


def of_rows(how: StepRows, step: int) -> dict[int, float]:
    """Place in the step -> what it counts for in the loss, of all ranks together."""
    found: dict[int, float] = {}
    for rank in range(how.ranks):
        own = StepRows(how.rows, how.batch, how.micro, how.group, rank, how.ranks)
        micros = own.weights(step)
        for at, weights in enumerate(micros):
            for place, weight in enumerate(weights, (at * how.ranks + rank) * how.micro):
                if weight:
                    found[place] = weight / len(micros) / how.ranks
    return found


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.data())
def test_a_row_counts_alike_however_rows_are_dealt_out(
    rows: int, micro: int, ranks: int, accumulated: int, data: st.DataObject
) -> None:
    batch = micro * ranks * accumulated
    group = data.draw(st.sampled_from([n for n in range(1, batch + 1) if batch % n == 0]))
    how = StepRows(rows, batch, micro, group, 0, ranks)
    by_itself = StepRows(rows, batch, group, group)
    for step in range(how.steps):
        there = min(batch, rows - step * batch)
        found = of_rows(how, step)
        assert found == pytest.approx(of_rows(by_itself, step))
        assert len(found) == there and math.isclose(sum(found.values()), 1)
        if there == batch:
            assert found == pytest.approx(dict.fromkeys(range(batch), 1 / batch))


def test_micro_batches_of_one_process_are_means_as_they_were() -> None:
    how = StepRows(rows=10, batch=16, micro=8, group=8)
    assert how.weights(0) == [[1 / 8] * 8, [1 / 2] * 2]


def test_a_batch_that_cannot_be_parted_names_those_that_can() -> None:
    check_divides(16, 4, "preference")
    with pytest.raises(UserError) as error:
        check_divides(10, 4, "preference")
    said = str(error.value)
    assert said.startswith("preference: batch_size 10 cannot be divided evenly among 4 processes")
    assert "8 and 12" in said and "--gpus 2" in said
    with pytest.raises(UserError, match="the nearest that can: 8; or train with 3 "):
        check_divides(3, 8, "sft")
