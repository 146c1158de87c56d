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


def escape_control(text: str, control: Sequence[str]) -> str:
    """Text changed so that nothing in it is a control token, such as an image's place or a turn's end."""
    for token in control:
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text.encode("utf-8", "replace").decode()  # lone surrogates cannot be tokenized


def render_prompts(processor: Any, requests: Sequence[Request], control: tuple[str, ...]) -> list[str]:
    """Prompts as a chat template writes them, up to where the answer begins.

    Where an answer has begun (the last turn is the assistant's), up to its end, with the white space that the
    template puts in front of answers: so the model has seen it in training.
    """
    turns = [_turns(request, control) for request in requests]
    going_on = [n for n, own in enumerate(turns) if own[-1]["role"] == "assistant"]
    begun = [turns[n] for n in going_on]
    for n in going_on:
        turns[n] = turns[n][:-1]
    prompts = _render(processor, turns, add_generation_prompt=True)
    for n, own, whole in zip(going_on, begun, _render(processor, begun), strict=True):
        prompts[n] = _through(prompts[n], whole, own[-1]["content"][0]["text"])
    return prompts


def _render(processor: Any, turns: list[list[dict[str, Any]]], **how: Any) -> list[str]:
    return list(processor.apply_chat_template(turns, tokenize=False, **how)) if turns else []


def _through(prompt: str, whole: str, answer: str) -> str:
    """A conversation up to the end of its last answer.

    Args:
        prompt: It, up to where that answer begins.
        answer: Its last answer, which the template may have stripped.
    """
    start = len(common(prompt, whole))
    for body in (answer, answer.strip()):
        if body and (at := whole.find(body, start)) >= 0:
            return whole[: at + len(body)]
    return prompt + answer.rstrip()  # the template leaves it out, or writes it otherwise


def common(left: str, right: str) -> str:
    """What two texts begin with alike."""
    pairs = enumerate(zip(left, right, strict=False))
    return left[: next((index for index, (a, b) in pairs if a != b), min(len(left), len(right)))]


def _turns(request: Request, control: tuple[str, ...]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    images = len(request.images)
    for message in request.messages:
        parts = [{"type": "text", "text": escape_control(message.text, control)}]
        if message.role == "user" and images:
            parts = [{"type": "image"}] * images + parts
            images = 0
        turns.append({"role": message.role, "content": parts})
    return turns


def adds_start(tokenizer: Any, prompt: str) -> bool:
    """Whether a prompt is to be given the tokenizer's special tokens: not if the template wrote the start."""
    return not (tokenizer.bos_token and prompt.startswith(tokenizer.bos_token))
