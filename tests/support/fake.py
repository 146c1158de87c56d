"""A model without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from stic_eval.types import Request, Response


class FakeVLM:
    """Answers by a function.

    Args:
        answer: Request -> text.
        fingerprint: Its name in keys.

    Attributes:
        asked: Every request so far, in order.
    """

    def __init__(self, answer: Callable[[Request], str], fingerprint: str = "fake") -> None:
        self.fingerprint = fingerprint
        self.asked: list[Request] = []
        self._answer = answer

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields answers in the requests' order; a token is a word, plus one for the end."""
        for request in requests:
            self.asked.append(request)
            text = self._answer(request)
            yield request, Response(text, len(text.split()) + 1, "stop")
