"""What a model answers, without what it thinks: in front of whoever asks, behind the cache.

Caches keep what was written, so that other tags can be looked for in it later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from stic_eval.models.base import VLM
from stic_eval.settings import ThinkingConfig
from stic_eval.tags import split
from stic_eval.types import Request, Response


class ThinkingVLM:
    """A VLM that has room to think, and whose responses hold what it thought apart from their text.

    Args:
        vlm: Writes both.
        how: Tags, and the room.
    """

    def __init__(self, vlm: VLM, how: ThinkingConfig) -> None:
        self.fingerprint, self._vlm, self._how = vlm.fingerprint, vlm, how

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields every request with its response, as they come."""
        widened = (with_room(request, self._how.max_new_tokens) for request in requests)
        for request, response in self._vlm.generate(widened):
            yield with_room(request, -self._how.max_new_tokens), answered(response, self._how)


def with_room(request: Request, tokens: int) -> Request:
    """A request with more tokens, for what is thought first; where the answer has begun, as it is."""
    if not tokens or request.messages[-1].role == "assistant":
        return request
    how = request.generation
    return replace(request, generation=replace(how, max_new_tokens=how.max_new_tokens + tokens))


def answered(response: Response, how: ThinkingConfig) -> Response:
    """A response with the answer as its text, and beside it what was thought.

    Thinking that somebody else has told from the answer (a server) stays that; without an answer it was
    never closed.
    """
    if response.finish_reason == "failed":
        return response
    apart = bool(response.thinking)
    found = split(response.text, how.tags, how.answer_tags, how.opened and not apart)
    if apart and not response.text:
        found = replace(found, unclosed=True)
    thinking = "\n".join(part for part in (response.thinking, found.thinking) if part)
    return replace(
        response, text=found.answer, thinking=thinking, unclosed=found.unclosed, opened=found.opened
    )
