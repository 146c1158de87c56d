"""What users of neighbouring tools type: understood as it is, or answered by what to write instead."""

from __future__ import annotations


def spelled(word: str) -> str:
    """An option or a choice as it is called here: hyphens for underscores, and the formats' short names."""
    return {"latex": "tex", "markdown": "md"}.get(word, word.replace("_", "-"))
