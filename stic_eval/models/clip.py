"""How well a text fits an image by a CLIP model (Radford et al. 2021): the cosine of their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stic_eval.errors import UserError, first_line
from stic_eval.store import append_jsonl, content_key, read_jsonl
from stic_eval.types import ImageRef

_ROWS = 64  # pairs in a forward pass, and between two writes

# (image, text) pairs -> their cosines.
Compare = Callable[[Sequence[tuple[ImageRef, str]]], list[float]]


def similarities(
    model: str,
    compare: Compare,
    shown: Sequence[tuple[ImageRef, str]],
    log: Path,
    progress: Callable[[int, int], None],
) -> list[float]:
    """Cosines from -1 to 1, in the order of what is shown. Texts that are too long for the model are cut.

    Args:
        model: The model's name; what is known is known by it.
        compare: What `load_clip` gave.
        kept: JSONL file of what is known already; added to as results come.
        progress: Told (pairs done, pairs in all).

    Raises:
        UserError: An image cannot be decoded.
    """
    keys = [content_key([model, image.sha256, text]) for image, text in shown]
    try:
        known: dict[str, float] = {str(row["key"]): float(row["value"]) for row in read_jsonl(log)}
    except (UserError, KeyError, TypeError, ValueError):  # the disk has damaged it: all is computed again
        known = {}
        log.unlink()
    missing = {key: one for key, one in zip(keys, shown, strict=True) if key not in known}
    todo = list(missing.items())
    for start in range(0, len(todo), _ROWS):
        part = todo[start : start + _ROWS]
        values = _compare_part(compare, [one for _, one in part])
        fresh = {key: value for (key, _), value in zip(part, values, strict=True)}
        append_jsonl(log, [{"key": key, "value": value} for key, value in fresh.items()])
        known |= fresh
        progress(len(shown) - len(todo) + start + len(part), len(shown))
    return [known[key] for key in keys]


def _compare_part(compare: Compare, part: Sequence[tuple[ImageRef, str]]) -> list[float]:
    """The cosines of a part, computed in halves where it does not fit into memory beside the other model."""
    from stic_eval.models.free_memory import within_memory

    found = within_memory(lambda: compare(part)) if len(part) > 1 else compare(part)
    if found is not None:
        return found
    half = len(part) // 2
    return [*_compare_part(compare, part[:half]), *_compare_part(compare, part[half:])]


def load_clip(model: str, device: Any) -> Compare:
    """Loads a CLIP model.

    Args:
        model: A hub id or folder, in safetensors.

    Raises:
        UserError: There is no such model, or it is of another kind.
    """
    import torch
    from transformers import AutoModel, AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        clip: Any = AutoModel.from_pretrained(model, use_safetensors=True).eval().to(device)
        processor = AutoProcessor.from_pretrained(model)
    except Exception as error:  # transformers and the hub raise a dozen kinds
        raise UserError(f"clip model {model}: cannot be loaded: {first_line(error)}") from error
    if not hasattr(clip, "get_text_features"):
        raise UserError(f"clip model {model}: it is not a CLIP model; give one that embeds images and texts")
    # A tokenizer does not always say where its model ends.
    tokens = min(processor.tokenizer.model_max_length, clip.config.text_config.max_position_embeddings)

    def compare(part: Sequence[tuple[ImageRef, str]]) -> list[float]:
        inputs = processor(
            text=[text for _, text in part],
            images=[image.load() for image, _ in part],
            padding=True,
            truncation=True,
            max_length=tokens,
            return_tensors="pt",
        ).to(device)
        with torch.inference_mode():
            output = clip(**inputs)
        cosines = torch.cosine_similarity(output.image_embeds.float(), output.text_embeds.float(), dim=-1)
        found: list[float] = cosines.tolist()
        return found

    return compare
