"""What a model answers, without what it thinks: in front of whoever asks, behind the cache.

Caches keep what was written, so that other tags can be looked for in it later.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from stic_eval.contracts.engine import Answering
from stic_eval.models.detokenize import cut
from stic_eval.setting_groups import ThinkingConfig
from stic_eval.thinking_tags import has_tags, split
from stic_eval.types import Request, Response


class ThinkingVLM:
    """A VLM that has room to think, and whose responses hold what it thought apart from their text.

    Args:
        write: Asks the model, which writes both.
        stop: Texts that end its answers, beside those of requests.
    """

    def __init__(
        self, write: Answering, fingerprint: str, how: ThinkingConfig, stop: tuple[str, ...] = ()
    ) -> None:
        self.fingerprint, self._write, self._how, self._stop = fingerprint, write, how, stop

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields every request with its response, as they come."""
        room, stop = self._how.max_new_tokens, self._stop
        for request, response in self._write(_more(request, room, stop) for request in requests):
            found = separate_thinking(response, self._how)
            # By these tags more of it may be the answer than whoever wrote it knows.
            text = cut(found.text, request.generation.stop)
            found = found if text == found.text else replace(found, text=text.strip())
            yield _less(request, room, stop), found


def _more(request: Request, room: int, stop: tuple[str, ...]) -> Request:
    """A request with more tokens, for what is thought first; where the answer has begun, that is over."""
    how = request.generation
    room = 0 if request.messages[-1].role == "assistant" else room
    if not room and not stop:
        return request
    return replace(
        request, generation=replace(how, max_new_tokens=how.max_new_tokens + room, stop=how.stop + stop)
    )


def _less(request: Request, room: int, stop: tuple[str, ...]) -> Request:
    """A request as it was before `_more`."""
    how = request.generation
    room = 0 if request.messages[-1].role == "assistant" else room
    own = how.stop[: len(how.stop) - len(stop)]
    return replace(request, generation=replace(how, max_new_tokens=how.max_new_tokens - room, stop=own))


def separate_thinking(response: Response, how: ThinkingConfig) -> Response:
    """A response with the answer as its text, and beside it what was thought.

    Thinking that somebody else has told from the answer (a server) stays that; without an answer it was
    never closed.
    """
    if response.finish_reason == "failed":
        return response
    plain = not (how.opened or response.thinking or response.unclosed or response.opened)
    if plain and not has_tags(response.text, how.tags, how.answer_tags):  # as of nearly all
        return response
    apart = bool(response.thinking)
    found = split(response.text, how.tags, how.answer_tags, how.opened and not apart)
    thinking = "\n".join(part for part in (response.thinking, found.thinking) if part)
    unclosed = found.unclosed or (apart and not response.text)
    before = response.text, response.thinking, response.unclosed, response.opened
    if before == (found.answer, thinking, unclosed, found.opened):
        return response
    return replace(response, text=found.answer, thinking=thinking, unclosed=unclosed, opened=found.opened)
