"""Requests that tests of generation ask, and the answers as far as they are to be the same."""

from __future__ import annotations

from collections.abc import Sequence

from stic_eval.models.hf_model import HFModel
from stic_eval.types import Generation, ImageRef, Message, Request

TWELVE = Generation(12)
QUESTIONS = ("What?", "Describe the image, with all that is in it.", "Is it red?\nAnswer yes or no.", "é…")


def request(text: str, image: ImageRef | None = None, generation: Generation = TWELVE) -> Request:
    """One question."""
    return Request((Message("user", text),), (image,) if image else (), generation)


def mixed(images: Sequence[ImageRef], generation: Generation = TWELVE) -> list[Request]:
    """Requests of several lengths, with images and without."""
    asked = [request(text, image, generation) for image in images for text in QUESTIONS]
    return asked + [request(text, None, generation) for text in QUESTIONS]


def answers(model: HFModel, requests: Sequence[Request]) -> dict[Request, tuple[str, int, str]]:
    """What a model answers to each; it answers all."""
    found = {asked: (a.text, a.n_tokens, a.finish_reason) for asked, a in model.generate(requests)}
    assert len(found) == len(requests)
    return found
