"""What the rest of the program needs from a vision-language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from stic_eval.types import Request, Response


class VLM(Protocol):
    """Answers requests. `fingerprint` names weights and adapter by content, never by path."""

    fingerprint: str

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields every request with its response, in any order, as they are finished."""
        ...
