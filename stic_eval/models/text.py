"""Text on its way into a model: what generation and training must do alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def control_tokens(processor: Any) -> tuple[str, ...]:
    """Texts that a processor's tokenizer reads as control tokens, the longest first."""
    known = {str(token) for token in processor.tokenizer.added_tokens_decoder.values() if token.special}
    known |= {str(token) for token in (getattr(processor, "image_token", None),) if token}
    return tuple(sorted(known, key=lambda token: (-len(token), token)))


def plain(text: str, control: Sequence[str]) -> str:
    """Text in which nothing is read as a control token, such as an image's place or a turn's end."""
    for token in control:
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text.encode("utf-8", "replace").decode()  # lone surrogates cannot be tokenized
