"""Conversations about an image as model input, with a mask of the tokens that are answers.

What a model is trained on is tokenized as it is when the model generates: the prompt by the processor,
exactly as in `stic_eval.models.hf_model`, and then the answer. Only tokens of answers and of the token that
ends them are marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stic_eval.errors import UserError
from stic_eval.models.prompt_text import PER_TOKEN, adds_start, common, control_tokens, escape_control

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Turns = Sequence[tuple[str, str]]  # (role, text)
Span = tuple[int, int]

# Llama 3.2's: which images a token sees, of shape (rows, tokens, images, tiles). Answers see what the end of
# the prompt sees, as when it generates.
_SEEN = "cross_attention_mask"


def encode(
    processor: Any,
    images: Sequence[Image],
    rows: Sequence[Turns],
    max_length: int | None = None,
    last_alone: bool = False,
) -> dict[str, Tensor]:
    """Model input of conversations, padded on the right.

    Args:
        images: One for each row; with k times as many rows as images, row i is about image
            `i % len(images)` and must begin with the same prompt as row `i % len(images)`.
        rows: Conversations, each with a user's turn first and at least one assistant's.
        max_length: Rows with more text tokens lose their end: see `room_for`.
        last_alone: The last answer alone counts as one; earlier ones belong to the prompt.

    Returns:
        `input_ids` and `attention_mask` of shape (rows, tokens), `answer_mask` of the same shape with 1
        on answers, and whatever the processor makes of the images.

    Raises:
        UserError: The tokenizer cannot tell where tokens lie in a text, or a template hides an answer.
    """
    end = turn_end(processor)
    rendered = [render(processor, turns, end) for turns in rows]
    if last_alone:
        rendered = [(text, spans[-1:]) for text, spans in rendered]
    return assemble(processor, [[image] for image in images], rendered, max_length)


def assemble(
    processor: Any,
    images: Sequence[Sequence[Image]],
    rendered: Sequence[tuple[str, Sequence[Span]]],
    max_length: int | None = None,
) -> dict[str, Tensor]:
    """Model input of conversations as a template writes them; see `encode`.

    Args:
        images: Of each conversation, equally many; of the first so many, if several are about the same.
        rendered: Texts, and where in them the answers lie.
        max_length: Rows with more text tokens lose their end: see `room_for`.
    """
    import torch

    tokenizer = processor.tokenizer
    prompts = [text[: spans[0][0]] for text, spans in rendered[: len(images)]]
    output = dict(
        processor(
            text=prompts,
            images=[list(own) for own in images] if any(images) else None,
            padding=True,
            padding_side="right",
            return_tensors="pt",
            add_special_tokens=adds_start(tokenizer, prompts[0]),
        )
    )
    lengths = output.pop("attention_mask").sum(dim=1).tolist()
    heads = [ids[:length] for ids, length in zip(output.pop("input_ids"), lengths, strict=True)]
    kinds = {name: output.pop(name) for name in PER_TOKEN if name in output}
    # A processor that gives labels (PaliGemma's) says with a token's type whether it belongs to the answer:
    # of type 0 is the prompt, whose tokens see all of each other, what comes later as well.
    later = 0 if output.pop("labels", None) is None else 1
    ids: list[Tensor] = []
    masks: list[Tensor] = []
    for number, (text, spans) in enumerate(rendered):
        head = heads[number % len(images)]
        tail, marks = tail_of(tokenizer, text, spans)
        room = len(tail) if max_length is None else room_for(processor, text[: spans[0][0]], max_length)
        ids.append(torch.cat([head, torch.tensor(tail[:room], dtype=head.dtype)]))
        masks.append(torch.cat([torch.zeros_like(head), torch.tensor(marks[:room], dtype=head.dtype)]))
    extra = {name: _pad(_heads(value, lengths, len(rendered)), ids, later) for name, value in kinds.items()}
    if _SEEN in output:
        seen = _heads(output.pop(_SEEN), lengths, len(rendered))
        longer = zip(seen, ids, strict=True)
        whole = [torch.cat([row, row[-1:].expand(len(to) - len(row), -1, -1)]) for row, to in longer]
        extra[_SEEN] = _pad(whole, ids)
    repeat = len(rendered) // len(images)
    pixels = {name: torch.cat([value] * repeat) for name, value in output.items()}
    return {
        "input_ids": _pad(ids, ids, tokenizer.pad_token_id),
        "attention_mask": _pad([torch.ones_like(row) for row in ids], ids),
        "answer_mask": _pad(masks, ids),
        **pixels,
        **extra,
    }


def _heads(value: Tensor, lengths: Sequence[int], rows: int) -> list[Tensor]:
    """Each row's part of what a processor has given for padded prompts."""
    return [value[number % len(value)][: lengths[number % len(value)]] for number in range(rows)]


def _pad(rows: Sequence[Tensor], like: Sequence[Tensor], value: int = 0) -> Tensor:
    width = max(len(row) for row in like)
    padded = rows[0].new_full((len(rows), width, *rows[0].shape[1:]), value)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def room_for(processor: Any, prompt: str, max_length: int) -> int:
    """How many tokens may follow a prompt in a row of at most so many text tokens.

    What a processor puts in an image's place does not count, however much it is: the prompt holds the image
    and is never cut, so that a limit on all tokens would leave large images without an answer.

    Args:
        prompt: As the template writes it, images' places marked.
        max_length: Text tokens of a row, the prompt's included.
    """
    tokenizer = processor.tokenizer
    ids = tokenizer(prompt, add_special_tokens=adds_start(tokenizer, prompt))["input_ids"]
    marks = [getattr(processor, name, None) for name in ("image_token", "boi_token")]
    places = {tokenizer.convert_tokens_to_ids(str(mark)) for mark in marks if mark}
    return max(0, max_length - sum(token not in places for token in ids))


def render(processor: Any, turns: Turns, end: str, images: int = 1) -> tuple[str, list[Span]]:
    """A conversation as the template writes it, and where in that text the answers lie.

    Args:
        turns: (role, text) with roles `system`, `user` and `assistant`.
        end: Put behind each answer: see `turn_end`.
        images: How many stand before the first user's text.

    Raises:
        UserError: The template does not write an answer where it has said that answers begin.
    """
    messages: list[dict[str, Any]] = []
    image = [{"type": "image"}] * images
    for role, text in turns:
        body = escape_control(text, control_tokens(processor)) + (end if role == "assistant" else "")
        parts = image if role == "user" else []
        messages.append({"role": role, "content": [*parts, {"type": "text", "text": body}]})
        image = [] if role == "user" else image
    whole = processor.apply_chat_template(messages, tokenize=False)
    spans: list[Span] = []
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            before = processor.apply_chat_template(
                messages[:number], tokenize=False, add_generation_prompt=True
            )
            through = processor.apply_chat_template(messages[: number + 1], tokenize=False)
            start = len(common(before, whole))
            stop = len(common(through, whole).rstrip())
            if stop <= start:
                raise UserError("the model's chat template changes earlier turns, so answers cannot be found")
            spans.append((start, stop))
    return whole, spans


def turn_end(processor: Any) -> str:
    """What has to follow an answer so that a model learns to stop: nothing if the template writes it."""
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "qzx"}]},
    ]
    after = processor.apply_chat_template(messages, tokenize=False).rpartition("qzx")[2]
    return "" if any(token in after for token in control_tokens(processor)) else processor.tokenizer.eos_token


def tail_of(tokenizer: Any, text: str, spans: Sequence[Span]) -> tuple[list[int], list[int]]:
    """Token ids of all that follows the prompt, and 1 for each that belongs to an answer."""
    if not tokenizer.is_fast:
        raise UserError(
            "given answers need a fast tokenizer, which gives the positions of tokens; there is none here"
        )
    start = spans[0][0]
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    head = tokenizer(text[:start], add_special_tokens=False)["input_ids"]
    if whole["input_ids"][: len(head)] == head:
        ids, offsets = whole["input_ids"][len(head) :], whole["offset_mapping"][len(head) :]
    else:
        # A token reaches from the prompt into the answer, which it cannot do when a model generates.
        rest = tokenizer(text[start:], add_special_tokens=False, return_offsets_mapping=True)
        ids = rest["input_ids"]
        offsets = [(left + start, right + start) for left, right in rest["offset_mapping"]]
    return ids, [int(_inside(offset, spans)) for offset in offsets]


def _inside(offset: Span, spans: Sequence[Span]) -> bool:
    left, right = offset
    # A token of white space alone may have no width.
    return any(left < stop and max(right, left + 1) > start for start, stop in spans)
