"""LoRA in two operations a matrix instead of five or more, for generation.

On a GPU a step of decoding is bound by launches, and PEFT's layers make twice as many as the model has. The
sum is the same but for rounding: `y + (alpha / r) * (x A^T) B^T`, where the last product, its scale and the
sum are one operation. Nothing is merged into weights, which in 16 bits would lose what an adapter changes.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def fuse(model: Any) -> None:
    """Has an adapter's plain LoRA layers compute so in inference mode; the rest is PEFT's."""
    from peft.tuners.lora.layer import Linear
    from torch import nn

    for module in model.modules():
        # Subclasses compute otherwise, and so do DoRA and other variants.
        plain = type(module) is Linear and type(module.base_layer) is nn.Linear
        if plain and not (module.lora_variant or any(module.lora_bias.values())):
            module.forward = partial(_forward, module)


def _forward(module: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """As PEFT's own forward of a layer that has one adapter.

    Args:
        x: Shape (..., inputs).

    Returns:
        Shape (..., outputs), in the type of the weights.
    """
    import torch
    from torch.nn import functional as F

    active = [name for name in module.active_adapters if name in module.lora_A]
    plain = torch.is_inference_mode_enabled() and not (args or kwargs or module.merged)
    if not plain or module.disable_adapters or len(active) != 1:
        found: Tensor = type(module).forward(module, x, *args, **kwargs)
        return found
    (name,) = active
    down, up = module.lora_A[name], module.lora_B[name]
    own: Tensor = module.base_layer(x)
    wide = down.weight.dtype  # PEFT has adapters in float32 on weights of 16 bits, and computes in that
    inner = F.linear(x.to(wide), down.weight, down.bias).flatten(0, -2)
    total = own.flatten(0, -2).to(wide)
    fused = torch.addmm(total, inner, up.weight.t(), alpha=module.scaling[name])
    return fused.to(own.dtype).view(own.shape)
