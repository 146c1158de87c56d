"""Which layers an adapter covers, on real model classes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from stic_eval.errors import UserError
from stic_eval.training.lora import LoraSettings, lora_config, target_modules

LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def llava(path: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(path)


def llava_next() -> Any:
    from transformers import (
        CLIPVisionConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        MistralConfig,
    )

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=32, **sizes)
    text = MistralConfig(vocab_size=64, num_key_value_heads=1, **sizes)
    return LlavaNextForConditionalGeneration(LlavaNextConfig(vision_config=vision, text_config=text))


def qwen() -> Any:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    text = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2}
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision))


def covered(model: Any) -> set[str]:
    from peft import get_peft_model

    found = get_peft_model(model, lora_config(model, LoraSettings(r=2, alpha=4)))
    names = {name.split(".lora_A")[0] for name, _ in found.named_parameters() if ".lora_A" in name}
    return {name.removeprefix("base_model.model.") for name in names}


@pytest.mark.parametrize("kind", ["llava", "llava_next", "qwen"])
def test_every_linear_layer_of_the_decoder_and_no_other(kind: str, tiny_vlm: Path) -> None:
    model = {"llava": lambda: llava(tiny_vlm), "llava_next": llava_next, "qwen": qwen}[kind]()
    decoder = {n for n, m in model.get_decoder().named_modules() if isinstance(m, torch.nn.Linear)}
    elsewhere = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    names = covered(model)
    assert len(names) == len(decoder) == 2 * len(LLAMA) < len(elsewhere)
    assert {name.rpartition(".")[2] for name in names} == LLAMA
    assert not [name for name in names if re.search("vision|visual|projector|merger|lm_head", name)]


def test_the_pattern_fits_other_nestings_of_the_decoder(tiny_vlm: Path) -> None:
    pattern = target_modules(llava(tiny_vlm))
    assert isinstance(pattern, str)
    for name in (
        "language_model.model.layers.0.mlp.up_proj",
        "model.language_model.layers.31.self_attn.q_proj",
    ):
        assert re.fullmatch(pattern, name)
    for name in ("vision_tower.encoder.layers.0.self_attn.q_proj", "lm_head", "language_model.lm_head"):
        assert not re.fullmatch(pattern, name)


def test_a_model_without_a_decoder_is_refused() -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=16, **sizes))
    with pytest.raises(UserError, match="no linear layer"):
        target_modules(model)


def test_defaults_are_the_papers() -> None:
    assert LoraSettings().model_dump() == {"r": 128, "alpha": 256, "dropout": 0.05}
