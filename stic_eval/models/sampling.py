"""Sampling whose outcome belongs to the request alone, whatever batch it is answered in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class GumbelSampler:
    """A logits processor after which greedy decoding is exact sampling, with a generator a row.

    For logits z and independent standard Gumbel noise g, `argmax(z / T + g)` is distributed as
    softmax(z / T) (the Gumbel-max identity; Maddison et al. 2014, arXiv 1411.0030, section 2). Each row
    draws its g from a generator of its own seed, one vector a step, so that neither the batch's
    other rows nor their order matter. transformers' own sampling draws a batch from one generator.

    The noise is drawn on the scores' device: the same seed gives other draws on a GPU than on a CPU.

    Args:
        seeds: One for each row.
        temperature: Positive.
        top_p: Nucleus mass: only the likeliest tokens that together reach it can be drawn; 1 is off.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float = 1.0) -> None:
        self._seeds, self._temperature, self._top_p = list(seeds), temperature, top_p
        self._generators: list[torch.Generator] | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Warps scores of shape (rows, vocabulary) and adds the noise."""
        import torch

        if self._generators is None:
            self._generators = [
                torch.Generator(scores.device).manual_seed(seed % (1 << 63)) for seed in self._seeds
            ]
        scores = scores.float() / self._temperature
        if self._top_p < 1:
            scores = nucleus(scores, self._top_p)
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self._generators, strict=True):
            row.uniform_(generator=generator)
        # u may be 0, for which the noise is -inf: right, and no NaN unless the score is +inf.
        return scores - torch.log(-torch.log(noise))


def nucleus(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """Sets to -inf all but the likeliest tokens whose probabilities first reach `top_p` (Holtzman 2020).

    Args:
        scores: Logits of shape (rows, vocabulary).
        top_p: Between 0 and 1.
    """
    ordered, index = scores.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    # The mass before a token decides, so the likeliest token always stays.
    before = probabilities.cumsum(dim=-1) - probabilities
    ordered = ordered.masked_fill(before >= top_p, float("-inf"))
    return ordered.gather(-1, index.argsort(dim=-1))
