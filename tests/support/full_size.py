"""Models of the real classes with tiny random weights behind the published processors.

What they are asked costs little, and images have as many tokens as they have for the published models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw

Kind = Literal["llava", "llava_next"]

SIDE, PATCH = 336, 14
TILES = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]  # as published with LLaVA-NeXT
# (width, height) of ten common photographs, and the image tokens that LLaVA-NeXT's processor gives them.
SIZES = {
    (640, 480): 2340, (480, 640): 2352, (640, 427): 2144, (500, 375): 2340, (375, 500): 2352,
    (1024, 683): 2144, (350, 500): 2256, (640, 640): 2928, (612, 612): 2928, (640, 320): 1752,
}  # fmt: skip


# Besides the end of a turn so many bytes end an answer: random weights would go on to the bound.
_MORE_ENDS = 48


def build(folder: Path, kind: Kind, vlm: Path, seed: int = 0) -> Path:
    """Saves a model with a tiny LLaVA's tokenizer and template, and the published processor.

    Args:
        folder: Where to.
        kind: Its class.
        vlm: A tiny LLaVA, for its tokenizer.
        seed: Of the weights.
    """
    import torch
    from transformers import AutoProcessor, CLIPVisionConfig, LlamaConfig

    other = AutoProcessor.from_pretrained(vlm)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, projection_dim=16, **sizes)
    text = LlamaConfig(
        vocab_size=len(other.tokenizer), max_position_embeddings=8192, bos_token_id=0, eos_token_id=1,
        pad_token_id=2, **sizes,
    )  # fmt: skip
    model, processor = _classes(kind, vision, text, other, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Wild enough that answers do not go round in circles.
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "vision_tower" not in name:
                torch.nn.init.normal_(parameter, std=1.0)
    model.generation_config.pad_token_id = 2
    model.generation_config.eos_token_id = [1, *range(4, 4 + _MORE_ENDS)]
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _classes(kind: Kind, vision: Any, text: Any, other: Any, seed: int) -> tuple[Any, Any]:
    import torch
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextProcessor,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    common = {
        "patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
        "chat_template": other.chat_template,
    }  # fmt: skip
    parts: dict[str, Any] = {"vision_config": vision, "text_config": text, "image_token_index": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "llava":
            config: Any = LlavaConfig(**parts, image_seq_length=576, pad_token_id=2)
            processor = LlavaProcessor(CLIPImageProcessorPil(**size), other.tokenizer, **common)
            return LlavaForConditionalGeneration(config), processor
        config = LlavaNextConfig(**parts, image_grid_pinpoints=TILES)
        images = LlavaNextImageProcessorPil(**size, image_grid_pinpoints=TILES)
        return LlavaNextForConditionalGeneration(config), LlavaNextProcessor(
            images, other.tokenizer, **common
        )


def photograph(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A picture with the shading, edges and grain of a photograph."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    picture = small.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(4):
        x, y = int(random.integers(0, size[0])), int(random.integers(0, size[1]))
        colour = tuple(random.integers(0, 256, 3).tolist())
        pen.ellipse((x, y, x + size[0] // 5, y + size[1] // 4), fill=colour)
    grain = np.asarray(picture).astype(int) + random.integers(-8, 9, (size[1], size[0], 3))
    return Image.fromarray(grain.clip(0, 255).astype(np.uint8))


def save_photographs(folder: Path, sizes: list[tuple[int, int]] | None = None) -> Path:
    """Saves a photograph of each size as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes or SIZES):
        photograph(size, number).save(folder / f"{number}.jpg", quality=92)
    return folder
