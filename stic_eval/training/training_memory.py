"""How much of a step fits into the memory there is, and what to do where it does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stic_eval.errors import UserError
from stic_eval.models.free_memory import bytes_left, out_of_memory

# Of what is free: estimates are rough, other rows may be longer, and torch needs some itself.
_SHARE = 0.7
_SAMPLED = 8  # rows whose length is looked at
_OPTIMISER = 16  # bytes of a parameter that is trained: its gradient, AdamW's two moments, itself, in float32
_LOGITS = 12  # bytes of a scored token's logit: it, its gradient and log-probability, in float32


@dataclass(frozen=True)
class RowSize:
    """What a row of training puts through the model.

    Attributes:
        tokens: Of the longest sequence, its image included.
        scored: Tokens of it whose probability is asked.
        sequences: How many such there are: two of a pair.
    """

    tokens: int
    scored: int
    sequences: int = 1


@dataclass(frozen=True)
class StepFit:
    """How a step is computed so that it fits.

    Attributes:
        rows: Of a micro-batch, at most.
        checkpointing: Whether activations are computed twice rather than kept.
    """

    rows: int
    checkpointing: bool


def row_size(collate: Callable[[Sequence[Any]], Mapping[str, Any]], rows: Sequence[Any]) -> RowSize:
    """The size of the longest of some rows, taken at equal distances.

    Args:
        collate: Makes model input of rows: `input_ids`, and `labels` or a `completion_mask`.
        rows: All that are trained on.
    """
    found = []
    for at in range(0, len(rows), max(1, len(rows) // _SAMPLED)):
        batch = collate([rows[at]])
        labels = batch.get("labels")
        scored = batch["completion_mask"] != 0 if labels is None else labels != -100
        sequences, tokens = batch["input_ids"].shape
        found.append(RowSize(int(tokens), int(scored.sum(dim=1).max()), int(sequences)))
    return max(found, key=lambda one: one.tokens)


def activation_bytes(config: Any, row: RowSize, width: float, checkpointing: bool) -> float:
    """What is kept of a row between the forward and the backward pass, roughly and rather too much.

    Of each layer and token: the inputs of seven linear layers for their adapters, in float32 and with
    dropout's mask; norms, queries, keys, values and what attention gives; gate, up and their product. With
    checkpointing one layer of all that at a time, and each layer's input. Korthikanti et al. 2022
    (arXiv 2205.05198) count in the same way, without adapters.

    Args:
        config: Of the language model.
        width: Bytes of a weight, and of an activation beside float32 ones.
    """
    layers, hidden, inner = _shape(config)
    layer = (30 + 12 * width) * hidden + (5 + 4 * width) * inner
    if getattr(config, "_attn_implementation", None) == "eager":
        layer += int(config.num_attention_heads) * row.tokens * (4 + 2 * width)
    kept = layer + layers * hidden * width if checkpointing else layers * layer
    return row.sequences * (row.tokens * kept + row.scored * int(config.vocab_size) * _LOGITS)


def adapter_bytes(config: Any, rank: int) -> float:
    """What an adapter on every linear layer of a language model takes to be trained."""
    layers, hidden, inner = _shape(config)
    return layers * rank * (4 * 2 * hidden + 3 * (hidden + inner)) * _OPTIMISER


def _shape(config: Any) -> tuple[int, int, int]:
    """A language model's layers, its width, and the width between its feed-forward matrices, the largest."""
    hidden = int(config.hidden_size)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    return int(config.num_hidden_layers), hidden, max(inner) if isinstance(inner, Sequence) else int(inner)


def fit(
    config: Any, row: RowSize, *, rank: int, width: float, free: float, most: int, checkpointing: bool | None
) -> StepFit:
    """How a step is computed in the memory there is: activations are kept where one row's fit.

    Args:
        config: Of the language model.
        row: What goes through it.
        rank: Of the adapter.
        width: Bytes of a weight.
        free: Bytes that may be had, with the model in memory.
        most: Rows of a micro-batch that are worth having.
        checkpointing: Whether gradients are checkpointed; None: where they have to be.
    """
    left = _SHARE * free - adapter_bytes(config, rank)

    def rows(again: bool) -> int:
        return int(left / activation_bytes(config, row, width, again))

    again = rows(False) < 1 if checkpointing is None else checkpointing
    return StepFit(max(1, min(most, rows(again))), again)


def free_for_training(model: Any, device: Any, processes: int) -> float:
    """Bytes that a process may have for a step.

    Args:
        model: Whose weights count as well as long as they are not on the device: sharded, a part of them.
        device: Where it is trained.
        processes: That train together.
    """
    # On the CPU, the processes of a machine share its memory.
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if device.type == "cpu" else 1
    weights = [parameter for parameter in model.parameters() if parameter.device.type != device.type]
    return bytes_left(device) / here - float(sum(one.nbytes for one in weights)) / processes


@contextmanager
def advise(stage: str, model: Any, *, checkpointing: bool) -> Iterator[None]:
    """Turns running out of memory into a line that says what takes less of it.

    Raises:
        UserError: Memory was used up.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        device = next(model.parameters()).device
        ways = [] if checkpointing else ["--gradient-checkpointing"]
        if device.type == "cuda" and getattr(model, "hf_quantizer", None) is None:
            ways.append("--load-in-4bit")
        ways += ["a smaller lora.r", "a smaller max_length", "a smaller --model"]
        raise UserError(
            f"{stage}: does not fit in the memory of {device}; try {', '.join(ways[:-1])} or {ways[-1]}"
        ) from error
