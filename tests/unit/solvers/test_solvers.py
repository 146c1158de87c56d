"""What a solver asks, and whose answer is whose."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.types import Generation, ImageRef, Message, Request, Response, Sample
from tests.support.fake import FakeVLM
from tests.support.scripted import solved

SHORT, LONG = Generation(5), Generation(50)
DESCRIBE: dict[str, Any] = {"name": "describe_and_respond", "prompt": "D", "max_new_tokens": 50}


@pytest.fixture
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


def sample(number: int, image: ImageRef | None, question: str = "") -> Sample:
    return Sample(str(number), (image,) if image else (), question or f"question {number}", "x")


def echo(request: Request) -> str:
    names = ",".join(image.source for image in request.images)
    return f"[{names}|{request.messages[0].text}]"


class Shuffled(FakeVLM):
    """Answers in another order, as batches sorted by length do."""

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        answers = list(super().generate(requests))
        random.Random(1).shuffle(answers)
        yield from answers


def test_direct_asks_the_question_as_it_is(images: list[ImageRef]) -> None:
    samples = [*(sample(i, image) for i, image in enumerate(images)), sample(99, None)]
    model = Shuffled(echo)
    for found, description, response in solved(samples, model, SHORT):
        name = found.images[0].source if found.images else ""
        assert response.text == f"[{name}|{found.question}]"
        assert description is None
    assert {r.generation for r in model.asked} == {SHORT}
    assert {len(r.messages) for r in model.asked} == {1}


def test_every_row_draws_its_own_noise(images: list[ImageRef]) -> None:
    """Seeds depend on the generation's and on the row, and on nothing else."""

    def seeds(samples: list[Sample], seed: int) -> list[dict[str, int]]:
        sampled = Generation(5, temperature=0.7, seed=seed)
        direct_, described = Shuffled(echo), Shuffled(echo)
        list(solved(samples, direct_, sampled))
        list(solved(samples, described, sampled, **DESCRIBE))
        return [
            {
                r.messages[0].text.splitlines()[-1]: r.generation.seed
                for r in model.asked
                if r.generation != LONG
            }
            for model in (direct_, described)
        ]

    samples = [sample(i, images[0]) for i in range(5)]
    found, described = seeds(samples, 0)
    assert found == described == seeds(samples[::-1], 0)[0]
    assert len(set(found.values())) == 5
    assert not set(found.values()) & set(seeds(samples, 1)[0].values())


def test_samples_that_ask_the_same_are_each_answered(images: list[ImageRef]) -> None:
    samples = [sample(i, images[0], "same") for i in range(4)]
    for solve in (
        solved(samples, Shuffled(echo), SHORT),
        solved(samples, Shuffled(echo), SHORT, **DESCRIBE),
    ):
        assert sorted(found.id for found, _, _ in solve) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_describing_comes_first_and_in_a_conversation_of_its_own(
    images: list[ImageRef], separator: str
) -> None:
    samples = [sample(i, images[i // 2]) for i in range(2 * len(images))]
    model = Shuffled(echo)
    answered = solved(samples, model, SHORT, **{**DESCRIBE, "prompt": "Describe."}, separator=separator)
    for found, description, response in answered:
        name = found.images[0].source
        assert description == f"[{name}|Describe.]"
        assert response.text == f"[{name}|Image description:\n{description}{separator}{found.question}]"
    descriptions, questions = model.asked[: len(images)], model.asked[len(images) :]
    assert {r.generation for r in descriptions} == {LONG}  # each image is described once
    assert {r.generation for r in questions} == {SHORT}
    assert all(r.messages == (Message("user", "Describe."),) for r in descriptions)


def test_a_description_may_be_made_without_the_image(images: list[ImageRef]) -> None:
    model = FakeVLM(echo)
    samples = [sample(i, image) for i, image in enumerate(images)]
    answered = list(solved(samples, model, SHORT, **DESCRIBE, sees_image=False))
    assert {description for _, description, _ in answered} == {"[|D]"}
    assert [r.images for r in model.asked] == [(), *(s.images for s in samples)]


def test_without_an_image_nothing_is_described() -> None:
    model = FakeVLM(echo)
    ((_, description, response),) = solved([sample(1, None)], model, SHORT, **DESCRIBE)
    assert (description, response.text) == (None, "[|question 1]")
    assert len(model.asked) == 1


def test_an_answer_costs_what_its_description_cost_too(images: list[ImageRef]) -> None:
    class Timed(FakeVLM):
        def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
            for request, response in super().generate(requests):
                seconds = 4.0 if request.generation == LONG else 1.0
                yield request, Response(response.text, 10 if seconds > 1 else 3, "length", seconds)

    samples = [sample(0, images[0]), sample(1, images[0]), sample(2, None)]
    answered = solved(samples, Timed(echo), SHORT, **DESCRIBE)
    assert [(r.n_tokens, r.seconds, r.finish_reason) for _, _, r in answered] == [
        (13, 5.0, "length"), (13, 5.0, "length"), (3, 1.0, "length"),
    ]  # fmt: skip


def test_a_real_model_reads_the_description(tiny_vlm: Path, images: list[ImageRef]) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")
    samples = [sample(i, image, "What is it?") for i, image in enumerate(images)]
    plain = {s.id: r.text for s, _, r in solved(samples, model, SHORT)}
    described = list(solved(samples, model, SHORT, **{**DESCRIBE, "prompt": "D?", "max_new_tokens": 9}))
    assert {s.id for s, _, _ in described} == set(plain)
    assert any(r.text != plain[s.id] for s, _, r in described)
    for found, description, response in described:
        text = f"Image description:\n{description}\nWhat is it?"
        ((_, again),) = model.generate([Request((Message("user", text),), found.images, SHORT)])
        assert again.text == response.text


def drawn(texts: dict[str, list[str]]) -> FakeVLM:
    """A model whose n-th answer to a question is the n-th of its texts, whatever the order of requests."""
    seen: dict[str, list[int]] = {}

    def answer(request: Request) -> str:
        question = request.messages[0].text
        seeds = seen.setdefault(question, [])
        seeds.append(request.generation.seed)
        return texts[question][len(seeds) - 1]

    return FakeVLM(answer)


def test_the_majority_of_the_answers_as_they_are_read_counts() -> None:
    texts = {"question 1": [" B ", "A", "B", "A\n", "A "], "question 2": ["B", "A", "A", "B", ""]}
    model = drawn(texts)
    samples = [sample(n, None) for n in (1, 2)]
    found = {s.id: r for s, _, r in solved(samples, model, SHORT, "self_consistency", k=5)}
    assert found["1"].text == "A"  # the first draw that says so, as it was written
    assert found["2"].text == "B"  # as common as A, and seen first; what cannot be read has no vote
    assert len({r.generation.seed for r in model.asked}) == 10
    assert {r.generation.temperature for r in model.asked} == {0.7}


def test_draws_depend_on_sample_and_number_alone() -> None:
    def seeds(numbers: list[int], k: int) -> dict[str, list[int]]:
        model = FakeVLM(echo)
        samples = [sample(n, None) for n in numbers]
        list(solved(samples, model, SHORT, "self_consistency", k=k, temperature=1.5))
        found: dict[str, list[int]] = {}
        for request in model.asked:
            found.setdefault(request.messages[0].text, []).append(request.generation.seed)
        return found

    few, many = seeds([1, 2], 2), seeds([3, 2, 1], 4)
    assert all(many[question][:2] == own for question, own in few.items())


def test_a_failed_draw_is_no_majority_of_the_others() -> None:
    class Failing(FakeVLM):
        def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
            for number, (request, response) in enumerate(super().generate(requests)):
                failed = Response("", 0, "failed", why="busy")
                yield request, failed if number == 1 else response

    answers = solved([sample(1, None), sample(2, None)], Failing(echo), SHORT, "self_consistency", k=3)
    assert {s.id: r.finish_reason for s, _, r in answers} == {"1": "failed", "2": "stop"}


def test_all_draws_cost() -> None:
    ((_, _, response),) = solved([sample(1, None)], FakeVLM(lambda r: "A"), SHORT, "self_consistency", k=4)
    ((_, _, single),) = solved([sample(1, None)], FakeVLM(lambda r: "A"), SHORT)
    assert response.n_tokens == 4 * single.n_tokens
