"""Sampling by Gumbel noise: the right distribution, row by row."""

from __future__ import annotations

import pytest
import torch

from stic_eval.models.sampling import Sampler, choose, nucleus
from stic_eval.types import Generation


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8)])
def test_samples_are_distributed_as_the_softmax(temperature: float, top_p: float) -> None:
    draws, vocabulary = 20_000, 12
    scores = torch.randn(vocabulary, generator=torch.Generator().manual_seed(5)) * 1.5
    samplers = [Sampler(Generation(1, temperature, top_p, seed)) for seed in range(draws)]
    chosen = choose(scores.repeat(draws, 1), samplers)
    expected = scores.div(temperature).softmax(-1)
    if top_p < 1:
        order = expected.argsort(descending=True)
        before = expected[order].cumsum(0) - expected[order]
        expected[order[before >= top_p]] = 0
        assert (expected == 0).any()
        expected /= expected.sum()
    observed = torch.bincount(chosen, minlength=vocabulary).double()
    allowed = expected > 0
    assert observed[~allowed].sum() == 0
    wanted = expected[allowed].double() * draws
    chi_square = ((observed[allowed] - wanted) ** 2 / wanted).sum().item()
    assert chi_square < 35  # with 11 degrees of freedom: p < 0.0003, for these fixed seeds


def test_successive_draws_of_a_row_are_independent() -> None:
    samplers = [Sampler(Generation(1, 1.0, seed=seed)) for seed in range(4000)]
    first, second = (choose(torch.zeros(4000, 2), samplers).double() for _ in range(2))
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.08


def test_nucleus_is_transformers_top_p() -> None:
    from transformers import TopPLogitsWarper

    scores = torch.randn(50, 40, generator=torch.Generator().manual_seed(1)) * 2
    for top_p in (0.05, 0.5, 0.95):
        assert torch.equal(nucleus(scores, top_p), TopPLogitsWarper(top_p)(None, scores))


def test_each_row_is_decoded_in_its_own_way() -> None:
    scores = torch.randn(1, 30, generator=torch.Generator().manual_seed(2)).repeat(4, 1)
    ways = [
        Generation(1),
        Generation(1, 1.5, seed=3),
        Generation(1, 0.7, 0.5, seed=3),
        Generation(1, 1.5, seed=3),
    ]
    together = choose(scores, [Sampler(how) for how in ways])
    alone = [choose(scores[:1], [Sampler(how)]) for how in ways]
    assert together.tolist() == [int(token) for token in alone]
    assert together[0] == scores[0].argmax()
    assert together[1] == together[3]
