"""Images as a model's vision tower sees them: encoded once, kept, and handed to `forward` as they are.

transformers takes what `get_image_features` has given as `mm_encoder_outputs`: features of each image,
after the projector. They depend on the image alone as long as no adapter touches tower or projector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What the tower makes of the images of one request.

    Attributes:
        pooled: Tensors of shape (tokens, width), or one of shape (crops, tokens, width).
        stacked: Whether the model has them as one tensor rather than a list.
        deepstack: For each of the decoder's first layers, as `pooled`; empty in most models.
    """

    pooled: tuple[Tensor, ...]
    stacked: bool
    deepstack: tuple[tuple[Tensor, ...], ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        layers = (self.pooled, *self.deepstack)
        return sum(part.nbytes for layer in layers for part in layer)

    def to(self, device: Any, copy: bool = False) -> Features:
        """These on a device. A copy where they are there and it is asked for.

        A copy takes its own memory, where a slice keeps all of what it was cut out of.
        """
        layers = (self.pooled, *self.deepstack)
        moved = [tuple(part.to(device, copy=copy) for part in layer) for layer in layers]
        return Features(moved[0], self.stacked, tuple(moved[1:]))


def encoder(model: Any) -> Any:
    """The part of a model that encodes images, if `forward` takes what it gives; None if it does not."""
    inner: Any = getattr(model, "model", None)
    if not hasattr(inner, "get_image_features"):
        return None
    return inner if "mm_encoder_outputs" in signature(inner.forward).parameters else None


def encode(model: Any, inputs: Sequence[Mapping[str, Tensor]]) -> list[Features]:
    """Runs the tower.

    Args:
        model: A model with an `encoder`.
        inputs: For each request what its processor makes of the images, on the model's device. All have
            the same shapes.

    Returns:
        Features of each request's images.

    Raises:
        ValueError: They cannot be told apart.
    """
    import torch

    inner = encoder(model)
    takes = set(signature(inner.get_image_features).parameters)
    names = [name for name in inputs[0] if name in takes]
    together = {name: torch.cat([one[name] for one in inputs]) for name in names}
    output = inner.get_image_features(**together, return_dict=True)
    pooled, deep = output.pooler_output, getattr(output, "deepstack_features", None) or ()
    parts = _shares(pooled, len(inputs))
    layers = [_shares(layer, len(inputs)) for layer in deep]
    stacked = isinstance(pooled, torch.Tensor)
    return [Features(part, stacked, tuple(layer[n] for layer in layers)) for n, part in enumerate(parts)]


def join_features(features: Sequence[Features]) -> dict[str, Any]:
    """Features of requests, one after the other, as `forward` takes them for `mm_encoder_outputs`."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    pooled = [part for one in features for part in one.pooled]
    output: Any = BaseModelOutputWithPooling()
    output.pooler_output = torch.cat(pooled) if features[0].stacked else pooled
    if features[0].deepstack:
        layers = zip(*(one.deepstack for one in features), strict=True)
        output.deepstack_features = [[part for one in layer for part in one] for layer in layers]
    return {"image": output}


def text_decoder(model: Any) -> Any:
    """The text-only decoder, also of a model whose decoder itself holds a tower (a whole model within it)."""
    decoder = model.get_decoder()
    inner = getattr(decoder, "language_model", None)
    return decoder if inner is None else inner


def frozen(model: Any) -> bool:
    """Whether nothing of an adapter lies outside of the decoder and its head."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    head = model.get_output_embeddings()
    inside = {id(module) for module in text_decoder(model).modules()}
    inside |= {id(module) for module in head.modules()} if head is not None else set()
    added = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    return not any(isinstance(module, added) and id(module) not in inside for module in model.modules())


def _shares(whole: Any, count: int) -> list[tuple[Tensor, ...]]:
    """Equal shares of a list of tensors, or of a tensor along its first axis, as tuples."""
    size, rest = divmod(len(whole), count)
    if rest or not size:
        raise ValueError(f"{len(whole)} features for {count} images")
    if isinstance(whole, (list, tuple)):
        return [tuple(whole[n * size : (n + 1) * size]) for n in range(count)]
    return [(whole[n * size : (n + 1) * size],) for n in range(count)]
