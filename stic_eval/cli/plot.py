"""`stic-eval plot`."""

from __future__ import annotations


def plot() -> None:
    """Not there yet."""
    raise NotImplementedError
