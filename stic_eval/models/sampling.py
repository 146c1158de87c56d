"""Sampling whose outcome belongs to the request alone, whatever batch it is answered in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from stic_eval.types import Generation


class Sampler:
    """Draws the tokens of one request from a generator of its own.

    For logits z and independent standard Gumbel noise g, `argmax(z / T + g)` is distributed as
    softmax(z / T) (the Gumbel-max identity; Maddison et al. 2014, arXiv 1411.0030, section 2). A request
    draws its g from its own seed, one vector a token, so that neither the batch's other rows nor their
    order matter. transformers' own sampling draws a batch from one generator.

    The noise is drawn on the scores' device: the same seed gives other draws on a GPU than on a CPU.

    Args:
        generation: Temperature, nucleus and seed; greedy for a temperature of 0.
    """

    def __init__(self, generation: Generation) -> None:
        self.temperature, self.top_p = generation.temperature, generation.top_p
        self._seed = generation.seed
        self._generator: torch.Generator | None = None

    def draw(self, into: torch.Tensor) -> None:
        """Fills a vector with uniform noise, the next of this request."""
        import torch

        if self._generator is None:
            self._generator = torch.Generator(into.device).manual_seed(self._seed % (1 << 63))
        into.uniform_(generator=self._generator)


def choose(logits: torch.Tensor, samplers: Sequence[Sampler]) -> torch.Tensor:
    """The next token of each row, greedy or drawn.

    Args:
        logits: Float32, of shape (rows, vocabulary).
    """
    chosen = logits.argmax(dim=-1)
    groups: dict[tuple[float, float], list[int]] = defaultdict(list)
    for row, sampler in enumerate(samplers):
        if sampler.temperature > 0:
            groups[sampler.temperature, sampler.top_p].append(row)
    for (temperature, top_p), rows in groups.items():
        drawn = perturb(logits[rows], [samplers[row] for row in rows], temperature, top_p)
        chosen[rows] = drawn.argmax(dim=-1)
    return chosen


def finite(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Which rows have logits that a token can be chosen by: of shape (rows,), on the logits' device.

    The chosen one's says it for all: NaN is taken for the largest, as infinity is, and -inf is chosen only
    if there is nothing else. Of others, -inf is how a token is ruled out.

    Args:
        logits: Of shape (rows, vocabulary).
    """
    return logits.gather(-1, tokens[:, None])[:, 0].isfinite()


def perturb(
    scores: torch.Tensor, samplers: Sequence[Sampler], temperature: float, top_p: float
) -> torch.Tensor:
    """Scores of shape (rows, vocabulary) whose largest is an exact sample.

    Args:
        top_p: Nucleus mass: only the likeliest tokens that together reach it can be drawn; 1 is off.
    """
    import torch

    scores = scores.float() / temperature
    if top_p < 1:
        scores = nucleus(scores, top_p)
    noise = torch.empty_like(scores)
    for row, sampler in zip(noise, samplers, strict=True):
        sampler.draw(row)
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
