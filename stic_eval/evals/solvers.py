"""How an answer is obtained: asked for directly, or after a description of the image."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from stic_eval.models.base import VLM
from stic_eval.types import Generation, ImageRef, Message, Request, Response, Sample

Solved = tuple[Sample, str | None, Response]  # sample, description (if one was asked for), answer


def direct(samples: Sequence[Sample], model: VLM, generation: Generation) -> Iterator[Solved]:
    """Asks each question as it is.

    Args:
        samples: What is asked.
        model: Who is asked.
        generation: Decoding of the answer.

    Yields:
        Every sample once, without a description, in the order in which answers come.
    """
    asked = ((sample, question(sample, generation)) for sample in samples)
    for sample, response in _matched(asked, model):
        yield sample, None, response


def describe_and_respond(
    samples: Sequence[Sample],
    model: VLM,
    generation: Generation,
    *,
    describe_prompt: str,
    describe_generation: Generation,
    separator: str = "\n",
    sees_image: bool = True,
) -> Iterator[Solved]:
    """Has the image described first, then asks the question with the description before it (STIC, 2024).

    Two conversations that know nothing of each other; the image is there in the second as well. A
    sample without image is asked directly, for there is nothing to describe.

    Args:
        samples: What is asked.
        model: Who is asked.
        generation: Decoding of the answer.
        describe_prompt: What the first conversation asks.
        describe_generation: Decoding of the description.
        separator: Between description and question; one newline in the paper, two in its code.
        sees_image: Whether the first conversation has the image; not so in the code's MMBench script.

    Yields:
        Every sample once, with the description that it was asked with. Tokens and seconds of the
        answer include the description's, which the answer would not be there without. Where the
        description failed, or was cut while the model was thinking, that is the answer.
    """
    described: dict[Request, Response] = {}
    waiting: dict[Request, list[Sample]] = {}  # for a description that has been asked for
    answering: dict[Request, deque[Sample]] = {}
    ready: deque[Sample] = deque()
    source = iter(samples)

    def first(sample: Sample) -> Request:
        if not sees_image:  # one description, whatever the image
            return _request(describe_prompt, (), describe_generation)
        own = seeded(describe_generation, " ".join(image.sha256 for image in sample.images))
        return _request(describe_prompt, sample.images, own)

    def asked(sample: Sample) -> Request:
        text = sample.question
        if sample.images:
            text = f"Image description:\n{described[first(sample)].text}{separator}{text}"
        request = _request(text, sample.images, seeded(generation, sample.id))
        answering.setdefault(request, deque()).append(sample)
        return request

    def feed() -> Iterator[Request]:
        """Questions whose image is described come first: a model may still have the image at hand."""
        while True:
            if ready:
                yield asked(ready.popleft())
                continue
            sample = next(source, None)
            if sample is None:
                return
            wanted = first(sample)
            if not sample.images or wanted in described:
                ready.append(sample)
            elif wanted in waiting:
                waiting[wanted].append(sample)
            else:
                # Each image is described once, however many questions are asked about it.
                waiting[wanted] = [sample]
                yield wanted

    going = True
    while going:
        going = False
        for request, response in model.generate(feed()):
            going = True
            if request in waiting:
                same = waiting.pop(request)
                # Not kept: a later question asks for it once more.
                if response.finish_reason == "failed" or response.unclosed:
                    for sample in same:
                        yield sample, None, response
                else:
                    described[request] = response
                    ready.extend(same)
                continue
            sample = _next(answering, request)
            if not sample.images:
                yield sample, None, response
                continue
            before = described[first(sample)]
            tokens, seconds = response.n_tokens + before.n_tokens, response.seconds + before.seconds
            yield sample, before.text, replace(response, n_tokens=tokens, seconds=seconds)


def question(sample: Sample, generation: Generation) -> Request:
    """A sample as it is asked directly."""
    return _request(sample.question, sample.images, seeded(generation, sample.id))


def seeded(generation: Generation, of: str) -> Generation:
    """Decoding whose draws are one request's own: with one seed for all, all would draw the same noise.

    Args:
        generation: Decoding of all of them; greedy is left as it is.
        of: What tells the request from the others: a row's id.
    """
    if generation.temperature <= 0:
        return generation
    return replace(generation, seed=zlib.crc32(f"{generation.seed} {of}".encode("utf-8", "replace")))


def _request(text: str, images: tuple[ImageRef, ...], generation: Generation) -> Request:
    return Request((Message("user", text),), images, generation)


def _matched(asked: Iterable[tuple[Sample, Request]], model: VLM) -> Iterator[tuple[Sample, Response]]:
    """Asks everything and finds the sample that each answer belongs to; samples may ask the same."""
    waiting: dict[Request, deque[Sample]] = {}

    def requests() -> Iterator[Request]:
        for sample, request in asked:
            waiting.setdefault(request, deque()).append(sample)
            yield request

    for request, response in model.generate(requests()):
        yield _next(waiting, request), response


def _next(waiting: dict[Request, deque[Sample]], request: Request) -> Sample:
    """The first sample that waits for an answer; what nothing waits for is forgotten."""
    sample = waiting[request].popleft()
    if not waiting[request]:
        del waiting[request]
    return sample
