"""What work takes by a GPU's figures, and how long so many workers are at it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from stic_eval.engines import costs
from stic_eval.engines.costs import Answers, Rows, Size
from stic_eval.experiment.estimates import makespan

SEVEN = Size(7.06e9)
A100 = costs.gpu_of("NVIDIA A100-SXM4-80GB")


@dataclass(frozen=True)
class Task:
    id: str
    needs: tuple[str, ...] = ()
    group: str = ""


def test_a_model_of_7b_has_its_usual_measures() -> None:
    assert SEVEN.hidden == pytest.approx(4096, rel=0.05)
    assert SEVEN.layers == pytest.approx(32, rel=0.05)
    assert SEVEN.cached == pytest.approx(2 * 32 * 4096 * 2, rel=0.1)


def test_a_gpu_is_known_by_its_drivers_name() -> None:
    assert A100 is not None and A100.memory == 80e9
    small = costs.gpu_of("NVIDIA A100-PCIE-40GB", 40e9)
    assert small is not None and (small.memory, small.flops) == (40e9, A100.flops)
    assert costs.gpu_of("GeForce GT 710") is None


def test_decoding_goes_by_what_bounds_it() -> None:
    assert A100 is not None
    one = Answers(1, 640, 100, adapter=True)
    prompt = 2 * SEVEN.parameters * 640 / (A100.flops * costs.PREFILL)
    # One row: to launch the operations of 33 layers with adapters takes longer than to read the weights.
    read = (SEVEN.parameters * 2 + SEVEN.cached * 690) / (A100.bandwidth * costs.BANDWIDTH)
    launched = SEVEN.layers * costs.WITH_ADAPTER * costs.LAUNCH
    assert launched > read
    assert costs.seconds_of_answers(one, SEVEN, A100) == pytest.approx(prompt + 100 * launched)
    assert costs.seconds_of_answers(one, SEVEN, A100, graphs=True) == pytest.approx(prompt + 100 * read)
    assert costs.seconds_of_answers(Answers(1, 640, 100), SEVEN, A100) == pytest.approx(prompt + 100 * read)
    # Rows that are decoded together cost little more than one.
    many = Answers(100, 640, 100)
    assert costs.seconds_of_answers(many, SEVEN, A100) < 12 * costs.seconds_of_answers(one, SEVEN, A100)
    assert costs.rows_at_once(many, SEVEN, A100) == 100


def test_a_pair_costs_two_rows_and_their_reference() -> None:
    assert A100 is not None
    row = costs.seconds_of_rows(Rows(1, 790), SEVEN, A100)
    assert row == pytest.approx(6 * SEVEN.parameters * 790 / (A100.flops * costs.TRAINING))
    assert costs.seconds_of_rows(Rows(1, 790, 2, reference=True), SEVEN, A100) == pytest.approx(
        row * 2 * 8 / 6
    )


def test_stages_that_wait_for_each_other_are_not_made_faster_by_workers() -> None:
    chain = [Task("a"), Task("b", ("a",)), Task("c", ("b", "cached"))]
    apart = [Task("d"), Task("e", (), "one"), Task("f", (), "one")]
    seconds = dict.fromkeys("abcdef", 10.0)
    assert makespan(chain, seconds, 8) == 30.0
    assert makespan(apart, seconds, 8) == 20.0
    assert makespan([*chain, *apart], seconds, 1) == 60.0
    assert makespan([*chain, *apart], seconds, 2) == 30.0
    assert makespan([], seconds, 2) == 0.0
