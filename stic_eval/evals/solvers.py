"""How an answer is obtained: asked for directly, or after a description of the image."""

from __future__ import annotations

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
    asked = ((sample, _request(sample.question, sample.images, generation)) for sample in samples)
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
        answer include the description's, which the answer would not be there without.
    """
    descriptions: dict[Request, Response] = {}
    wanted = {
        sample.id: _request(describe_prompt, sample.images if sees_image else (), describe_generation)
        for sample in samples
        if sample.images
    }
    # Each image is described once, however many questions are asked about it.
    for request, response in model.generate(list(dict.fromkeys(wanted.values()))):
        descriptions[request] = response

    def prompted(sample: Sample) -> Request:
        question = sample.question
        if sample.id in wanted:
            description = descriptions[wanted[sample.id]].text
            question = f"Image description:\n{description}{separator}{question}"
        return _request(question, sample.images, generation)

    for sample, response in _matched(((sample, prompted(sample)) for sample in samples), model):
        if sample.id not in wanted:
            yield sample, None, response
            continue
        first = descriptions[wanted[sample.id]]
        tokens, seconds = response.n_tokens + first.n_tokens, response.seconds + first.seconds
        yield sample, first.text, replace(response, n_tokens=tokens, seconds=seconds)


def _request(text: str, images: tuple[ImageRef, ...], generation: Generation) -> Request:
    return Request((Message("user", text),), images, generation)


def _matched(asked: Iterable[tuple[Sample, Request]], model: VLM) -> Iterator[tuple[Sample, Response]]:
    """Asks everything and finds the sample that each answer belongs to; samples may ask the same."""
    waiting: dict[Request, deque[Sample]] = {}
    requests = []
    for sample, request in asked:
        waiting.setdefault(request, deque()).append(sample)
        requests.append(request)
    for request, response in model.generate(requests):
        yield waiting[request].popleft(), response
