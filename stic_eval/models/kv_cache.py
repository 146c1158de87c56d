"""Key-value caches with room to grow, whose rows come and go.

transformers' dynamic cache copies all of itself for every token. Here a token is written into room that
was set aside; rows that are done are taken out, new ones are computed beside those that are under way, and
what a prompt begins with is copied in rather than computed.

All rows of a batch end at the same column. What lies before a row's first token is masked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_ROOM = 64  # columns set aside at a time

KeyValue = tuple[Tensor, Tensor]  # keys and values
Prefix = tuple[KeyValue, ...]  # for each layer, of shape (heads, tokens, width)


class Layer(CacheLayerMixin):
    """One layer: keys and values of shape (rows, heads, columns, width), the first `length` in use.

    Args:
        made: Gives the room, knowing the first states; their shapes are (rows, heads, new columns, width).
        length: Columns that are written already.
    """

    is_sliding = False  # masks know the window; all columns are kept, so rows can be put together
    keys: Any  # Tensors from the first update on
    values: Any

    def __init__(self, made: Callable[[KeyValue], KeyValue], length: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made, self.length = made, length

    @classmethod
    def of(cls, pair: KeyValue, length: int) -> Layer:
        """A layer that has its room."""
        layer = cls(lambda states: pair, length)
        layer.lazy_initialization(*pair)
        return layer

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Takes the room."""
        self.keys, self.values = self._made((key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        """Writes states of shape (rows, heads, new columns, width); gives all that are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            more = end + _ROOM - self.keys.shape[-2]
            self.keys, self.values = (
                torch.cat([old, old.new_empty((*old.shape[:-2], more, old.shape[-1]))], dim=-2)
                for old in (self.keys, self.values)
            )
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a mask for so many new tokens has, and the first one's number."""
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        """No bound."""
        return -1


class Growing(Cache):
    """Layers as they are given, or as they come up in a first pass."""

    layers: Any  # list[Layer]

    def __init__(self, layers: Sequence[Layer] = (), made: Callable[[int], Layer] | None = None) -> None:
        if made is None:
            super().__init__(layers=list(layers))
        else:
            next_layer: Any = lambda: made(len(self.layers))  # noqa: E731
            super().__init__(layer_class_to_replicate=next_layer)


@dataclass
class Lanes:
    """Rows under way.

    Attributes:
        cache: What the model has computed of them.
        mask: (rows, columns in use), 1 where a row has a token.
        position: (rows), that of the next token.
        last: (rows), the token that is yet to be read.
    """

    cache: Growing
    mask: Tensor
    position: Tensor
    last: Tensor

    def __len__(self) -> int:
        return len(self.last)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that a row's token takes in the cache."""
        return sum(
            (layer.keys[0, :, 0].numel() + layer.values[0, :, 0].numel()) * layer.keys.element_size()
            for layer in self.cache.layers
        )

    def prefix(self, row: int, tokens: int) -> Prefix:
        """A copy of what a row begins with."""
        first = int(self.mask[row].argmax())
        columns = slice(first, first + tokens)
        return tuple(
            (layer.keys[row, :, columns].clone(), layer.values[row, :, columns].clone())
            for layer in self.cache.layers
        )

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows, and the columns that none of these uses; a layer at a time, for memory."""
        first = self._narrow(rows)
        for number, layer in enumerate(self.cache.layers):
            used = layer.length - first
            kept: list[Tensor] = []
            for old in (layer.keys, layer.values):
                kept.append(old.new_empty((len(rows), old.shape[1], used + _ROOM, old.shape[3])))
                _take(rows, old[:, :, first : layer.length], kept[-1][:, :, :used])
            self.cache.layers[number] = Layer.of((kept[0], kept[1]), used)

    def move(self, rows: Sequence[int], pool: Pool) -> None:
        """Moves these rows to the front of a pool, and drops the others; a layer at a time, for memory."""
        first = self._narrow(rows)
        for number, layer in enumerate(self.cache.layers):
            states = (layer.keys, layer.values)
            start = pool.end - (layer.length - first)
            for room, old in zip(pool.room(number, states), states, strict=True):
                room[: len(rows), :, :start] = 0
                _take(rows, old[:, :, first : layer.length], room[: len(rows), :, start : pool.end])
            self.cache.layers[number] = None

    def columns(self, rows: Sequence[int]) -> int:
        """Columns that some of these rows use."""
        used = self.mask[list(rows)].any(0)
        return len(used) - int(used.long().argmax())

    def _narrow(self, rows: Sequence[int]) -> int:
        """Keeps what is known of these rows; gives the first column that they use."""
        first = self.mask.shape[1] - self.columns(rows)
        index = torch.tensor(rows, device=self.mask.device)
        self.mask = self.mask[index, first:].contiguous()
        self.position, self.last = self.position[index], self.last[index]
        return first


def _runs(prefixes: Sequence[Prefix]) -> Iterator[tuple[Prefix, int]]:
    """Each prefix with the number of rows side by side that have it: one copy is enough for them."""
    for _, same in itertools.groupby(prefixes, key=id):
        rows = list(same)
        yield rows[0], len(rows)


def _take(rows: Sequence[int], states: Tensor, into: Tensor) -> None:
    """Copies rows of states; all at once where they stand side by side, and never by way of a third place."""
    begin = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end] != rows[end - 1] + 1:
            into[begin:end] = states[rows[begin] : rows[end - 1] + 1]
            begin = end


class Pool:
    """Room for the rows of a batch, which is filled part by part.

    Args:
        rows: All that there will be.
        end: Column at which they end.
    """

    def __init__(self, rows: int, end: int) -> None:
        self._rows, self.end = rows, end
        self._layers: list[KeyValue] = []

    def room(self, number: int, states: KeyValue) -> KeyValue:
        """A layer's room, made when it is first asked for."""
        if number == len(self._layers):
            keys, values = (
                like.new_empty((self._rows, like.shape[1], self.end + _ROOM, like.shape[3]))
                for like in states
            )
            self._layers.append((keys, values))
        return self._layers[number]

    def part(self, first: int, rows: int, columns: int) -> Growing:
        """A cache for computing rows from their first token on, `columns` long with their padding."""

        def own_part(number: int, states: KeyValue) -> KeyValue:
            keys, values = (whole[first : first + rows] for whole in self.room(number, states))
            start = self.end - columns
            keys[:, :, :start], values[:, :, :start] = 0, 0
            return keys[:, :, start:], values[:, :, start:]

        return Growing(made=lambda number: Layer(lambda states: own_part(number, states)))

    def begin(self, first: int, prefixes: Sequence[Prefix], columns: int) -> tuple[Growing, Tensor]:
        """A cache in which rows have read prefixes, and its mask.

        Args:
            columns: That are yet to be computed.
        """
        lengths = [prefix[0][0].shape[1] for prefix in prefixes]
        longest, middle = max(lengths), self.end - columns
        start, layers, last = middle - longest, [], first + len(prefixes)
        for number in range(len(prefixes[0])):
            like = prefixes[0][number]
            whole = self.room(number, (like[0][None], like[1][None]))
            for side, room in enumerate(whole):
                room[first:last, :, : middle - min(lengths)] = 0
                row = first
                for prefix, same in _runs(prefixes):
                    before = middle - prefix[0][0].shape[1]
                    room[row : row + same, :, before:middle] = prefix[number][side]
                    row += same
            keys, values = (room[first:last, :, start:] for room in whole)
            layers.append(Layer.of((keys, values), longest))
        mask = torch.zeros((len(prefixes), longest), dtype=torch.long, device=prefixes[0][0][0].device)
        for row, length in enumerate(lengths):
            mask[row, longest - length :] = 1
        return Growing(layers), mask

    def lanes(self, parts: Sequence[Lanes]) -> Lanes:
        """All rows, in the order in which their parts were filled."""
        masks = [torch.nn.functional.pad(part.mask, (self.end - part.mask.shape[1], 0)) for part in parts]
        return Lanes(
            Growing([Layer.of(pair, self.end) for pair in self._layers]),
            torch.cat(masks),
            torch.cat([part.position for part in parts]),
            torch.cat([part.last for part in parts]),
        )
