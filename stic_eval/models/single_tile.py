"""Images as one padded tile each: how LLaVA's and STIC's trainers show them, whatever a model generates from.

LLaVA-NeXT's processor gives an ordinary photograph some 2,000 to 3,000 features: a tile of the whole and
several of its parts. The released trainers pad it to a square with the processor's mean colour and resize
that to one tile, with one feature a patch (576 of 336 px in patches of 14) and no embedding behind rows of
patches. No setting of the processor gives that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stic_eval.errors import UserError
from stic_eval.images import square

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_SEVERAL, FAMILIES = "llava_next", ("llava", "llava_next")


def check_single_tile(config: Any) -> None:
    """Refuses a model whose images are no square tiles that a projector takes patch by patch.

    Args:
        config: What its `config.json` holds.

    Raises:
        UserError: Names the model's type.
    """
    kind, tower = config.get("model_type"), config.get("vision_config") or {}
    if kind not in FAMILIES or tower.get("model_type") == "pixtral":
        named = f"{kind} with {tower['model_type']}" if kind in FAMILIES else str(kind)
        raise UserError(
            f"training.images=single_tile: {named} has no single tile, only LLaVA and LLaVA-NeXT have; set "
            "-o training.images=as_generated"
        )


class SingleTile:
    """A LLaVA's processor that gives one padded tile an image; otherwise as the model's own."""

    def __init__(self, processor: Any) -> None:
        self._own = processor
        mean = processor.image_processor.image_mean
        self.color = (int(255 * mean[0]), int(255 * mean[1]), int(255 * mean[2]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def __call__(self, *, text: Sequence[str], images: Sequence[Sequence[Image]], **how: Any) -> Any:
        """Model input of prompts with an image each.

        Args:
            text: Prompts, the image's place marked in each.
            images: One for each prompt.
            **how: As the tokenizer takes it.

        Returns:
            What the tokenizer gives, and `pixel_values` of shape (images, 3, side, side).
        """
        tiles = self.tiles([image for own in images for image in own])
        # As many places as the tower has features: patches, and a class token that is kept or left out.
        patches = (tiles.shape[-2] // self._own.patch_size) * (tiles.shape[-1] // self._own.patch_size)
        more = self._own.num_additional_image_tokens
        more -= self._own.vision_feature_select_strategy == "default"
        place: str = self._own.image_token
        prompts = [prompt.replace(place, place * (patches + more)) for prompt in text]
        return {**self._own.tokenizer(prompts, **how), "pixel_values": tiles}

    def tiles(self, images: Sequence[Image]) -> Tensor:
        """Pixels of shape (images, 3, side, side), resized and normalized by the model's image processor."""
        import torch

        own = self._own.image_processor
        padded = [square(image.convert("RGB"), self.color) for image in images]
        if not hasattr(own, "image_grid_pinpoints"):
            return torch.as_tensor(own(padded, return_tensors="pt")["pixel_values"])
        # The first tile is all of the image. Of a grid of one tile there is a second one, the same again.
        side = own.crop_size["height"]
        pixels = own(padded, image_grid_pinpoints=[[side, side]], return_tensors="pt")["pixel_values"]
        return torch.as_tensor(pixels[:, 0])


@contextmanager
def features_of_tiles(model: Any) -> Iterator[None]:
    """Makes a LLaVA-NeXT encode single tiles as LLaVA does: tower and projector, one feature a patch.

    Its own way takes several tiles an image, and puts an embedding behind rows of patches.

    Args:
        model: The model; it is left as it was. A LLaVA has nothing else anyway.
    """
    if model.config.model_type != _SEVERAL:
        yield
        return
    from transformers.models.llava.modeling_llava import LlavaModel

    inner = model.model

    def get_image_features(pixel_values: Tensor, image_sizes: Any = None, **how: Any) -> Any:
        return LlavaModel.get_image_features(inner, pixel_values, **how)

    inner.get_image_features = get_image_features
    try:
        yield
    finally:
        del inner.get_image_features
