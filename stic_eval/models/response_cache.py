"""The response cache in front of a model: an answer that was given once is never computed again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

from stic_eval.contracts.engine import VLM, Scorer
from stic_eval.store import ResponseStore, content_key, request_key
from stic_eval.types import Generation, Likelihood, Request, Response

# A commit comes after so many answers or seconds, whatever is first: what a kill costs at most.
_COMMIT_ANSWERS, _COMMIT_SECONDS = 64, 3.0
# Requests that are looked up at a time, and known answers that are held while the model is at work.
_CHUNK, _HELD = 64, 1024
_SCORED = 512  # likelihoods that are looked up at a time
_NO_DECODING = Generation(max_new_tokens=1)


class CachedVLM:
    """A VLM that asks the model behind it only what the store does not hold.

    Args:
        make: Gives the model behind; called when, and only if, there is something to ask.
        fingerprint: Of that model, known before it is loaded.
    """

    def __init__(self, make: Callable[[], VLM], fingerprint: str, store: ResponseStore) -> None:
        self.fingerprint = fingerprint
        self._make, self._store = make, store

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields stored answers and, as the model gives them, the others.

        Requests are taken from the stream as they are needed. Those that are alike and under way at the
        same time are asked once and answered each. A failure is handed on and not stored.
        """
        stream = iter(requests)
        known: deque[tuple[Request, Response]] = deque()
        waiting: dict[str, list[Request]] = {}
        keys: dict[Request, str] = {}
        fresh: dict[str, Response] = {}
        ended = False

        def unknown() -> Iterator[Request]:
            """What has to be asked; ends early when too many known answers wait to be handed on."""
            nonlocal ended
            while len(known) < _HELD:
                chunk = list(islice(stream, _CHUNK))
                ended = not chunk
                if ended:
                    return
                keyed = [(content_key([self.fingerprint, request_key(one)]), one) for one in chunk]
                found = {**self._store.get_many([key for key, _ in keyed]), **fresh}
                asked = []
                for key, request in keyed:
                    if key in found:
                        known.append((request, found[key]))
                    elif key in waiting:
                        waiting[key].append(request)
                    else:
                        waiting[key], keys[request] = [request], key
                        asked.append(request)
                yield from asked

        def hand_on() -> Iterator[tuple[Request, Response]]:
            while known:
                yield known.popleft()

        committed = time.monotonic()
        try:
            while not ended:
                unasked = unknown()
                first = next(unasked, None)
                yield from hand_on()
                if first is None:
                    continue
                for request, response in self._make().generate(chain([first], unasked)):
                    yield from hand_on()
                    key = keys.pop(request)
                    if response.finish_reason != "failed":
                        fresh[key] = response
                    if len(fresh) >= _COMMIT_ANSWERS or time.monotonic() - committed >= _COMMIT_SECONDS:
                        self._store.put_many(fresh)
                        fresh.clear()
                        committed = time.monotonic()
                    for same in waiting.pop(key):
                        yield same, response
                yield from hand_on()
        finally:
            # Also when the model fails, or the consumer stops listening.
            if fresh:
                self._store.put_many(fresh)


GivenAnswer = tuple[Request, str]


def cached_likelihoods(
    make: Callable[[], Scorer], fingerprint: str, store: ResponseStore, asked: Sequence[GivenAnswer]
) -> Iterator[Likelihood]:
    """Likelihoods of answers in the order of the questions; what was scored once is not scored again.

    They lie among the responses, under keys of their own: as a response's text is the number.

    Args:
        make: Gives the model; called when, and only if, there is something to score.
    """
    keys = [_likelihood_key(fingerprint, one) for one in asked]
    for start in range(0, len(asked), _SCORED):
        part = keys[start : start + _SCORED]
        found = store.get_many(part)
        missing = {key: one for key, one in zip(part, asked[start:], strict=False) if key not in found}
        if missing:
            found |= _score_missing(make(), missing, store)
        yield from (Likelihood(float(found[key].text), found[key].n_tokens) for key in part)


def _score_missing(
    model: Scorer, missing: Mapping[str, GivenAnswer], store: ResponseStore
) -> dict[str, Response]:
    """Scores what the store does not hold, by key, and puts it there; also when the model fails."""
    key_of = {one: key for key, one in missing.items()}
    found: dict[str, Response] = {}
    fresh: dict[str, Response] = {}
    last = committed = time.monotonic()
    try:
        for one, value in model.likelihoods(missing.values()):
            now = time.monotonic()
            fresh[key_of[one]] = Response(repr(value.logp), value.n_tokens, "stop", now - last)
            last = now
            if now - committed >= _COMMIT_SECONDS:
                store.put_many(fresh)
                found, fresh, committed = found | fresh, {}, now
    finally:
        store.put_many(fresh)
    return found | fresh


def _likelihood_key(fingerprint: str, asked: GivenAnswer) -> str:
    request, answer = asked
    what = request_key(replace(request, generation=_NO_DECODING))
    return content_key([fingerprint, "likelihood", what, answer])
