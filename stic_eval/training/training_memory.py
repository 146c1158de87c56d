"""What to do when training does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stic_eval.errors import UserError
from stic_eval.models.free_memory import out_of_memory


@contextmanager
def advise(stage: str, model: Any, *, checkpointing: bool) -> Iterator[None]:
    """Turns running out of memory into a line that says what takes less of it.

    Raises:
        UserError: Memory was used up.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        device = next(model.parameters()).device
        ways = [] if checkpointing else ["--gradient-checkpointing"]
        if device.type == "cuda" and getattr(model, "hf_quantizer", None) is None:
            ways.append("--load-in-4bit")
        ways += ["a smaller lora.r", "a smaller max_length", "a smaller --model"]
        raise UserError(
            f"{stage}: does not fit in the memory of {device}; try {', '.join(ways[:-1])} or {ways[-1]}"
        ) from error
