"""`stic-eval compare`."""

from __future__ import annotations


def compare() -> None:
    """Not there yet."""
    raise NotImplementedError
