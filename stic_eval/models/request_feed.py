"""Requests on their way to a model: pulled from a stream as they are needed, and prepared ahead of it.

Memory does not grow with the stream: so many requests are looked at, so many of them prepared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from stic_eval.types import Request

if TYPE_CHECKING:
    from stic_eval.models.prompt_tokens import Beginning, CutPrompt, Key, Prompter, RenderedPrompt

# Requests that are looked at for common images and like lengths, and how many are taken at a time.
WINDOW, _STEP = 256, 32
# Requests, and bytes of pixels, that are prepared ahead of the model.
_AHEAD, _AHEAD_BYTES = 96, 256 << 20


class Feed:
    """What comes next.

    Args:
        known: Gives a beginning that an earlier request has had.
        at_hand: Whether what the model has computed of a beginning is there: such requests come first.
    """

    def __init__(
        self,
        requests: Iterable[Request],
        prompter: Prompter,
        known: Callable[[Key], Beginning | None],
        at_hand: Callable[[Key], bool],
        workers: int,
    ) -> None:
        self._stream, self._prompter, self._known, self._at_hand = iter(requests), prompter, known, at_hand
        self._waiting: deque[list[RenderedPrompt]] = deque()  # alike in their beginnings
        self._prepared: deque[tuple[int, Future[list[CutPrompt]]]] = deque()  # with how many they are
        self._largest = 1  # bytes of the pixels of a request's images, the most so far
        self._ready: deque[CutPrompt] = deque()
        self._ended = False
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="prepare")

    def close(self) -> None:
        """Stops the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def empty(self) -> bool:
        """Whether nothing is left, as far as the stream goes for now."""
        return self._ended and not (self._waiting or self._prepared or self._ready)

    def take(self, most: int, idle: bool) -> list[CutPrompt]:
        """The next prompts, at most so many: those that are ready.

        Args:
            idle: The model has nothing else to do: it is worth waiting for some.

        Raises:
            UserError: An image cannot be decoded.
        """
        # An idle model begins with few, while more are prepared; else few rows are not worth a pass.
        enough = max(1, most // (4 if idle else 2))
        self._refill()
        while self._prepared and len(self._ready) < most:
            if not self._prepared[0][1].done() and not (idle and len(self._ready) < enough):
                break
            prompts = self._prepared.popleft()[1].result()
            self._largest = max(self._largest, prompts[0].group.pixel_bytes)
            self._ready.extend(prompts)
            self._refill()
        if self._prepared and len(self._ready) < enough:
            return []
        return [self._ready.popleft() for _ in range(min(most, len(self._ready)))]

    def give_back(self, prompts: Iterable[CutPrompt]) -> None:
        """Puts prompts in front again."""
        self._ready.extendleft(reversed(list(prompts)))

    def _refill(self) -> None:
        wanted = WINDOW - sum(map(len, self._waiting))
        if not self._ended and wanted >= _STEP:
            new = list(islice(self._stream, wanted))
            self._ended = len(new) < wanted
            self._arrange(new)
        while self._waiting and self._room_ahead():
            alike = self._waiting.popleft()
            future = self._pool.submit(self._prompter.cut, alike, self._known(alike[0].key))
            # What is at hand now may not be for long, and is quickly prepared.
            put = self._prepared.appendleft if self._at_hand(alike[0].key) else self._prepared.append
            put((len(alike), future))

    def _room_ahead(self) -> bool:
        at_hand = self._at_hand(self._waiting[0][0].key)
        most = 2 * _AHEAD if at_hand else _AHEAD
        ahead = sum(count for count, _ in self._prepared)
        return ahead < most and (at_hand or len(self._prepared) * self._largest < _AHEAD_BYTES)

    def _arrange(self, new: list[Request]) -> None:
        """Sorts new requests in with waiting ones: alike together, known beginnings first, then longest."""
        groups: dict[Key, list[RenderedPrompt]] = {}
        for one in (*(one for alike in self._waiting for one in alike), *self._prompter.render(new)):
            groups.setdefault(one.key, []).append(one)
        order = sorted(
            groups.values(),
            key=lambda alike: (not self._at_hand(alike[0].key), -max(len(one.text) for one in alike)),
        )
        self._waiting = deque(order)
