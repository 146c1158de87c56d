"""The zoo's Gemmas."""

from __future__ import annotations

from pathlib import Path

from tests.support.zoo_parts import PATCH, SIDE, SIZES, chat_template, ids, make_tokenizer, save


def paligemma(folder: Path) -> Path:
    from transformers import GemmaConfig, PaliGemmaConfig, SiglipVisionConfig
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokenizer = make_tokenizer(
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "image_token": "<image>"}
    )
    images = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_seq_length=16)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(image_size=SIDE, patch_size=PATCH, vision_use_head=False, **SIZES),
        # The processor adds 1,024 tokens of places and 128 of shapes.
        text_config=GemmaConfig(
            vocab_size=len(tokenizer) + 1152, num_key_value_heads=1, head_dim=16, **SIZES
        ),
        projection_dim=32,
        **ids(tokenizer, image_token_index="<image>"),
    )
    # It was published without any: one question, one answer.
    roles = ("system", "user", "assistant")
    template = chat_template(
        dict.fromkeys(roles, ""),
        {**dict.fromkeys(roles, ""), "assistant": "<eos>"},
        image="<image>",
        answer="",
    )
    return save(
        folder, "PaliGemmaForConditionalGeneration", config, tokenizer, "PaliGemmaProcessor", images, template
    )


def gemma3(folder: Path) -> Path:
    from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tokenizer = make_tokenizer(
        {
            "pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>",
        },
        ["<start_of_turn>", "<end_of_turn>"],
        bos=True,
    )  # fmt: skip
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(image_size=SIDE, patch_size=PATCH, vision_use_head=False, **SIZES),
        text_config=Gemma3TextConfig(
            vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16,
            sliding_window=32, layer_types=["sliding_attention", "full_attention"], **SIZES,
        ),
        mm_tokens_per_image=4,
        **ids(
            tokenizer,
            boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>",
            image_token_index="<image_soft_token>",
        ),
    )  # fmt: skip
    names = {"system": "user", "user": "user", "assistant": "model"}
    return save(
        folder, "Gemma3ForConditionalGeneration", config, tokenizer, "Gemma3Processor",
        Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        chat_template(
            {role: f"<start_of_turn>{name}\n" for role, name in names.items()},
            dict.fromkeys(names, "<end_of_turn>\n"),
            image="<start_of_image>",
            answer="<start_of_turn>model\n",
            begin="<bos>",
        ),
        image_seq_length=4,
    )  # fmt: skip


def gemma4(folder: Path) -> Path:
    from transformers import Gemma4Config
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    tokenizer = make_tokenizer(
        {
            "pad_token": "<pad>", "eos_token": "<turn|>", "bos_token": "<bos>", "boi_token": "<|image>",
            "eoi_token": "<image|>", "image_token": "<|image|>", "boa_token": "<|audio>",
            "eoa_token": "<audio|>", "audio_token": "<|audio|>",
        },
        ["<|turn>", "<|video|>"],
        bos=True,
    )  # fmt: skip
    config = Gemma4Config(
        vision_config={
            "num_key_value_heads": 2, "head_dim": 16, "patch_size": PATCH, "position_embedding_size": 64,
            **SIZES,
        },
        text_config={
            "vocab_size": len(tokenizer), "vocab_size_per_layer_input": len(tokenizer), "sliding_window": 32,
            "hidden_size_per_layer_input": 8, "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"], **SIZES,
        },
        audio_config=None,
        **ids(
            tokenizer, boi_token_id="<|image>", eoi_token_id="<image|>", image_token_id="<|image|>",
            video_token_id="<|video|>", boa_token_id="<|audio>", eoa_token_index="<audio|>",
            audio_token_id="<|audio|>",
        ),
    )  # fmt: skip
    names = {"system": "system", "user": "user", "assistant": "model"}
    return save(
        folder, "Gemma4ForConditionalGeneration", config, tokenizer, "Gemma4Processor",
        Gemma4ImageProcessorPil(patch_size=PATCH, max_soft_tokens=70, pooling_kernel_size=3),
        chat_template(
            {role: f"<|turn>{name}\n" for role, name in names.items()},
            dict.fromkeys(names, "<turn|>\n"),
            image="<|image|>",
            answer="<|turn>model\n",
            begin="<bos>",
        ),
        video="Gemma4VideoProcessor",
        image_seq_length=70,
        feature_extractor={"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
    )  # fmt: skip
