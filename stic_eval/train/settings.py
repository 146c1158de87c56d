"""What can be set about making pairs and about training, with the paper's values as defaults.

Light on purpose: methods nest these models in their own configuration, and nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stic_eval.corruptions import CORRUPTIONS


class Training(BaseModel):
    """How weights are trained: AdamW over whole epochs. Defaults: Deng et al. 2024.

    Attributes:
        learning_rate: Peak.
        batch_size: Rows in an optimiser step, all micro-batches together.
        epochs: Passes over the data.
        warmup_ratio: Share of the steps in which the rate rises linearly from 0.
        scheduler: How it goes on after that.
        weight_decay: Of AdamW.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    learning_rate: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    epochs: int = Field(default=1, ge=1)
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)

    def steps(self, rows: int) -> int:
        """Optimiser steps that training on so many rows takes."""
        return -(-rows // self.batch_size) * self.epochs


class PairSettings(BaseModel):
    """How preference pairs are made. Defaults: Deng et al. 2024 and their released code.

    Attributes:
        images: Unlabeled images, counted from the front (6k of MSCOCO train2014).
        p_corrupt: Probability that the dispreferred answer comes from a corrupted image rather than from
            a misleading prompt.
        corruptions: Kind (of `stic_eval.images.CORRUPTIONS`) -> its weight.
        temperature: Of sampling; 0 is greedy.
        top_p: Nucleus mass; off.
        max_new_tokens: Bound on a description.
        filter: `identical` drops pairs whose two answers are the same; the paper keeps all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    images: int = Field(default=6000, ge=1)
    p_corrupt: float = Field(default=0.5, ge=0, le=1)
    corruptions: dict[str, float] = Field(default_factory=lambda: {"low_res": 0.5, "jitter": 0.5})
    temperature: float = Field(default=0.2, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=1024, ge=1)
    filter: Literal["none", "identical"] = "none"

    @field_validator("corruptions")
    @classmethod
    def _known(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        for kind, weight in value.items():
            if kind not in CORRUPTIONS:
                raise ValueError(f"{kind} is no corruption (there are {', '.join(CORRUPTIONS)})")
            if weight < 0:
                raise ValueError(f"the weight of {kind} is negative")
        if not sum(value.values()) > 0:
            raise ValueError("give at least one kind a weight above 0")
        return value
