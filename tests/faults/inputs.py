"""Rows and instruction data of runs that are as small as runs can be; images are those of `draw_photos`."""

from __future__ import annotations

from typing import Any


def charts(folder: str) -> list[dict[str, Any]]:
    """Two rows of ChartQA.

    Args:
        folder: Of their images.
    """
    return [
        {"type": "human_test", "question": f"How tall is bar {index}?", "answer": "12.5",
         "image": f"{folder}/{index}.{'jpg' if index % 2 else 'png'}"}
        for index in range(2)
    ]  # fmt: skip


def items() -> list[dict[str, Any]]:
    """Two items in LLaVA's format."""
    return [
        {"id": f"item-{index}", "image": f"{index}.{'jpg' if index % 2 else 'png'}",
         "conversations": [{"from": "human", "value": f"<image>\nWhat is in picture {index}?"},
                           {"from": "gpt", "value": f"A box, the {index}th."}]}
        for index in range(2)
    ]  # fmt: skip
