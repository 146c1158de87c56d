"""Further families of the zoo, which transformers offers without torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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

ROLES = ("system", "user", "assistant")


LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


# ---------------------------------------------------------------- LLaVA's relatives


def vipllava(folder: Path) -> Path:
    from transformers import CLIPVisionConfig, LlamaConfig, VipLlavaConfig
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = make_tokenizer({**LLAMA, "image_token": "<image>"}, bos=True)
    config = VipLlavaConfig(
        vision_config=CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, projection_dim=32, **SIZES),
        text_config=LlamaConfig(vocab_size=len(tokenizer), **SIZES),
        vision_feature_layer=[-1, -2],
        image_seq_length=16,
        **ids(tokenizer, image_token_index="<image>"),
    )
    return save(
        folder, "VipLlavaForConditionalGeneration", config, tokenizer, "LlavaProcessor",
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        chat_template(
            {"system": "", "user": "###Human: ", "assistant": "###Assistant: "},
            dict.fromkeys(ROLES, ""),
            image="<image>\n",
            answer="###Assistant:",
        ),
        patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip


def deepseek_vl(folder: Path) -> Path:
    from transformers import DeepseekVLConfig, LlamaConfig, SiglipVisionConfig
    from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil

    tokenizer = make_tokenizer({**LLAMA, "image_token": "<image_placeholder>"}, bos=True)
    config = DeepseekVLConfig(
        vision_config=SiglipVisionConfig(image_size=SIDE, patch_size=PATCH, vision_use_head=False, **SIZES),
        text_config=LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **SIZES),
        tie_word_embeddings=False,
        **ids(tokenizer, image_token_id="<image_placeholder>"),
    )
    return save(
        folder, "DeepseekVLForConditionalGeneration", config, tokenizer, "DeepseekVLProcessor",
        DeepseekVLImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        chat_template(
            {"system": "", "user": "User: ", "assistant": "Assistant: "},
            {"system": "\n\n", "user": "\n\n", "assistant": "</s>"},
            image="<image_placeholder>",
            answer="Assistant:",
        ),
        num_image_tokens=(SIDE // PATCH) ** 2,
    )  # fmt: skip


# ---------------------------------------------------------------- Aya Vision, Idefics2, GLM, Ovis


def aya_vision(folder: Path) -> Path:
    from transformers import AyaVisionConfig, Cohere2Config, SiglipVisionConfig
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    turn, over = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"
    heads = {
        "system": f"{turn}<|SYSTEM_TOKEN|>", "user": f"{turn}<|USER_TOKEN|>",
        "assistant": f"{turn}<|CHATBOT_TOKEN|><|START_RESPONSE|>",
    }  # fmt: skip
    tokenizer = make_tokenizer(
        {"pad_token": "<PAD>", "bos_token": "<BOS_TOKEN>", "eos_token": over},
        [
            turn, "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|START_RESPONSE|>",
            "<|END_RESPONSE|>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>",
            "<|IMG_LINE_BREAK|>", "TILE", "TILE_GLOBAL",
        ],
        bos=True,
    )  # fmt: skip
    config = AyaVisionConfig(
        vision_config=SiglipVisionConfig(image_size=SIDE, patch_size=PATCH, vision_use_head=False, **SIZES),
        text_config=Cohere2Config(
            vocab_size=len(tokenizer), num_key_value_heads=1, logit_scale=1.0, sliding_window=32,
            layer_types=["sliding_attention", "full_attention"], **SIZES,
        ),
        downsample_factor=2,
        **ids(tokenizer, image_token_index="<|IMG_PATCH|>"),
    )  # fmt: skip
    return save(
        folder, "AyaVisionForConditionalGeneration", config, tokenizer, "AyaVisionProcessor",
        GotOcr2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=4),
        chat_template(
            heads,
            {"system": over, "user": over, "assistant": f"<|END_RESPONSE|>{over}"},
            image="<image>",
            answer=heads["assistant"],
            begin="<BOS_TOKEN>",
        ),
        patch_size=PATCH, img_size=SIDE, downsample_factor=2,
    )  # fmt: skip


def idefics2(folder: Path) -> Path:
    from transformers import Idefics2Config, MistralConfig
    from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

    tokenizer = make_tokenizer(
        {
            **LLAMA, "eos_token": "<end_of_utterance>", "image_token": "<image>",
            "image_boundary_token": "<fake_token_around_image>",
        },
        bos=True,
    )  # fmt: skip
    config = Idefics2Config(
        vision_config={"image_size": 2 * SIDE, "patch_size": PATCH, **SIZES},
        perceiver_config={
            "hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 2,
            "resampler_head_dim": 16, "num_key_value_heads": 1,
        },
        text_config=MistralConfig(vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=16, **SIZES),
        **ids(tokenizer, image_token_id="<image>"),
    )  # fmt: skip
    return save(
        folder, "Idefics2ForConditionalGeneration", config, tokenizer, "Idefics2Processor",
        Idefics2ImageProcessorPil(size={"shortest_edge": SIDE, "longest_edge": 2 * SIDE}),
        chat_template(
            {"system": "System: ", "user": "User:", "assistant": "Assistant: "},
            dict.fromkeys(ROLES, "<end_of_utterance>\n"),
            image="<image>",
            answer="Assistant:",
        ),
        image_seq_len=4,
    )  # fmt: skip


def glm4v(folder: Path) -> Path:
    from transformers import Glm4vConfig
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    sizes: dict[str, Any] = {
        "patch_size": PATCH,
        "merge_size": 2,
        "size": {"shortest_edge": 32 * 32, "longest_edge": 2 * 64 * 64},
    }
    marks = ["<|image|>", "<|video|>"] + [
        f"<|{edge}_of_{what}|>" for edge in ("begin", "end") for what in ("image", "video")
    ]
    tokenizer = make_tokenizer(
        {"eos_token": "<|user|>", "pad_token": "<|endoftext|>"},
        ["[gMASK]", "<sop>", "<|system|>", "<|assistant|>", *marks],
    )
    config = Glm4vConfig(
        vision_config={
            "depth": 2, "hidden_size": 32, "num_heads": 2, "image_size": SIDE, "patch_size": PATCH,
            "out_hidden_size": 32, "intermediate_size": 64,
        },
        text_config={
            "vocab_size": len(tokenizer), "num_key_value_heads": 1, **SIZES,
            # Half of a head's 16 dimensions is turned, by 4 angles.
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
                "mrope_section": [2, 1, 1],
            },
        },
        **ids(
            tokenizer, image_token_id="<|image|>", video_token_id="<|video|>",
            image_start_token_id="<|begin_of_image|>", image_end_token_id="<|end_of_image|>",
            video_start_token_id="<|begin_of_video|>", video_end_token_id="<|end_of_video|>",
        ),
    )  # fmt: skip
    return save(
        folder, "Glm4vForConditionalGeneration", config, tokenizer, "Glm4vProcessor",
        Glm4vImageProcessorPil(**sizes),
        chat_template(
            {role: f"<|{role}|>\n" for role in ROLES},
            dict.fromkeys(ROLES, ""),
            image="<|begin_of_image|><|image|><|end_of_image|>",
            answer="<|assistant|>\n",
            begin="[gMASK]<sop>",
        ),
        video="Glm4vVideoProcessor",
    )  # fmt: skip


def ovis2(folder: Path) -> Path:
    from transformers import Ovis2Config, Qwen2Config
    from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil

    indicators = [f"<IMG_{name}>" for name in ("START", "GRID", "COL", "ROW", "END")]
    tokenizer = make_tokenizer(CHATML, ["<|im_start|>", "<image>", "<IMG_ATOM>", *indicators])
    config = Ovis2Config(
        vision_config={
            "image_size": SIDE,
            "patch_size": PATCH,
            "vocab_size": 64,
            "hidden_stride": 2,
            **SIZES,
        },
        text_config=Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=1, **SIZES),
        vocab_size=len(tokenizer),
        hidden_size=32,
        visual_indicator_token_ids=tokenizer.convert_tokens_to_ids(indicators),
        tie_word_embeddings=False,
        **ids(tokenizer, image_token_id="<IMG_ATOM>"),
    )
    return save(
        folder, "Ovis2ForConditionalGeneration", config, tokenizer, "Ovis2Processor",
        Ovis2ImageProcessorPil(size={"height": SIDE, "width": SIDE}, crop_to_patches=True, max_patches=4),
        chatml("<image>\n"),
        image_seq_length=4,
    )  # fmt: skip


# ---------------------------------------------------------------- Llama 3.2, whose decoder looks at images


def mllama(folder: Path) -> Path:
    from transformers import MllamaConfig
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    tokenizer = make_tokenizer(
        {
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|eot_id|>",
            "pad_token": "<|finetune_right_pad_id|>",
        },
        ["<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>"],
        bos=True,
    )
    config = MllamaConfig(
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1,
            "attention_heads": 2, "image_size": SIDE, "patch_size": PATCH, "max_num_tiles": 4,
            "vision_output_dim": 96, "intermediate_layers_indices": [0, 1],
            "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        },
        text_config={
            **SIZES, "vocab_size": len(tokenizer), "num_hidden_layers": 3, "num_key_value_heads": 1,
            "cross_attention_layers": [1], "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        image_token_index=len(tokenizer),
    )  # fmt: skip
    # The image's token lies behind the head's vocabulary: it is read and never said.
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|image|>"]})
    heads = {role: f"<|start_header_id|>{role}<|end_header_id|>\n\n" for role in ROLES}
    return save(
        folder, "MllamaForConditionalGeneration", config, tokenizer, "MllamaProcessor",
        MllamaImageProcessorPil(size={"height": SIDE, "width": SIDE}, max_image_tiles=4),
        chat_template(
            heads, dict.fromkeys(ROLES, "<|eot_id|>"), image="<|image|>", answer=heads["assistant"],
            begin="<|begin_of_text|>",
        ),
        opened=("cross_attn_attn_gate", "cross_attn_mlp_gate"),
    )  # fmt: skip
