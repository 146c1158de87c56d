"""What can be set about making pairs and about training, with the paper's values as defaults.

Light on purpose: methods nest these models in their own configuration, and nothing here needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stic_eval import registry
from stic_eval.contracts.loss import Loss

# Losses of TRL whose value of a pair depends on the other pairs of its micro-batch.
_NOT_PER_PAIR = {
    "aot": "sorts the pairs of a micro-batch, so its size would change what is learned",
    "aot_unpaired": "sorts the answers of a micro-batch, so its size would change what is learned",
    "sft": "is a mean over the tokens of a micro-batch; set alpha above 0, with alpha_over=token_mean",
}
MOST = 10**9  # images or items that anyone may ask for
_DIGITS = 12  # of a weight: beyond them is rounding, by which equal mixes must not differ


def share(asked: int, fraction: float, available: int) -> int:
    """How many images or items are taken, from the front.

    Args:
        asked: How many the settings name; all of them if `fraction` is 1.
        fraction: Part of these, above 0.
        available: How many there are. With fewer than asked, the part is one of what there is, so that
            half the data is half of it. 0 stands for not known yet: the part of it is left open.

    Returns:
        A number that may be larger than `available` only if it is `asked`.
    """
    if fraction == 1 or available == 0:
        return asked
    # As written in decimals: a tenth of 30 is 3, and not a rounding error more.
    return math.ceil(Fraction(str(fraction)) * min(asked, available))


class Training(BaseModel):
    """How weights are trained: AdamW over whole epochs. Defaults: Deng et al. 2024.

    Attributes:
        learning_rate: Peak.
        batch_size: Rows in an optimiser step, all micro-batches together.
        warmup_ratio: Share of the steps in which the rate rises linearly from 0; of a single step none.
        scheduler: How it goes on after that.
        weight_decay: Of AdamW.
        max_length: Text tokens of a row, prompt and answers; images do not count, and longer rows lose their
            end. None: no limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    epochs: int = Field(default=1, ge=1)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_length: int | None = Field(default=None, ge=1)

    def steps(self, rows: int) -> int:
        """Optimiser steps that training on so many rows takes."""
        return -(-rows // self.batch_size) * self.epochs


class Describing(BaseModel):
    """How a model is asked to describe. Defaults: Deng et al. 2024 and their released code.

    Attributes:
        temperature: Of sampling; 0 is greedy.
        top_p: Nucleus mass; off.
        max_new_tokens: Bound on a description.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    temperature: float = Field(default=0.2, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=1024, ge=1)


class PairFilter(BaseModel):
    """Which pairs are dropped.

    Attributes:
        filter: `none` keeps all. `identical` drops pairs whose two answers are the same. `near_duplicates`
            those whose answers are alike by `similarity`, the same ones included. `length_balance` those
            whose answers' lengths differ by more than `length_ratio`.
        similarity: From which similarity on two answers are near duplicates: 1 less the Levenshtein
            distance in characters over the longer one's length.
        length_ratio: How many times the words of the other an answer may have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    filter: Literal["none", "identical", "near_duplicates", "length_balance"] = "none"
    similarity: float = Field(default=0.95, gt=0, le=1)
    length_ratio: float = Field(default=1.5, ge=1, allow_inf_nan=False)


class DifferentPairs(PairFilter):
    """Pairs of two different answers, as most methods have them."""

    filter: Literal["none", "identical", "near_duplicates", "length_balance"] = "identical"


def _weights(value: Mapping[str, float], known: registry.Registry[Any]) -> Mapping[str, float]:
    """Weights by name, looked at; ends as well where a plug-in of that name cannot be loaded."""
    for kind, weight in value.items():
        if kind not in known.names():
            there = f"{registry.suggest(kind, known.names())} (there are {', '.join(known.names())})"
            raise ValueError(f"{kind} is not a {known.kind}{there}")
        known.get(kind)
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight of {kind} is {'negative' if weight < 0 else 'no number'}")
    if not sum(value.values()) > 0:
        raise ValueError("give at least one kind a weight above 0")
    return value


class PairSettings(PairFilter, Describing):
    """How preference pairs are made. Defaults: Deng et al. 2024 and their released code; all pairs are kept.

    Attributes:
        images: Unlabeled images, counted from the front (6k of MSCOCO train2014).
        fraction: Part of these images (of those that there are, if fewer).
        chosen_prompt: What asks for the preferred answer: the step-by-step prompt, or the same plain one
            that is trained on, so that the two answers differ by what spoils the other alone.
        p_corrupt: Probability that the dispreferred answer comes from a corrupted image rather than from
            a misleading prompt.
        corruptions: Kind (of `stic_eval.corruptions`, or a plug-in's) -> its weight.
    """

    images: int = Field(default=6000, ge=1, le=MOST)
    fraction: float = Field(default=1.0, gt=0, le=1)
    chosen_prompt: Literal["step_by_step", "plain"] = "step_by_step"
    p_corrupt: float = Field(default=0.5, ge=0, le=1)
    corruptions: dict[str, float] = Field(default_factory=lambda: {"low_res": 0.5, "jitter": 0.5})

    @field_validator("corruptions")
    @classmethod
    def _check_weights(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        return _weights(value, registry.corruptions())

    @property
    def mix(self) -> dict[str, float]:
        """The corruptions that occur, with their probabilities: weights of any scale, written in one way."""
        total = sum(self.corruptions.values())
        shares = {kind: round(weight / total, _DIGITS) for kind, weight in self.corruptions.items()}
        return {kind: value for kind, value in shares.items() if value > 0}


class PreferenceLoss(BaseModel):
    """The loss of preference training. Defaults: Deng et al. 2024 and their released code.

    Attributes:
        beta: How strongly the model is held to the reference.
        alpha: Weight of the regulariser, `-alpha * log p(y_g)`.
        alpha_over: Whether log p(y_g) in it is the sum over the answer's tokens, or their mean.
        rejected_logp: Which tokens the log-probabilities of the dispreferred answer are of: `label`, its
            own, as in the paper; `runner_up`, what each model itself holds most likely at each of its
            positions (second most likely where that is the answer's token), as in the released code.
        loss: What is minimised beside the regulariser: a loss by name (one of `losses`, or a plug-in's), or
            losses with their weights.
        loss_constants: Constants of these losses that depart from their defaults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    beta: float = Field(default=0.1, gt=0)
    alpha: float = Field(default=1 / 1024, ge=0)
    alpha_over: Literal["sum", "token_mean"] = "sum"
    rejected_logp: Literal["label", "runner_up"] = "label"
    loss: str | dict[str, float] = "sigmoid"
    loss_constants: dict[str, float] = Field(default_factory=dict)

    @field_validator("loss")
    @classmethod
    def _per_pair(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        weights = {value: 1.0} if isinstance(value, str) else value
        for name in weights:
            if name in _NOT_PER_PAIR and name not in registry.losses().names():
                raise ValueError(f"{name} {_NOT_PER_PAIR[name]}")
        _weights(weights, registry.losses())
        return value

    @model_validator(mode="after")
    def _constants(self) -> Self:
        # Without any, nothing is looked up: defaults are made when a method is imported.
        parts = [loss for _, loss in self.parts()] if self.loss_constants else []
        known = dict.fromkeys(name for loss in parts for name in loss.constants)
        for name, value in self.loss_constants.items():
            if name not in known:
                there = f"there are {', '.join(known)}" if known else "there are none"
                raise ValueError(f"loss_constants: {self.loss_title} has no {name} ({there})")
            for _, above, below in (loss.constants[name] for loss in parts if name in loss.constants):
                if not above < value < below:
                    raise ValueError(f"loss_constants: {name} has to be above {above:g} and below {below:g}")
        return self

    @property
    def loss_weights(self) -> dict[str, float]:
        """The losses that count, with their weights."""
        given = {self.loss: 1.0} if isinstance(self.loss, str) else self.loss
        return {name: weight for name, weight in sorted(given.items()) if weight > 0}

    @property
    def loss_title(self) -> str:
        """For people, e.g. `ipo` or `0.8 sigmoid + 0.2 bco_pair`."""
        return " + ".join(f"{w:g} {name}" if w != 1 else name for name, w in self.loss_weights.items())

    def parts(self) -> list[tuple[float, Loss]]:
        """The losses that count, each behind its weight."""
        return [(weight, registry.losses().get(name)) for name, weight in self.loss_weights.items()]

    def constants_of(self, loss: Loss) -> dict[str, float]:
        """The constants of one of the losses."""
        return {name: self.loss_constants.get(name, limits[0]) for name, limits in loss.constants.items()}


class PreferenceTraining(PreferenceLoss, Training):
    """Preference training by DPO (Rafailov et al. 2023) alone, as most methods have it: no regulariser."""

    alpha: float = Field(default=0.0, ge=0)


class FineTuning(Training):
    """How a model is tuned on its own instruction data. Defaults: Deng et al. 2024, stage 2.

    Attributes:
        items: Items with an image, counted from the front; 0 leaves fine-tuning out.
        fraction: Part of these items (of those that there are, if fewer).
    """

    items: int = Field(default=5000, ge=0, le=MOST)  # paper and released code
    fraction: float = Field(default=1.0, gt=0, le=1)
    learning_rate: float = Field(default=2e-5, gt=0)  # paper and released code
    batch_size: int = Field(default=64, ge=1)  # paper; 32 in the released code
    max_length: int | None = Field(default=1472, ge=1)  # paper: 2,048 with the 576 tokens of an image
