"""The processes that train a stage together: which one this is, and what they agree on.

They are ranks of torch.distributed, set up by whoever has launched them (`stic_eval.training.worker`). A
process by itself is rank 0 of 1, and nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def count() -> int:
    """How many they are."""
    from torch import distributed

    return distributed.get_world_size() if _together() else 1


def number() -> int:
    """Which of them this is, from 0 on."""
    from torch import distributed

    return distributed.get_rank() if _together() else 0


def leads() -> bool:
    """Whether this is the one that writes, seals and prunes."""
    return number() == 0


def of_leader(value: T) -> T:
    """Rank 0's value, in all of them."""
    from torch import distributed

    if not _together():
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def smallest(value: int) -> int:
    """The smallest of all their values."""
    from torch import distributed

    if not _together():
        return value
    values: list[int] = [0] * count()
    distributed.all_gather_object(values, value)
    return min(values)


def wait() -> None:
    """Returns when all of them have come as far."""
    from torch import distributed

    if _together():
        distributed.barrier()


@contextmanager
def leader_first() -> Iterator[None]:
    """Lets rank 0 through the block before the others, which find what it has left."""
    if not leads():
        wait()
    yield
    if leads():
        wait()


def _together() -> bool:
    from torch import distributed

    return bool(distributed.is_available() and distributed.is_initialized())
