"""Generated tokens as text, and where a text ends an answer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from stic_eval.thinking_tags import THINKING, TagPair, opening, split


def cut(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of those that end it."""
    for end in stop:
        text = text.partition(end)[0]
    return text


def cut_answer(text: str, stop: Sequence[str], tags: Sequence[TagPair] = THINKING, opened: str = "") -> str:
    """A text up to the first of those that end an answer; what is thought before it may have them.

    Args:
        tags: Opening and closing tags of what it thinks.
        opened: The opening tag that the prompt ends with; empty: none.
    """
    if not stop:
        return text
    # Whoever stops at a tag means it.
    text = cut(text, [end for end in stop if any(tag in end for pair in tags for tag in pair)])
    start = max(split(opened + text, tags).start - len(opened), 0)
    return text[:start] + cut(text[start:], stop)


class Detokenizer:
    """What tokens say.

    Special tokens are left out, but for those that are tags, or a piece of one.

    Args:
        tags: Of what is thought.
        answer_tags: Of answers.
    """

    def __init__(self, tokenizer: Any, tags: Sequence[TagPair], answer_tags: Sequence[TagPair] = ()) -> None:
        self._tokenizer, self._tags = tokenizer, tags
        names = {tag for pair in (*tags, *answer_tags) for tag in pair}
        special = {int(i): str(token) for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._kept = {
            i
            for i, token in special.items()
            if token.strip() and any(token.strip() in name for name in names)
        }
        self._dropped = {*tokenizer.all_special_ids, *special} - self._kept

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text."""
        if self._kept.intersection(tokens):
            tokens = [token for token in tokens if token not in self._dropped]
        text: str = self._tokenizer.decode(
            tokens,
            skip_special_tokens=not self._kept.intersection(tokens),
            clean_up_tokenization_spaces=False,
        )
        return text

    def answer(self, tokens: Sequence[int], stop: Sequence[str], prompt: str = "") -> tuple[str, bool]:
        """Tokens as text up to the first of those that end the answer, and whether there is one.

        Args:
            prompt: What is answered, or the end of it.
        """
        decoded = self.text(tokens)
        text = cut_answer(decoded, stop, self._tags, opening(prompt, self._tags))
        return text, len(text) < len(decoded)

    def stops(self, tokens: Sequence[int], stop: Sequence[str], prompt: str = "") -> bool:
        """Whether a text that ends the answer has just appeared: the last token completes it, or goes beyond.

        Args:
            tokens: So far; in the answer none of these texts was there before the last token.
            prompt: What is answered, or the end of it.
        """
        if not stop:
            return False
        # A token is a byte at least; one more, for a tokenizer may swallow the blank in front of the first.
        most = max(len(text.encode()) for text in stop) + 1
        end: list[int] = []
        for token in reversed(tokens):
            if token not in self._dropped:
                end.append(token)
            if len(end) > most:
                break
        ending = self.text(end[::-1])
        # The end alone does not say whether it is thought.
        return any(text in ending for text in stop) and self.answer(tokens, stop, prompt)[1]

    def cut_at_stop(self, tokens: Sequence[int], stop: Sequence[str], prompt: str = "") -> Sequence[int]:
        """Tokens up to the one that completes the first text that ends the answer; all, if there is none."""

        def there(count: int) -> bool:
            return self.answer(tokens[:count], stop, prompt)[1]

        if not stop or not there(len(tokens)):
            return tokens
        return tokens[: bisect_left(range(len(tokens) + 1), True, key=there)]
