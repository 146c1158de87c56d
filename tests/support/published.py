"""LLaVA checkpoints in their published shapes: configurations, vocabulary and processors in full size.

Weights are tiny and random where there are any; nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.conftest import CHAT_TEMPLATE
from tests.support.zoo_parts import chatml

# What llava-hf's checkpoints write, each in a template of our own.
VICUNA = CHAT_TEMPLATE
MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} [/INST]"
    "{% else %}{{ ' ' + message['content'][0]['text'] + '</s> ' }}{% endif %}{% endfor %}"
)
CHATML = chatml("<image>\n")
LLAMA3 = (
    "{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\\n' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
)
GRID = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
_TOWER = {
    "image_size": 336, "patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "projection_dim": 768, "vocab_size": 32000,
    "model_type": "clip_vision_model",
}  # fmt: skip
_DECODERS: Mapping[str, dict[str, Any]] = {
    "vicuna-7b": {"model_type": "llama", "vocab_size": 32064},
    "vicuna-13b": {
        "model_type": "llama", "vocab_size": 32064, "hidden_size": 5120, "intermediate_size": 13824,
        "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 40,
    },
    "mistral-7b": {
        "model_type": "mistral", "vocab_size": 32064, "intermediate_size": 14336, "num_key_value_heads": 8,
    },
    "yi-34b": {
        "model_type": "llama", "vocab_size": 64064, "hidden_size": 7168, "intermediate_size": 20480,
        "num_hidden_layers": 60, "num_attention_heads": 56, "num_key_value_heads": 8,
    },
    "llama3-8b": {
        "model_type": "llama", "vocab_size": 128320, "intermediate_size": 14336, "num_key_value_heads": 8,
    },
}  # fmt: skip


def configuration(
    folder: Path,
    kind: str,
    decoder: str,
    template: str,
    *,
    image: int = 32000,
    at: str = "chat_template.jinja",
) -> Path:
    """A checkpoint's configuration and chat template, without weights.

    Args:
        folder: Where to.
        kind: `llava` or `llava_next`.
        decoder: Which of the published ones.
        template: The chat template.
        image: Id of `<image>`.
        at: The file that the template lies in.
    """
    from transformers import LlavaConfig, LlavaNextConfig

    more = {"image_grid_pinpoints": GRID} if kind == "llava_next" else {}
    make = LlavaNextConfig if kind == "llava_next" else LlavaConfig
    make(
        vision_config=dict(_TOWER), text_config=dict(_DECODERS[decoder]), image_token_index=image,
        vision_feature_layer=-2, vision_feature_select_strategy="default", **more,
    ).save_pretrained(folder)  # fmt: skip
    text = template if at.endswith(".jinja") else json.dumps({"chat_template": template})
    (folder / at).write_text(text, encoding="utf-8")
    return folder


@cache
def tokenizer() -> Any:
    """A tokenizer of bytes whose special tokens have the ids that Llama 2's and Mistral's have in LLaVA."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    symbols = ["<unk>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    symbols += [f"<filler{number}>" for number in range(32000 - len(symbols))] + ["<image>", "<pad>"]
    core = Tokenizer(BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<unk>", "<s>", "</s>", "<image>", "<pad>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"}, model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def processor(kind: str, template: str) -> Any:
    """A processor as llava-hf publishes it: CLIP's for LLaVA-1.5, tiles of 336 pixels for LLaVA-1.6."""
    from transformers import LlavaNextProcessor, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    sizes = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    tiles = kind == "llava_next"
    images = (
        LlavaNextImageProcessorPil(image_grid_pinpoints=GRID, **sizes)
        if tiles
        else CLIPImageProcessorPil(**sizes)
    )
    return (LlavaNextProcessor if tiles else LlavaProcessor)(
        images, tokenizer(), patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=template,
    )  # fmt: skip


def checkpoint(folder: Path, kind: str, template: str, text: str = "llama") -> Path:
    """A LLaVA with its published vocabulary and processor, and tiny random weights."""
    import torch
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    decoder = transformers.MistralConfig if text == "mistral" else transformers.LlamaConfig
    name = "LlavaNext" if kind == "llava_next" else "Llava"
    more = {"image_grid_pinpoints": GRID} if kind == "llava_next" else {}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 32001, "vocab_size": 32064}
    tower = transformers.CLIPVisionConfig(image_size=336, patch_size=14, projection_dim=32, **sizes)
    config = getattr(transformers, f"{name}Config")(
        vision_config=tower,
        text_config=decoder(num_key_value_heads=2, max_position_embeddings=4096, **ids, **sizes),
        image_token_index=32000, vision_feature_layer=-2, vision_feature_select_strategy="default",
        pad_token_id=32001, **more,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "vision_tower" not in parameter_name:
                torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.pad_token_id = 32001
    model.save_pretrained(folder)
    processor(kind, template).save_pretrained(folder)
    return folder
