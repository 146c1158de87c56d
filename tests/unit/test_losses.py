"""The preference loss against numbers worked out from the paper's formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.train.losses import regularized_dpo_loss, regularizer, runner_up


def by_hand(w: float, lo: float, rw: float, rl: float, beta: float, alpha: float) -> float:
    return math.log(1 + math.exp(-beta * ((w - rw) - (lo - rl)))) - alpha * w


def test_each_pair_has_the_papers_loss() -> None:
    w, lo = [-12.0, -80.5, -3.25], [-14.0, -60.0, -3.25]
    rw, rl = [-13.0, -80.0, -3.25], [-13.5, -62.0, -3.25]
    loss = regularized_dpo_loss(*map(torch.tensor, (w, lo, rw, rl)), beta=0.1, alpha=1 / 1024)
    expected = [by_hand(*values, 0.1, 1 / 1024) for values in zip(w, lo, rw, rl, strict=True)]
    assert loss.shape == (3,)
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)
    # Worked out once outside of this program: log(1 + e^-0.15) + 12/1024.
    assert loss[0].item() == pytest.approx(0.6209571 + 0.01171875, abs=1e-6)


def test_without_alpha_it_is_dpo_and_starts_at_log_two() -> None:
    same = torch.tensor([-5.0, -9.0])
    assert regularized_dpo_loss(same, same, same, same, beta=0.3, alpha=0.0).tolist() == pytest.approx(
        [math.log(2)] * 2
    )


def test_gradients_push_the_answers_apart() -> None:
    w, lo = (torch.tensor([-5.0], requires_grad=True) for _ in range(2))
    ref = torch.tensor([-5.0])
    regularized_dpo_loss(w, lo, ref, ref, beta=0.1, alpha=0.25).sum().backward()
    assert w.grad is not None
    assert lo.grad is not None
    assert w.grad.item() == pytest.approx(-0.1 * 0.5 - 0.25)
    assert lo.grad.item() == pytest.approx(0.1 * 0.5)


def test_half_precision_is_computed_in_float32() -> None:
    low = torch.tensor([-1000.0], dtype=torch.bfloat16)
    loss = regularized_dpo_loss(low, low, low, low, beta=0.1, alpha=1 / 1024)
    assert loss.dtype == torch.float32
    assert regularizer(low, alpha=1 / 1024).dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2) + 1000 / 1024)


def test_the_regulariser_can_be_a_mean_over_tokens() -> None:
    logps, tokens = torch.tensor([-12.0, -3.0, 0.0]), torch.tensor([4, 1, 0])
    assert regularizer(logps, alpha=0.5).tolist() == [6.0, 1.5, 0.0]
    assert regularizer(logps, alpha=0.5, tokens=tokens).tolist() == [1.5, 1.5, 0.0]


@given(st.data())
def test_a_runner_up_is_the_likeliest_token_that_the_answer_does_not_have(data: st.DataObject) -> None:
    vocabulary = data.draw(st.integers(2, 7))
    rows = data.draw(st.lists(st.permutations(range(vocabulary)), min_size=1, max_size=5))
    labels = [data.draw(st.integers(0, vocabulary - 1)) for _ in rows]
    found = runner_up(torch.tensor(rows, dtype=torch.float32), torch.tensor(labels)).tolist()
    for logits, label, token in zip(rows, labels, found, strict=True):
        others = {i: value for i, value in enumerate(logits) if i != label}
        assert token == max(others, key=others.__getitem__)
