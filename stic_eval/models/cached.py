"""The response cache in front of a model: an answer that was given once is never computed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from stic_eval.models.base import VLM
from stic_eval.store import ResponseStore, content_key, request_key
from stic_eval.types import Request, Response

# A commit comes after so many answers or seconds, whatever is first: what a kill costs at most.
_COMMIT_ANSWERS, _COMMIT_SECONDS = 64, 3.0


class CachedVLM:
    """A VLM that asks the model behind it only what the store does not hold.

    Args:
        make: Gives the model behind; called when, and only if, there is something to ask.
        fingerprint: Of that model, known before it is loaded.
        store: Where answers are kept, as they come.
    """

    def __init__(self, make: Callable[[], VLM], fingerprint: str, store: ResponseStore) -> None:
        self.fingerprint = fingerprint
        self._make, self._store = make, store

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields stored answers at once, then the others as the model gives them.

        Requests that are alike are asked once and answered each.
        """
        waiting: dict[str, list[Request]] = {}
        for request in requests:
            waiting.setdefault(content_key([self.fingerprint, request_key(request)]), []).append(request)
        for key, response in self._store.get_many(waiting).items():
            for request in waiting.pop(key):
                yield request, response
        if not waiting:
            return
        keys = {same[0]: key for key, same in waiting.items()}
        fresh: dict[str, Response] = {}
        committed = time.monotonic()
        try:
            for asked, response in self._make().generate(list(keys)):
                key = keys[asked]
                fresh[key] = response
                if len(fresh) >= _COMMIT_ANSWERS or time.monotonic() - committed >= _COMMIT_SECONDS:
                    self._store.put_many(fresh)
                    fresh, committed = {}, time.monotonic()
                for request in waiting[key]:
                    yield request, response
        finally:
            # Also when the model fails, or the consumer stops listening.
            if fresh:
                self._store.put_many(fresh)
