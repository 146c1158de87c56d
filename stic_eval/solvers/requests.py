"""Requests of solvers: a sample as it is asked, draws of its own, and whose answer is whose."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from stic_eval.contracts.engine import VLM
from stic_eval.types import Generation, ImageRef, Message, Request, Response, Sample

Of = TypeVar("Of")


def question(sample: Sample, generation: Generation) -> Request:
    """A sample as it is asked directly."""
    return request_of(sample.question, sample.images, with_seed(generation, sample.id))


def with_seed(generation: Generation, of: str) -> Generation:
    """Decoding whose draws are one request's own: with one seed for all, all would draw the same noise.

    Args:
        generation: Decoding of all of them; greedy is left as it is.
        of: What tells the request from the others: a row's id.
    """
    if generation.temperature <= 0:
        return generation
    return replace(generation, seed=zlib.crc32(f"{generation.seed} {of}".encode("utf-8", "replace")))


def request_of(text: str, images: tuple[ImageRef, ...], generation: Generation) -> Request:
    """One question about images."""
    return Request((Message("user", text),), images, generation)


def match(asked: Iterable[tuple[Of, Request]], model: VLM) -> Iterator[tuple[Of, Response]]:
    """Asks everything and finds what each answer belongs to: a sample, say. Several may ask the same."""
    waiting: dict[Request, deque[Of]] = {}

    def requests() -> Iterator[Request]:
        for of, request in asked:
            waiting.setdefault(request, deque()).append(of)
            yield request

    for request, response in model.generate(requests()):
        yield next_of(waiting, request), response


def next_of(waiting: dict[Request, deque[Of]], request: Request) -> Of:
    """The first that waits for an answer; what nothing waits for is forgotten."""
    first = waiting[request].popleft()
    if not waiting[request]:
        del waiting[request]
    return first
