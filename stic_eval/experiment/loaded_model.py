"""A model that answers questions about images, outside of any run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Image

from stic_eval import images
from stic_eval.errors import RunError, UserError
from stic_eval.solvers.requests import request_of
from stic_eval.types import Generation, ImageRef

Picture = str | Path | bytes | Image

if TYPE_CHECKING:
    from stic_eval.contracts.engine import VLM, Engine


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, or at a server.

    Attributes:
        vlm: Answers requests; what it thinks before an answer is apart from that.
        engine: Whose model it is.
        given: The settings that it was loaded with, as `load_model` takes them.
        options: The same by their paths, as `-o` has them.
    """

    vlm: VLM
    engine: Engine
    given: Mapping[str, Any]
    options: tuple[str, ...] = ()

    def ask(
        self,
        image: Picture | list[Picture] | tuple[Picture, ...] | None,
        question: str,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> str:
        """The model's answer to a question about an image; untrusted text.

        Args:
            image: A file, an encoded or a Pillow image, several of these, or None.
            question: The whole prompt.
            max_new_tokens: Bound on the answer.
            temperature: 0 is greedy.
            seed: Of the draws, if it is not.

        Raises:
            UserError: An image cannot be used.
            RunError: There is no answer.
        """
        if max_new_tokens < 1 or temperature < 0:
            raise UserError("ask: max_new_tokens is 1 or more, temperature 0 or more")
        shown = image if isinstance(image, (list, tuple)) else [] if image is None else [image]
        refs = tuple(_image(one, number) for number, one in enumerate(shown, 1))
        how = Generation(max_new_tokens, temperature, seed=seed if temperature else 0)
        [(_, response)] = self.vlm.generate([request_of(question, refs, how)])
        if response.finish_reason == "failed":
            raise RunError(f"no answer: {response.why}")
        if response.unclosed:
            raise RunError(f"no answer: the model was still thinking after {response.n_tokens} tokens")
        return response.text


def _image(image: Picture, number: int) -> ImageRef:
    if isinstance(image, bytes):
        return images.bytes_ref(lambda: image, f"image {number}", image)
    if isinstance(image, str) and re.match(r"https?://", image):
        raise UserError(f"{image}: is an address; download the image, and give its file or its bytes")
    if isinstance(image, (str, Path)):
        return images.image_ref(Path(image).expanduser())
    if not isinstance(image, Image):
        kind = type(image).__name__
        raise UserError(f"image {number}: is of type {kind}; give a file, bytes or a Pillow image")
    return images.ref_from_pil(image, f"image {number}")
