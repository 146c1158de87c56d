"""Generated tokens as text, and where a text ends an answer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from stic_eval.tags import Pair


def cut(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of those that end it."""
    for end in stop:
        text = text.partition(end)[0]
    return text


class Detokenizer:
    """What tokens say.

    Special tokens are left out, but for those that are tags, or a piece of one.

    Args:
        tokenizer: The model's.
        tags: Of what is thought, and of answers.
    """

    def __init__(self, tokenizer: Any, tags: Sequence[Pair]) -> None:
        self._tokenizer = tokenizer
        names = {tag for pair in tags for tag in pair}
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

    def stops(self, tokens: Sequence[int], stop: Sequence[str]) -> bool:
        """Whether a text that ends the answer has just appeared: the last token completes it, or goes beyond.

        Args:
            tokens: So far; none of these texts was there before the last token.
            stop: The texts.
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
        said = self.text(end[::-1])
        return any(text in said for text in stop)

    def ended(self, tokens: Sequence[int], stop: Sequence[str]) -> Sequence[int]:
        """Tokens up to the one that completes the first text that ends the answer; all, if there is none."""

        def there(count: int) -> bool:
            said = self.text(tokens[:count])
            return any(text in said for text in stop)

        if not stop or not there(len(tokens)):
            return tokens
        return tokens[: bisect_left(range(len(tokens) + 1), True, key=there)]
