"""What of a step fits: counted for shapes of real models, none of which is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from stic_eval.training import training_loop
from stic_eval.training.training_memory import RowSize, StepFit, activation_bytes, fit, row_size

SEVEN_B = LlamaConfig()  # Llama 7B's shapes are its defaults
PAIR = RowSize(tokens=1024, scored=300, sequences=2)
ITEM = RowSize(tokens=1500, scored=400)
GIB = 2.0**30


def fitted(row: RowSize, gib: float, checkpointing: bool | None = None, config: Any = SEVEN_B) -> StepFit:
    return fit(config, row, rank=128, width=2, free=gib * GIB, most=8, checkpointing=checkpointing)


def test_activations_are_kept_where_there_is_room() -> None:
    # 7B in bfloat16 leaves 66 GiB of 80, 10 of 24, and 126 of 140.
    assert fitted(PAIR, 66) == StepFit(1, False)
    assert fitted(PAIR, 10).checkpointing
    assert fitted(PAIR, 126).rows >= 2 and not fitted(PAIR, 126).checkpointing
    assert fitted(ITEM, 126).rows > fitted(PAIR, 126).rows
    assert fitted(PAIR, 66, checkpointing=True).rows == 8
    assert fitted(PAIR, 10, checkpointing=False) == StepFit(1, False)  # as it was asked for


def test_a_small_model_takes_as_many_rows_as_are_worth_it() -> None:
    tiny = LlamaConfig(hidden_size=256, intermediate_size=688, num_hidden_layers=4, vocab_size=512)
    assert fitted(RowSize(300, 40, 2), 2, config=tiny) == StepFit(8, False)


def test_what_is_kept_grows_with_the_row_and_shrinks_with_checkpointing() -> None:
    def of(row: RowSize, again: bool) -> float:
        return activation_bytes(SEVEN_B, row, 2, again)

    assert of(PAIR, False) > 10 * of(PAIR, True)
    assert of(PAIR, False) == 2 * of(RowSize(1024, 300), False)
    eager = LlamaConfig(attn_implementation="eager")
    assert activation_bytes(eager, PAIR, 2, False) > of(PAIR, False)


def test_the_longest_of_some_rows_is_measured() -> None:
    def collate(rows: Any) -> dict[str, torch.Tensor]:
        (length,) = rows
        ids = torch.zeros(2, length, dtype=torch.long)
        return {"input_ids": ids, "completion_mask": ids.new_ones(2, length).tril(-1)}

    found = row_size(collate, [5, 3, 9, 4])
    assert found == RowSize(tokens=9, scored=1, sequences=2)


@pytest.fixture
def process_group() -> Iterator[None]:
    from torch import distributed

    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_a_sharded_adapter_is_put_together() -> None:
    """By one process: what several would hold parts of has the same type there."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    model = torch.nn.Linear(4, 6, bias=False)
    whole = model.weight.detach().clone()
    sharded = distribute_tensor(whole, init_device_mesh("cpu", (1,)), [Shard(0)])
    model.weight = torch.nn.Parameter(sharded)
    model.register_parameter("frozen", torch.nn.Parameter(torch.ones(2), requires_grad=False))
    trainer = SimpleNamespace(
        model=model, is_deepspeed_enabled=False, accelerator=SimpleNamespace(unwrap_model=lambda found: found)
    )
    found = training_loop.whole_adapter(trainer)
    assert found.keys() == {"weight"} and type(found["weight"]) is torch.Tensor
    assert torch.equal(found["weight"], whole)
