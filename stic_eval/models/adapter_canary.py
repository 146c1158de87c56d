"""Fixed questions and answers that tell one model from another: whether a server has applied an adapter.

A server answers an adapter whose names fit nothing with status 200, and then as the base model does. So what
it holds of fixed answers is compared with itself without the adapter, and with the process that trained it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stic_eval.errors import RunError
from stic_eval.store import atomic_write, read_object
from stic_eval.types import Generation, ImageRef, Message, Request

if TYPE_CHECKING:
    from stic_eval.contracts.engine import VLM, Scorer

VERSION = 1
_HOW = Generation(max_new_tokens=12)
_FIXED = (
    ("Describe the image.", "The image shows a red box to the left of a blue disc.", True),
    ("What is written in the image?", "There is no text in the image; it is a plain gradient.", True),
    ("How many objects are there? Answer with a number.", "3", True),
    ("Is the sky green? Answer yes or no.", "No, the sky is blue on a clear day.", False),
)
# What rounding and another order of sums move a log-probability by, in nats a token. In float32 two engines
# differ by some 1e-5; a type of 16 bits has 8 (bfloat16) or 11 bits of mantissa, in which logits of 10 to 20
# are rounded to 0.06 or 0.008.
ROUNDING = {"float32": 1e-3, "float16": 1e-2, "bfloat16": 5e-2}
PACKED = 0.1  # of weights in 8 or 4 bits
_NOISE = 3.0  # times what the base model differs by between two engines
# Times the rounding: what the base model may differ by between two engines, and all that is laid to noise.
_MOST = 4.0

Verdict = Literal["applied", "not applied", "another", "not verifiable"]


@dataclass(frozen=True)
class Measured:
    """What a model makes of the fixed questions.

    Attributes:
        logps: Log-probability of each fixed answer, in nats a token; empty: it tells none.
        greedy: What it answers greedily.
    """

    logps: tuple[float, ...]
    greedy: tuple[str, ...]

    def apart(self, other: Measured) -> float:
        """The largest difference of log-probabilities; without any: 0 or 1, whether greedy answers differ."""
        if self.logps and other.logps:
            return max(abs(a - b) for a, b in zip(self.logps, other.logps, strict=True))
        return float(self.greedy != other.greedy)


def questions() -> tuple[tuple[Request, str], ...]:
    """The fixed questions with their answers."""
    image = _picture()
    return tuple(
        (Request((Message("user", ask),), (image,) if shown else (), _HOW), answer)
        for ask, answer, shown in _FIXED
    )


def measure(model: VLM, scorer: Scorer | None) -> Measured:
    """Asks a model the fixed questions.

    Raises:
        RunError, UserError: As the model does.
    """
    asked = questions()
    logps = {} if scorer is None else dict(scorer.likelihoods(asked))
    greedy: dict[Request, str] = {}
    for request, response in model.generate([one for one, _ in asked]):
        if response.finish_reason == "failed":
            raise RunError(f"a fixed question has no answer: {response.why}")
        greedy[request] = response.text
    told = tuple(logps[one].logp / max(1, logps[one].n_tokens) for one in asked) if logps else ()
    return Measured(told, tuple(greedy[request] for request, _ in asked))


def judge(
    there: tuple[Measured, Measured], here: tuple[Measured, Measured] | None, rounding: float
) -> tuple[Verdict, str]:
    """Whether a server has applied an adapter.

    Args:
        there: The server's base model, and that with the adapter.
        here: The same in the process that has trained it; None: nobody has measured it.
        rounding: Of the weights' type, in nats a token.

    Returns:
        The verdict, and the numbers that it goes by, for people.
    """
    seen = there[1].apart(there[0])
    scored = all(one.logps for one in there)
    if not scored:
        if seen:
            return "applied", "its greedy answers differ from the base model's"
        if here is not None and here[0].greedy != here[1].greedy:
            return "not applied", "its greedy answers are the base model's, and were not where it was trained"
        return "not verifiable", "its greedy answers to fixed questions are the base model's"
    if here is None:
        what = f"fixed answers differ by {seen:.2g} nats a token from the base model's"
        return ("applied" if seen > rounding else "not verifiable"), what
    noise, effect = there[0].apart(here[0]), here[1].apart(here[0])
    within = max(rounding, min(_NOISE * noise, _MOST * rounding))
    off = there[1].apart(here[1])
    what = (
        f"by {effect:.2g} nats a token where it was trained, by {seen:.2g} at the server; both are "
        f"{noise:.2g} apart without it, {off:.2g} with it"
    )
    if noise > _MOST * rounding:
        return "another", f"without an adapter fixed answers differ by {noise:.2g} nats a token"
    if effect <= within:
        return "not verifiable" if off <= within else "another", what
    if seen <= within:
        return "not applied", what
    return "applied" if off <= within else "another", what


def is_back(base: Measured, before: Measured, now: Measured, rounding: float) -> bool:
    """Whether a server that had forgotten an adapter applies it as it did before.

    Args:
        base: The server's base model.
        before: What the server made of the adapter before.
        now: What it makes of it now.
        rounding: Of the weights' type, in nats a token.
    """
    return before.apart(now) <= max(rounding, before.apart(base) / 2)


def agree(first: Measured, other: Measured) -> bool:
    """Whether two servers that are to be one model are it, whatever its weights' type."""
    return first.apart(other) <= (PACKED if first.logps and other.logps else 0.0)


# ---------------------------------------------------------------- what is remembered of a training process


def remember(path: Path, here: Sequence[Measured]) -> None:
    """Writes down what a process has measured, base model and adapter."""
    rows = [{"logps": list(one.logps), "greedy": list(one.greedy)} for one in here]
    atomic_write(path, json.dumps({"version": VERSION, "measured": rows}))


def remembered(path: Path) -> tuple[Measured, Measured] | None:
    """What was written down; None: nothing."""
    found: Any = read_object(path)
    if found.get("version") != VERSION:
        return None
    base, adapted = (Measured(tuple(one["logps"]), tuple(one["greedy"])) for one in found["measured"])
    return base, adapted


def _picture() -> ImageRef:
    from PIL import Image

    from stic_eval.images import ref_from_pil

    across = Image.linear_gradient("L").resize((96, 96))
    shown = Image.merge("RGB", (across, across.transpose(Image.Transpose.ROTATE_90), across))
    return ref_from_pil(shown, "canary")
