"""What lmms-eval's wording of a request comes to here, for its tasks and for our model inside of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stic_eval.types import Generation

# What lmms-eval's `llava_hf` takes where a task sets no bound.
_MAX_NEW_TOKENS = 1024
_PLACE = "<image>"


def generation(kwargs: Mapping[str, Any], seed: int = 0) -> Generation:
    """A task's `generation_kwargs` as lmms-eval's `llava_hf` reads them: without temperature, greedy.

    Args:
        kwargs: `max_new_tokens`, `temperature`, `top_p`, `num_beams`; others say nothing here.

    Raises:
        ValueError: Beams are asked for.
    """
    beams = kwargs.get("num_beams")
    if beams is not None and int(beams) > 1:
        raise ValueError(f"asks for {int(beams)} beams, and there is no beam search here")
    tokens = int(kwargs.get("max_new_tokens") or _MAX_NEW_TOKENS)
    temperature = float(kwargs.get("temperature") or 0.0)
    if temperature <= 0:
        return Generation(max_new_tokens=tokens)
    top_p = float(kwargs.get("top_p") or 1.0)
    return Generation(max_new_tokens=tokens, temperature=temperature, top_p=top_p, seed=seed)


def stops(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts that end an answer: `until` of a task's `generation_kwargs`."""
    until = kwargs.get("until") or ()
    return tuple(text for text in ([until] if isinstance(until, str) else until) if text)


def without_places(text: str) -> str:
    """A prompt without `<image>`: a request's images stand in front of its text, all of them.

    `llava_hf` leaves them where a task has put them, and else puts all in front as we do.
    """
    return text.replace(f"{_PLACE}\n", "").replace(_PLACE, "") if _PLACE in text else text
