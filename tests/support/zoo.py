"""Tiny random checkpoints of real vision-language families, saved as their published ones are.

Each has the family's own model class, processor class and image processor, and a chat template in its
wording. Sizes and vocabulary are tiny, weights random; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.conftest import build_next, build_vlm
from tests.support import zoo_gemma, zoo_more
from tests.support.zoo_parts import (
    CHATML,
    PATCH,
    SIDE,
    SIZES,
    chat_template,
    chatml,
    ids,
    make_tokenizer,
    save,
)


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        title: As people call it.
        architecture: The model's class in transformers, without its `ForConditionalGeneration`.
        hub: Published checkpoints.
        build: Saves a tiny one into a folder.
        text_only: Whether it answers questions without an image.
        needs: A package that its processor wants and this project does not depend on.
        notes: What its users should know.
        unshared: Why its images, or its prompts' beginnings, cannot be shared.
    """

    title: str
    architecture: str
    hub: tuple[str, ...]
    build: Callable[[Path], Path]
    text_only: bool = True
    needs: str = ""
    notes: str = ""
    unshared: str = ""


# ---------------------------------------------------------------- LLaVA


def llava_next(folder: Path) -> Path:
    with TemporaryDirectory() as other:
        return build_next(folder, build_vlm(Path(other)))


def llava_onevision(folder: Path) -> Path:
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    shapes = [[32, 64], [64, 32], [64, 64]]
    tokenizer = make_tokenizer(CHATML, ["<|im_start|>", "<image>", "<video>"])
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(image_size=SIDE, patch_size=PATCH, vision_use_head=False, **SIZES),
        text_config=Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **SIZES),
        image_grid_pinpoints=shapes,
        **ids(tokenizer, image_token_index="<image>", video_token_index="<video>"),
    )
    return save(
        folder, "LlavaOnevisionForConditionalGeneration", config, tokenizer, "LlavaOnevisionProcessor",
        LlavaOnevisionImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=shapes),
        chatml("<image>\n"),
        video="LlavaOnevisionVideoProcessor",
        num_image_tokens=(SIDE // PATCH) ** 2, vision_feature_select_strategy="full",
    )  # fmt: skip


# ---------------------------------------------------------------- Qwen

QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_TOKENS = ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
# Three sections of a head's 8 angles: time, height, width.
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}


def qwen(folder: Path, version: str) -> Path:
    """Qwen2-VL and its successors, which differ in tower and decoder."""
    import transformers
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    tokenizer = make_tokenizer(CHATML, QWEN_TOKENS)
    tower: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32}
    text: dict[str, Any] = {**SIZES, "num_key_value_heads": 1, "rope_parameters": dict(MROPE)}
    if version == "Qwen2VL":
        tower = {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2}
    elif version == "Qwen2_5_VL":
        tower |= {"window_size": 32, "fullatt_block_indexes": [1]}
    else:
        tower |= {"num_position_embeddings": 64}
        text |= {"head_dim": 16}
        text["rope_parameters"]["mrope_interleaved"] = True
    if version in ("Qwen3VL", "Qwen3VLMoe"):
        tower["deepstack_visual_indexes"] = [0, 1]
    if version == "Qwen3VLMoe":
        text |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    if version == "Qwen3_5":
        text["rope_parameters"]["partial_rotary_factor"] = 1.0
        text |= {
            "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
            "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        }  # fmt: skip
    config = getattr(transformers, f"{version}Config")(
        vision_config={"depth": 2, "num_heads": 2, "patch_size": PATCH, **tower},
        text_config={"vocab_size": len(tokenizer), **text},
        **ids(
            tokenizer,
            image_token_id="<|image_pad|>",
            video_token_id="<|video_pad|>",
            vision_start_token_id="<|vision_start|>",
            vision_end_token_id="<|vision_end|>",
        ),
    )
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=2, size={"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    )
    # Qwen3.5 and the mixtures of experts have the processor of Qwen3-VL.
    made = version if version in ("Qwen2VL", "Qwen2_5_VL") else "Qwen3VL"
    video = "Qwen3VLVideoProcessor" if made == "Qwen3VL" else "Qwen2VLVideoProcessor"
    return save(
        folder, f"{version}ForConditionalGeneration", config, tokenizer, f"{made}Processor", images,
        chatml(QWEN_IMAGE), video=video,
    )  # fmt: skip


# ---------------------------------------------------------------- Idefics


def idefics3(folder: Path, kind: str = "Idefics3") -> Path:
    """Idefics3, and SmolVLM, which is worded alike."""
    import transformers
    from transformers import LlamaConfig
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    tokenizer = make_tokenizer(
        {
            "bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>",
            "image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>",
            "video_token": "<video>",
        },
        places,
    )  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        vision_config={"image_size": SIDE, "patch_size": PATCH, **SIZES},
        text_config=LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **SIZES),
        scale_factor=2,
        **ids(tokenizer, image_token_id="<image>"),
    )
    make = SmolVLMImageProcessorPil if kind == "SmolVLM" else Idefics3ImageProcessorPil
    template = chat_template(
        {"system": "System: ", "user": "User:", "assistant": "Assistant: "},
        dict.fromkeys(("system", "user", "assistant"), "<end_of_utterance>\n"),
        image="<image>",
        answer="Assistant:",
        begin="<|im_start|>",
    )
    return save(
        folder, f"{kind}ForConditionalGeneration", config, tokenizer, f"{kind}Processor",
        make(size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}),
        template,
        video="SmolVLMVideoProcessor" if kind == "SmolVLM" else None,
        image_seq_len=(SIDE // PATCH // 2) ** 2,
    )  # fmt: skip


# ---------------------------------------------------------------- InternVL


def internvl(folder: Path) -> Path:
    from transformers import InternVLConfig, Qwen2Config
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    tokenizer = make_tokenizer(
        {
            **CHATML, "start_image_token": "<img>", "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>",
        },
        ["<|im_start|>"],
    )  # fmt: skip
    config = InternVLConfig(
        vision_config={"image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH], **SIZES},
        text_config=Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **SIZES),
        image_seq_length=4,
        tie_word_embeddings=False,
        **ids(tokenizer, image_token_id="<IMG_CONTEXT>"),
    )
    return save(
        folder, "InternVLForConditionalGeneration", config, tokenizer, "InternVLProcessor",
        GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=4),
        chatml("<IMG_CONTEXT>\n"),
        video="InternVLVideoProcessor",
        image_seq_length=4,
    )  # fmt: skip


FAMILIES: Mapping[str, Family] = {
    "llava": Family("LLaVA-1.5", "Llava", ("llava-hf/llava-1.5-7b-hf",), build_vlm),
    "llava_next": Family("LLaVA-NeXT (1.6)", "LlavaNext", ("llava-hf/llava-v1.6-mistral-7b-hf",), llava_next),
    "llava_onevision": Family(
        "LLaVA-OneVision", "LlavaOnevision", ("llava-hf/llava-onevision-qwen2-7b-ov-hf",), llava_onevision
    ),
    "qwen2_vl": Family(
        "Qwen2-VL", "Qwen2VL", ("Qwen/Qwen2-VL-7B-Instruct",), partial(qwen, version="Qwen2VL")
    ),
    "qwen2_5_vl": Family(
        "Qwen2.5-VL", "Qwen2_5_VL", ("Qwen/Qwen2.5-VL-7B-Instruct",), partial(qwen, version="Qwen2_5_VL")
    ),
    "qwen3_vl": Family(
        "Qwen3-VL", "Qwen3VL", ("Qwen/Qwen3-VL-8B-Instruct",), partial(qwen, version="Qwen3VL")
    ),
    "qwen3_vl_moe": Family(
        "Qwen3-VL, mixture of experts",
        "Qwen3VLMoe",
        ("Qwen/Qwen3-VL-30B-A3B-Instruct",),
        partial(qwen, version="Qwen3VLMoe"),
        notes="Adapters are on the attention only, because experts are not linear layers. In training, TRL "
        "adds a term for uneven use of experts to the loss.",
    ),
    "idefics3": Family(
        "Idefics3, SmolVLM",
        "Idefics3",
        ("HuggingFaceM4/Idefics3-8B-Llama3", "HuggingFaceTB/SmolVLM-Instruct"),
        idefics3,
    ),
    "smolvlm": Family(
        "SmolVLM2",
        "SmolVLM",
        ("HuggingFaceTB/SmolVLM2-2.2B-Instruct",),
        partial(idefics3, kind="SmolVLM"),
        needs="num2words",
        notes="Its processor needs the package num2words, which spells out a video's number of frames.",
    ),
    "internvl": Family("InternVL", "InternVL", ("OpenGVLab/InternVL3-8B-hf",), internvl),
    "paligemma": Family(
        "PaliGemma",
        "PaliGemma",
        ("google/paligemma2-3b-mix-224",),
        zoo_gemma.paligemma,
        text_only=False,
        notes="Published without a chat template. Put a `chat_template.jinja` beside it that writes "
        "`<image>`, the text, and `<eos>` after an answer. Cannot answer a question without an image.",
        unshared="Every token of the prompt attends to every other, so the image's keys and values depend on "
        "the question.",
    ),
    "gemma3": Family("Gemma 3", "Gemma3", ("google/gemma-3-4b-it",), zoo_gemma.gemma3),
    "gemma4": Family("Gemma 4", "Gemma4", ("google/gemma-4-E2B-it",), zoo_gemma.gemma4),
    "qwen3_5": Family(
        "Qwen3.5",
        "Qwen3_5",
        ("Qwen/Qwen3.5-2B",),
        partial(qwen, version="Qwen3_5"),
        unshared="Its layers of linear attention keep a running state instead of keys and values.",
    ),
    "vipllava": Family("VipLLaVA", "VipLlava", ("llava-hf/vip-llava-7b-hf",), zoo_more.vipllava),
    "deepseek_vl": Family(
        "DeepSeek-VL", "DeepseekVL", ("deepseek-community/deepseek-vl-1.3b-chat",), zoo_more.deepseek_vl
    ),
    "aya_vision": Family("Aya Vision", "AyaVision", ("CohereLabs/aya-vision-8b",), zoo_more.aya_vision),
    "idefics2": Family("Idefics2", "Idefics2", ("HuggingFaceM4/idefics2-8b",), zoo_more.idefics2),
    "glm4v": Family("GLM-4.1V", "Glm4v", ("zai-org/GLM-4.1V-9B-Thinking",), zoo_more.glm4v),
    "ovis2": Family(
        "Ovis2",
        "Ovis2",
        ("thisisiron/Ovis2-1B-hf",),
        zoo_more.ovis2,
        unshared="An image needs features of the tokens around it.",
    ),
    "mllama": Family(
        "Llama 3.2 Vision",
        "Mllama",
        ("meta-llama/Llama-3.2-11B-Vision-Instruct",),
        zoo_more.mllama,
        unshared="Images are not tokens of the prompt: separate layers attend to them.",
    ),
}
