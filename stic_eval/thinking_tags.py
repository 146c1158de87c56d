"""What a model thinks and what it answers, told apart by tags in its text.

Tags that models are known to write:

- `<think>`, `</think>`: Qwen3-VL-Thinking, Qwen3.5, ERNIE-4.5-VL-Thinking (their chat templates write the
  first one, so that a text begins within the thinking), GLM-4.1V, 4.5V, 4.6V;
- `◁think▷`, `◁/think▷`: Kimi-VL-Thinking;
- `[THINK]`, `[/THINK]`: Magistral;
- `<|channel>thought`, `<channel|>`: Gemma 4.

Around the answer GLM-4.1V writes `<answer>`, `</answer>`, and GLM of all versions `<|begin_of_box|>`,
`<|end_of_box|>` (github zai-org/GLM-V: README.md, glmv_reward).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

TagPair = tuple[str, str]

THINKING: tuple[TagPair, ...] = (
    ("<think>", "</think>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
)
ANSWER: tuple[TagPair, ...] = (("<answer>", "</answer>"), ("<|begin_of_box|>", "<|end_of_box|>"))


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text in two.

    Attributes:
        answer: What is answered; empty where the thinking never closes.
        thinking: What stands between tags, without them.
        unclosed: Whether the text ends within the thinking: what there is of an answer is none.
        opened: Whether the text began within the thinking: a closing tag came first.
        start: Where in the text the answer begins, behind the last of the thinking and white space; the
            text's length where there is none.
    """

    answer: str
    thinking: str = ""
    unclosed: bool = False
    opened: bool = False
    start: int = field(default=0, compare=False)


def has_tags(text: str, tags: tuple[TagPair, ...], answer_tags: tuple[TagPair, ...]) -> bool:
    """Whether any of the tags stands in a text."""
    return _pattern(tags + answer_tags).search(text) is not None


def split(
    text: str, tags: Sequence[TagPair], answer_tags: Sequence[TagPair] = (), opened: bool = False
) -> SplitText:
    """Tells what a model thinks from what it answers.

    A tag within the thinking is part of it, and the first closing tag ends it. One that closes nothing says
    that all before it was thinking. An opening tag that nothing closes is thinking that was cut where the
    text begins with it, or has thought before; in the middle of an answer it is spoken of. Without any tag
    the text is the answer as it stands.

    Args:
        tags: Opening and closing tags of what it thinks.
        answer_tags: Such around the answer. Where one pair stands there, what is in it is the answer; of
            several the tags alone are taken away.
        opened: The prompt has ended with an opening tag; the text may have it nevertheless.
    """
    pattern = _pattern(tuple(tags))
    opened = opened and not text.lstrip().startswith(tuple(open_ for open_, _ in tags))
    if not opened and pattern.search(text) is None:
        return SplitText(_unwrap(text, answer_tags))
    parts: list[tuple[bool, str]] = []  # whether it is thought, and the text
    at, stray = 0, False
    closing: Sequence[str] | None = [close for _, close in tags] if opened else None
    for found in pattern.finditer(text):
        tag, before = found[0], text[at : found.start()]
        if closing is not None:
            if tag not in closing:
                continue  # the model speaks of tags
            parts.append((True, before))
            closing = None
        elif own := [close for open_, close in tags if open_ == tag]:
            first = not before.strip() or any(thought for thought, _ in parts)
            if not first and not any(close in text[found.end() :] for close in own):
                continue  # the answer speaks of tags
            parts.append((False, before))
            closing = own
        else:
            stray = stray or not any(thought for thought, _ in parts)
            parts = [(True, part) for _, part in (*parts, (False, before))]
        at = found.end()
    unclosed = closing is not None
    parts = [(unclosed or thought, part) for thought, part in (*parts, (False, text[at:]))]
    answer = "".join(part for thought, part in parts if not thought)
    thinking = "\n".join(part.strip() for thought, part in parts if thought and part.strip())
    answer = answer.strip() if len(parts) > 1 else answer  # without any tag as it stands
    thought = any(thought for thought, _ in parts)
    start = len(text) - len(text[at:].lstrip()) if thought else 0
    start = len(text) if unclosed else start
    return SplitText(_unwrap(answer, answer_tags), thinking, unclosed, stray or opened, start)


@lru_cache(maxsize=64)
def _pattern(tags: tuple[TagPair, ...]) -> re.Pattern[str]:
    """Any of the tags; of one that begins another the longer one."""
    return re.compile("|".join(re.escape(tag) for tag in _longest_first(tags)) or r"(?!)")


def _longest_first(tags: Sequence[TagPair]) -> list[str]:
    return sorted({tag for pair in tags for tag in pair}, key=lambda tag: (-len(tag), tag))


def _unwrap(answer: str, tags: Sequence[TagPair]) -> str:
    """An answer without the tags around it."""
    for open_, close in tags:
        if open_ not in answer and close not in answer:
            continue
        if answer.count(open_) == 1:
            inside = answer.partition(open_)[2].partition(close)[0]
        else:
            inside = answer.replace(open_, "").replace(close, "")
        answer = inside.strip()
    return answer


def opening(prompt: str, tags: Sequence[TagPair]) -> str:
    """The opening tag that a prompt ends with, so that what follows is thinking; empty: none."""
    end = prompt.rstrip()
    return next((open_ for open_, _ in tags if end.endswith(open_)), "")
