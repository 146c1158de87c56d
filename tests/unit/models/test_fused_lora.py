"""LoRA in fewer operations: PEFT's numbers in inference mode, PEFT's own code wherever else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stic_eval.models.fused_lora import fuse


class Two(nn.Module):
    """Two matrices behind each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 20), nn.Linear(20, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def adapted(dtype: torch.dtype = torch.float32, **more: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["first", "second"], **more})
    model = get_peft_model(Two().to(dtype), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.5)
    return model


class Counting(TorchDispatchMode):
    """How many operations are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if all(one.alias_info is None for one in func._schema.returns):
            self.found.append(func._schema.name)
        return func(*args, **(kwargs or {}))


def operations(call: Callable[[], Any]) -> int:
    with torch.inference_mode(), Counting() as counting:
        call()
    return len(counting.found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_numbers_are_pefts(dtype: torch.dtype) -> None:
    model, x = adapted(dtype), torch.randn(3, 5, 12, dtype=dtype)
    with torch.inference_mode():
        wanted, base = model(x), model.get_base_model()
        many = operations(lambda: model(x))
        fuse(model)
        torch.testing.assert_close(model(x), wanted, rtol=1e-5 if dtype == torch.float32 else 0.02, atol=1e-5)
        assert model(x).dtype == dtype
        assert operations(lambda: model(x)) < many
        if dtype == torch.float32:
            assert (operations(lambda: model(x)), many) == (6, 10)
        assert (model(x) - Two.forward(model.unload(), x)).abs().max() > 0.1
    assert not any(type(module).__module__.startswith("peft") for module in base.modules())


@pytest.mark.parametrize(
    "more",
    [{"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}, {"lora_dropout": 0.3}, {"r": 1}],
    ids=str,
)
def test_other_kinds_of_lora_are_what_they_were(more: dict[str, Any]) -> None:
    model, x = adapted(**more), torch.randn(2, 4, 12)
    with torch.inference_mode():
        wanted = model(x)
        fuse(model)
        torch.testing.assert_close(model(x), wanted)


def test_training_goes_through_peft() -> None:
    """The same gradients, dropout included; an adapter that is switched off is the base."""
    model, x = adapted(lora_dropout=0.5).train(), torch.randn(6, 12)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(1)
        model(x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    before = gradients()
    fuse(model)
    after = gradients()
    assert len(before) == 4 and all(map(torch.equal, before, after))
    with model.disable_adapter(), torch.inference_mode():
        base = model(x)
    with torch.inference_mode():
        torch.testing.assert_close(base, Two.forward(model.unload(), x))


def test_weights_that_are_changed_in_place_are_seen() -> None:
    model, x = adapted(), torch.randn(2, 12)
    fuse(model)
    with torch.inference_mode():
        before = model(x).clone()
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_B" in n).mul_(3)
    with torch.inference_mode():
        assert not torch.allclose(model(x), before)
