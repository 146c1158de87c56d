"""Which weights are trained: LoRA on every linear layer of the language model, and on nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.errors import UserError
from stic_eval.models.vision import text_decoder

if TYPE_CHECKING:
    from peft import LoraConfig


# Weights have fewer rows and columns; a rank costs memory before anything can be trained.
MOST_RANK = 16_384


class LoraSettings(BaseModel):
    """Size of the adapter. Defaults: Deng et al. 2024 and their released code.

    Attributes:
        r: Rank.
        alpha: Scale; updates are multiplied by alpha / r.
        dropout: On the adapter's input while fine-tuning; preference training switches it off.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    r: int = Field(default=128, ge=1, le=MOST_RANK)
    alpha: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)


def target_modules(model: Any) -> str | list[str]:
    """Names of the decoder's linear layers: not the head, the vision tower or the projector.

    A pattern rather than a list where one fits: it is short, and independent of how deep a version of
    transformers nests the decoder (`language_model.model.layers`, `model.language_model.layers`).

    Returns:
        What `LoraConfig.target_modules` takes: a pattern that is matched against whole names, or names.

    Raises:
        UserError: The model has no decoder, or one without linear layers.
    """
    from torch import nn

    decoder = text_decoder(model)
    prefix = next((name for name, module in model.named_modules() if module is decoder and name), None)
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    head = model.get_output_embeddings()
    heads = {name for name, module in model.named_modules() if module is head}
    wanted = {name for name in linear - heads if prefix and name.startswith(f"{prefix}.")}
    if prefix is None or not wanted:
        raise UserError(f"{type(model).__name__}: its language model has no linear layer to adapt")
    last = prefix.rpartition(".")[2]
    leaves = sorted({name.rpartition(".")[2] for name in wanted})
    pattern = rf"(?:.*\.)?{re.escape(last)}\.(?:.*\.)?(?:{'|'.join(map(re.escape, leaves))})"
    if {name for name in linear if re.fullmatch(pattern, name)} == wanted:
        return pattern
    return sorted(wanted)


def lora_config(model: Any, settings: LoraSettings) -> LoraConfig:
    """The adapter's configuration for a model.

    Raises:
        UserError: As `target_modules`.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target_modules(model),
        bias="none",
        task_type="CAUSAL_LM",
    )
