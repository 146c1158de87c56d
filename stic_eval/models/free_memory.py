"""How much memory is left while a model is at work, and what running out of it looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from stic_eval.errors import UserError
from stic_eval.models.weight_memory import free_bytes

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# How torch says so on devices whose error has no class of its own: CPU (Linux, Windows) and MPS.
_SAID = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")


@dataclass
class RowLimit:
    """How many rows may be under way: half of them after memory has run out, more again when all goes well.

    Attributes:
        most: As many as there may ever be.
        now: As many as there may be.
        patience: Answers a row before there may be more; twice as many each time that memory runs out.
    """

    most: int
    now: int = field(init=False)
    patience: int = 8
    _answered: int = 0

    def __post_init__(self) -> None:
        self.now = self.most

    def halve(self, rows: int) -> None:
        """Memory has run out with so many rows under way."""
        self.now = max(1, min(self.now, (rows + 1) // 2))
        self.patience, self._answered = 2 * self.patience, 0

    def answered(self, rows: int = 1) -> None:
        """So many answers more have come without trouble."""
        self._answered += rows
        if self.now < self.most and self._answered >= self.patience * self.now:
            self.now, self._answered = min(self.most, 2 * self.now), 0


def bytes_left(device: torch.device) -> int:
    """Bytes that can still be allocated, including those that torch holds in reserve."""
    import torch

    idle = 0
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_bytes(device) + int(idle)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _SAID)


def within_memory(work: Callable[[], T]) -> T | None:
    """What work gives; None where memory has run out for it, and the attempt's tensors are gone."""
    try:
        return work()
    except Exception as error:
        if not out_of_memory(error):
            raise
    return None  # outside of the handler, which keeps the failed attempt's tensors alive


def release(device: torch.device) -> None:
    """Gives back what torch holds in reserve."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def too_small(device: torch.device) -> UserError:
    """What to say when a single request does not fit."""
    return UserError(
        f"one request does not fit in the memory of {device}; lower max_new_tokens, give smaller images, or "
        "load the model with --dtype bfloat16 or --load-in-4bit"
    )
