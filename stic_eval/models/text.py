"""Text on its way into a model: what generation and training must do alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stic_eval.types import Request

# What a processor gives for each token, beside ids and attention: kinds of tokens, of which text is 0.
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")


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


def written(processor: Any, requests: Sequence[Request], control: tuple[str, ...]) -> list[str]:
    """Prompts as a chat template writes them, up to where the answer begins."""
    if not requests:
        return []
    turns = [_turns(request, control) for request in requests]
    prompts: list[str] = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return prompts


def _turns(request: Request, control: tuple[str, ...]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    images = len(request.images)
    for message in request.messages:
        parts = [{"type": "text", "text": plain(message.text, control)}]
        if message.role == "user" and images:
            parts = [{"type": "image"}] * images + parts
            images = 0
        turns.append({"role": message.role, "content": parts})
    return turns


def adds_start(tokenizer: Any, prompt: str) -> bool:
    """Whether a prompt is to be given the tokenizer's special tokens: not if the template wrote the start."""
    return not (tokenizer.bos_token and prompt.startswith(tokenizer.bos_token))
