"""What is kept of earlier requests stays below its bounds, and is what was put there."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields

import torch
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.models.bounded_store import BoundedStore, nbytes_of
from stic_eval.models.loading import LoadedWeights


@dataclass(frozen=True)
class Thing:
    nbytes: int


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 40))), st.integers(0, 100))
def test_a_bounded_store_holds_what_it_was_given_and_no_more_than_it_may(
    puts: list[tuple[int, int]], most: int
) -> None:
    store: BoundedStore[Thing] = BoundedStore(most)
    first: dict[int, Thing] = {}
    for key, size in puts:
        before = store.get(key)
        thing = Thing(size)
        store.put(key, thing)
        found = store.get(key)
        assert found is (before or (thing if size <= most else None))
        if found is thing:
            first[key] = thing
    held = [thing for key in range(10) if (thing := store.get(key)) is not None]
    assert len(held) == len(store)
    assert sum(thing.nbytes for thing in held) <= most
    assert all(store.get(key) in (None, thing) for key, thing in first.items())


def test_going_round_through_more_than_fits_finds_some_of_it() -> None:
    store: BoundedStore[Thing] = BoundedStore(60)
    for key in range(100):
        store.put(key, Thing(1))
    hits = 0
    for _ in range(20):
        for key in range(100):
            hits += store.get(key) is not None
            store.put(key, Thing(1))
    assert hits > 400  # what was not used for longest would go just before it is needed: no hit at all


def prefix(tokens: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    return ((torch.zeros(2, tokens, 3), torch.zeros(2, tokens, 3)),)


def test_a_model_that_is_given_no_room_for_prefixes_keeps_none() -> None:
    (store_of,) = (field.default_factory for field in fields(LoadedWeights) if field.name == "prefixes")
    assert store_of is not MISSING
    store = store_of()
    store.put("a", prefix(1))
    assert len(store) == 0


def test_prefixes_are_kept_by_their_own_size_and_forgotten_at_once() -> None:
    size = nbytes_of(prefix(1))
    assert size == 2 * 2 * 3 * 4
    store = BoundedStore(3 * size, nbytes_of)
    for key in "abcd":
        store.put(key, prefix(1))
    assert "d" in store and len(store) == 3
    store.put("large", prefix(4))
    assert "large" not in store
    store.put("whole", prefix(3))
    assert "whole" in store and len(store) == 1
    store.clear()
    assert store.get("whole") is None
    store.put("a", prefix(3))
    assert "a" in store
