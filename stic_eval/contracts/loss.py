"""The contract of a preference loss: log-probabilities of pairs in, a value for each pair out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Tensor = Any  # torch's, which contracts do not import


@dataclass(frozen=True)
class Logps:
    """What a loss may look at: tensors of shape (pairs,).

    Attributes:
        chosen: Log-probability of the preferred answer under the model that is trained, summed over its
            tokens, in nats.
        rejected: The same of the dispreferred answer.
        ref_chosen: `chosen` under the reference model; no gradient.
        ref_rejected: `rejected` under the reference model; no gradient.
        chosen_tokens: How many tokens the preferred answer has.
        rejected_tokens: How many the dispreferred one has.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor
    ref_rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def chosen_gain(self) -> Tensor:
        """The preferred answer's log p/p_ref."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_gain(self) -> Tensor:
        """The dispreferred answer's log p/p_ref."""
        return self.rejected - self.ref_rejected

    @property
    def margin(self) -> Tensor:
        """What DPO wants to be large: the gain of the one less the gain of the other."""
        return self.chosen_gain - self.rejected_gain

    @property
    def mean_margin(self) -> Tensor:
        """The same with each answer's gain divided by its tokens."""
        chosen, rejected = (tokens.clamp(min=1) for tokens in (self.chosen_tokens, self.rejected_tokens))
        return self.chosen_gain / chosen - self.rejected_gain / rejected


@dataclass(frozen=True)
class Loss:
    """A preference loss. Each pair's value depends on that pair alone: batch sizes change nothing.

    Attributes:
        name: What settings call it.
        compute: (`Logps`, beta, **constants) -> shape (pairs,); training takes the mean.
        title: Whose it is.
        constants: Constant -> (default, what it has to be above, what it has to be below).
    """

    name: str
    compute: Callable[..., Tensor]
    title: str = ""
    constants: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
