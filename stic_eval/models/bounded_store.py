"""What is kept of earlier requests, up to a number of bytes. Never imports torch."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from stic_eval.models.kv_cache import Prefix

Item = TypeVar("Item")


class BoundedStore(Generic[Item]):
    """Things by their keys, up to a number of bytes.

    What is full gives a random entry up. An evaluation runs over the same images again and again, in the
    same order: the entry that was not used for longest is then the very one that is needed next.

    Args:
        most: Bytes.
        size: Bytes of one of them.
    """

    def __init__(self, most: int, size: Callable[[Item], int] = attrgetter("nbytes")) -> None:
        self._most, self._size = most, size
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self.clear()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def get(self, key: object) -> Item | None:
        """What is kept under a key."""
        return self._held.get(key)

    def put(self, key: object, item: Item) -> None:
        """Keeps an item; not one that alone is too large."""
        size = self._size(item)
        with self._lock:
            if key in self._held or size > self._most:
                return
            while self._bytes + size > self._most:
                dropped = self._held.pop(self._random.choice(list(self._held)))
                self._bytes -= self._size(dropped)
            self._held[key] = item
            self._bytes += size

    def clear(self) -> None:
        """Forgets all of them."""
        self._bytes = 0
        self._held: dict[object, Item] = {}


def nbytes_of(prefix: Prefix) -> int:
    """Bytes of what a model has computed of a prompt's beginning."""
    return sum(keys.nbytes + values.nbytes for keys, values in prefix)
