"""The works that sides are timed on, and the larger model that some of them are for."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rivals.side import Work

SEED = 0
# 73 M parameters in the decoder, 26 M in the tower, 1 M in the projector: LLaVA-1.5 in small, with its
# pictures of 336 pixels and its 576 image tokens.
TOWER: Mapping[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
}
DECODER: Mapping[str, Any] = {
    "hidden_size": 704,
    "intermediate_size": 1920,
    "num_hidden_layers": 12,
    "num_attention_heads": 11,
}
SIDE, PATCH = 336, 14


def larger_model(
    folder: Path,
    tower: Mapping[str, Any] = TOWER,
    decoder: Mapping[str, Any] = DECODER,
    image: int = SIDE,
    kind: str = "float32",
) -> Path:
    """Saves a random LLaVA with the embedded model's tokenizer, from a fixed seed.

    Args:
        folder: Where; kept if it holds a model.
        tower: Sizes of the CLIP tower.
        decoder: Sizes of the Llama decoder.
        image: Pixels on an image's side.
        kind: Type of the weights.
    """
    if (folder / "processor_config.json").is_file():
        return folder
    import torch
    from transformers import (
        AutoProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from stic_eval.pocket.rows import MODEL_DIR

    known = AutoProcessor.from_pretrained(MODEL_DIR)
    tokenizer = known.tokenizer
    size = {"height": image, "width": image}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": image}, crop_size=size),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=known.chat_template,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=image, patch_size=PATCH, projection_dim=512, **tower),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=4096,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **decoder,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(image // PATCH) ** 2,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = LlavaForConditionalGeneration._from_config(config, dtype=getattr(torch, kind))
        # The usual deviation leaves logits so flat that rounding would pick the tokens.
        for parameter in model.lm_head.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def photograph(number: int, size: tuple[int, int] = (SIDE, SIDE)) -> Any:
    """A picture with a photograph's gradients, edges and grain, another one for each number."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    draw = np.random.default_rng([SEED, number])
    coarse = Image.fromarray(draw.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    picture = coarse.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y = (int(draw.integers(0, most)) for most in size)
        wide, high = (int(draw.integers(most // 16, most // 3)) for most in size)
        colour = tuple(int(value) for value in draw.integers(0, 256, 3))
        shape = pen.ellipse if draw.random() < 0.5 else pen.rectangle
        shape((x, y, x + wide, y + high), fill=colour)
    picture = picture.filter(ImageFilter.GaussianBlur(1.5))
    grain = draw.normal(0, 6, (size[1], size[0], 1))
    return Image.fromarray((np.asarray(picture, dtype=float) + grain).clip(0, 255).astype(np.uint8))


def pocket_model(folder: Path) -> Path:
    """A copy of the embedded model as a folder that `transformers` loads."""
    import shutil

    from stic_eval.pocket.rows import MODEL_DIR

    return Path(shutil.copytree(MODEL_DIR, folder))


# ---------------------------------------------------------------- rows


@dataclass(frozen=True)
class Part:
    """Rows of a benchmark in its own schema, images as references, and the bound on answers."""

    benchmark: str
    rows: Sequence[Mapping[str, Any]]
    most: int


def pocket_parts() -> Iterator[Part]:
    """All seven benchmarks with the embedded rows and their own bounds."""
    from stic_eval import registry
    from stic_eval.pocket.rows import benchmark_rows
    from stic_eval.pocket.tasks import MAKERS

    known = registry.benchmarks()
    for name in MAKERS:
        yield Part(name, benchmark_rows(name), known.get(name).generation.max_new_tokens)


def larger_parts(images: int, questions: int, most: int) -> Iterator[Part]:
    """TextVQA's schema: photographs with several questions each, worded as the embedded rows are."""
    from stic_eval.pocket.rows import benchmark_rows

    asked = random.Random(SEED).sample(
        [row["question"] for row in benchmark_rows("llava_bench")], 4 * questions
    )
    rows = [
        {
            "question_id": number * questions + turn,
            "question": asked[(number * questions + turn) % len(asked)],
            "image": _ref(photograph(number), f"photograph/{number}"),
            "answers": ["yes"] * 10,
            "ocr_tokens": [],
        }
        for number in range(images)
        for turn in range(questions)
    ]
    yield Part("textvqa", rows, most)


def circular_part(questions: int, most: int) -> Part:
    """MMBench's schema: every rotation of some of the embedded questions, about photographs."""
    from stic_eval.pocket.rows import benchmark_rows

    found = benchmark_rows("mmbench")[: 4 * questions]
    rows = [
        {**row, "image": _ref(photograph(1000 + number // 4), f"photograph/{1000 + number // 4}")}
        for number, row in enumerate(found)
    ]
    return Part("mmbench", rows, most)


def _ref(image: Any, source: str) -> Any:
    from stic_eval.images import ref_from_pil

    return ref_from_pil(image, source)


def lay_out(
    folder: Path, model: Path, parts: Sequence[Part], describe: str = "", describe_tokens: int = 0
) -> Work:
    """Writes a work's folder: rows as this program reads them, as rivals do, and what to do with them."""
    from datasets import Dataset, Features, Image, Value
    from datasets.utils.logging import disable_progress_bar

    from stic_eval import registry
    from stic_eval.evals.data_check import check
    from stic_eval.evals.data_preparation import prepare
    from stic_eval.evals.rows import ListRows
    from stic_eval.images import encoded_bytes

    disable_progress_bar()
    folder.mkdir(parents=True)
    known = registry.benchmarks()
    for part in parts:
        checked = check(known.get(part.benchmark), ListRows(part.benchmark, part.rows))
        if checked.problems:
            raise RuntimeError(f"{part.benchmark}: {checked.problems[0]}")
        prepare(checked, folder / part.benchmark)
        rows = [
            {
                "id": sample.id,
                "prompt": sample.question,
                "target": json.dumps(sample.target, default=str),
                "image": {"bytes": encoded_bytes(sample.images[0]), "path": None},
            }
            for sample in checked.samples.values()
        ]
        features = Features(
            {"id": Value("string"), "prompt": Value("string"), "target": Value("string"), "image": Image()}
        )
        Dataset.from_list(rows, features=features).to_parquet(str(folder / f"{part.benchmark}.parquet"))
    work = Work(str(model), {part.benchmark: part.most for part in parts}, describe, describe_tokens)
    work.save(folder)
    return work
