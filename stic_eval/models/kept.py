"""What is kept of earlier requests, up to a number of bytes. Never imports torch."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from stic_eval.models.kv import Prefix


class Sized(Protocol):
    """What takes a number of bytes."""

    @property
    def nbytes(self) -> int:
        """How many."""
        ...


Item = TypeVar("Item", bound=Sized)


class BoundedStore(Generic[Item]):
    """Things by their keys, up to a number of bytes.

    What is full gives a random entry up. An evaluation runs over the same images again and again, in the
    same order: the entry that was not used for longest is then the very one that is needed next.

    Args:
        most: Bytes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._held: dict[object, Item] = {}
        self._keys: list[object] = []
        self._places: dict[object, int] = {}
        self._random = random.Random(0)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: object) -> Item | None:
        """What is kept under a key."""
        return self._held.get(key)

    def put(self, key: object, item: Item) -> None:
        """Keeps an item; not one that alone is too large."""
        with self._lock:
            if key in self._held or item.nbytes > self._most:
                return
            while self._bytes + item.nbytes > self._most:
                self._drop(self._random.randrange(len(self._keys)))
            self._held[key], self._places[key] = item, len(self._keys)
            self._keys.append(key)
            self._bytes += item.nbytes

    def _drop(self, place: int) -> None:
        key, last = self._keys[place], self._keys.pop()
        if last is not key:
            self._keys[place], self._places[last] = last, place
        del self._places[key]
        self._bytes -= self._held.pop(key).nbytes


class PrefixStore:
    """What a model with one adapter has computed of prompts' beginnings; the least recently used go.

    Args:
        most: Bytes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._held: OrderedDict[object, Prefix] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def get(self, key: object) -> Prefix | None:
        """A prefix, if it is there."""
        if key in self._held:
            self._held.move_to_end(key)
        return self._held.get(key)

    def put(self, key: object, prefix: Prefix) -> None:
        """Keeps a prefix; not one that alone is too large."""
        size = nbytes_of(prefix)
        if key in self._held or size > self._most:
            return
        self._held[key] = prefix
        self._bytes += size
        while self._bytes > self._most:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= nbytes_of(dropped)

    def clear(self) -> None:
        """Forgets all of them."""
        self._held.clear()
        self._bytes = 0


def nbytes_of(prefix: Prefix) -> int:
    """Bytes of a prefix."""
    return sum(keys.nbytes + values.nbytes for keys, values in prefix)
