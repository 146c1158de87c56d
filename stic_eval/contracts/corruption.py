"""The contract of a corruption: an image in, the same image spoilt out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Image = Any  # Pillow's, which contracts do not import
Draw = Any  # NumPy's generator


@dataclass(frozen=True)
class Corruption:
    """A way to spoil an image.

    Attributes:
        name: What settings call it.
        spoil: (image, generator, parameters) -> the spoilt image. What it draws, the generator draws.
        defaults: Parameter -> its value where none is given.
        random: Whether it draws, so that the seed counts.
    """

    name: str
    spoil: Callable[[Image, Draw, Mapping[str, Any]], Image]
    defaults: Mapping[str, float] = field(default_factory=dict)
    random: bool = True
