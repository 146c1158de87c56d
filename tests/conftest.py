"""Tiny real models and pictures for tests: the real classes, random weights, nothing downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image, ImageDraw, ImageFile

# A test says what is right, not how fast a busy machine is.
settings.register_profile("patient", deadline=None, max_examples=50)
settings.load_profile("patient")

# Vicuna's wording, as LLaVA-1.5 has it; content is a string or a list of parts, as transformers allows.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% elif message['role'] == 'assistant' %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %} {% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.fixture(autouse=True)
def damaged_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Pillow has it by default: importing lmms-eval, as the parity tests do, lets damaged images pass."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)


def build_vlm(folder: Path, seed: int = 0) -> Path:
    """Saves a random LLaVA (CLIP tower, MLP projector, Llama decoder) with tokenizer and processor."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    specials = ["<s>", "</s>", "<pad>", "<image>"]
    symbols = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=32, **sizes),
        text_config=LlamaConfig(
            vocab_size=len(symbols),
            max_position_embeddings=4096,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
            **sizes,
        ),
        image_token_index=3,
        image_seq_length=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        pad_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        # The usual deviation of 0.02 leaves logits so flat that rounding picks the tokens.
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "vision_tower" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.pad_token_id = 2
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_next(folder: Path, vlm: Path) -> Path:
    """Saves a random LLaVA-NeXT with a tiny LLaVA's tokenizer: tiles as the image needs them."""
    import torch
    from transformers import (
        AutoProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextProcessor,
    )
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    other = AutoProcessor.from_pretrained(vlm)
    shapes = [[32, 64], [64, 32], [64, 64]]
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=shapes
        ),
        other.tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=other.chat_template,
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=16, projection_dim=32, **sizes),
        text_config=LlamaConfig(
            vocab_size=len(other.tokenizer),
            max_position_embeddings=4096,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
            **sizes,
        ),
        image_token_index=3,
        vision_feature_layer=-1,
        image_grid_pinpoints=shapes,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaNextForConditionalGeneration(config)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "vision_tower" not in name:
                torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.pad_token_id = 2
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_adapter(folder: Path, vlm: Path, seed: int = 0) -> Path:
    """Saves a random LoRA adapter for a model's decoder, as PEFT does, that changes its answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    base = AutoModelForImageTextToText.from_pretrained(vlm, use_safetensors=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        settings = LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*(q_proj|up_proj)")
        model = get_peft_model(base, settings)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    model.peft_config["default"].base_model_name_or_path = "tiny"
    model.save_pretrained(folder, save_embedding_layers=False)  # else PEFT asks the hub about "tiny"
    return folder


def draw_photos(folder: Path, count: int = 8) -> Path:
    """Saves distinct small pictures, JPEG and PNG in turn, of several sizes and shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(count):
        size = (40 + 8 * index, 64 - 4 * index)
        colours = [tuple(int(v) for v in random.integers(0, 256, 3)) for _ in range(3)]
        picture = Image.new("RGB", size, colours[0])
        pen = ImageDraw.Draw(picture)
        pen.rectangle((4, 4, 10 + 3 * index, 24), fill=colours[1])
        pen.ellipse((size[0] // 2, size[1] // 2, size[0] - 4, size[1] - 2), fill=colours[2])
        picture.save(folder / f"{index}.{'jpg' if index % 2 else 'png'}")
    return folder


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random LLaVA, as any model folder; read only."""
    return build_vlm(tmp_path_factory.mktemp("models") / "tiny-vlm")


@pytest.fixture(scope="session")
def tiny_next(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random LLaVA-NeXT; read only."""
    return build_next(tmp_path_factory.mktemp("models") / "tiny-next", tiny_vlm)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with 8 small distinct pictures; read only."""
    return draw_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def adapters(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of two different LoRA adapters of `tiny_vlm`; read only."""
    folder = tmp_path_factory.mktemp("adapters")
    return build_adapter(folder / "a", tiny_vlm, seed=1), build_adapter(folder / "b", tiny_vlm, seed=2)
