"""What the rest of the program needs from a vision-language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from stic_eval.types import Likelihood, Request, Response


class VLM(Protocol):
    """Answers requests. `fingerprint` names weights and adapter by content, never by path."""

    fingerprint: str

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Yields every request with its response, in any order, as they are finished."""
        ...


class Scorer(Protocol):
    """Tells how likely it holds answers that are given."""

    def likelihoods(
        self, asked: Iterable[tuple[Request, str]]
    ) -> Iterator[tuple[tuple[Request, str], Likelihood]]:
        """Yields every (request, answer) with its likelihood, in any order."""
        ...
