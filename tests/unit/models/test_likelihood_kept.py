"""Likelihoods are kept: scored once, in order, whatever fails in between."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stic_eval.image_sources import scan_images
from stic_eval.images import diffuse
from stic_eval.models import response_cache
from stic_eval.models.hf_model import HFModel
from stic_eval.models.response_cache import CachedVLM, cached_likelihoods
from stic_eval.store import ResponseStore
from stic_eval.types import Generation, ImageRef, Likelihood, Message, Request
from tests.support.fake import FakeVLM
from tests.support.questions import request

Asked = tuple[Request, str]


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


def going_on(asked: Request, begun: str) -> Request:
    return replace(asked, messages=(*asked.messages, Message("assistant", begun)))


class Scoring:
    """Stands in for a model: an answer of n letters has n tokens and -n nats; fails after so many.

    Attributes:
        asked: What it was asked, in order.
    """

    def __init__(self, most: int = 10_000) -> None:
        self.asked: list[Asked] = []
        self._most = most

    def likelihoods(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, Likelihood]]:
        for one in sorted(asked, key=lambda one: -len(one[1])):  # in an order of its own
            if len(self.asked) == self._most:
                raise RuntimeError("pulled the plug")
            self.asked.append(one)
            yield one, Likelihood(-len(one[1]) / 3, len(one[1]))


def unasked() -> Scoring:
    raise AssertionError("the model was loaded")


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path / "responses.sqlite")


def test_what_was_scored_once_is_not_scored_again(store: ResponseStore, images: list[ImageRef]) -> None:
    asked = [(request("What?", image), "x" * n) for image in images for n in (3, 1, 2, 3)]
    model = Scoring()
    found = list(cached_likelihoods(lambda: model, "m", store, asked))
    assert found == [Likelihood(-len(text) / 3, len(text)) for _, text in asked]  # in their order
    assert len(model.asked) == len(set(asked)) == 24
    assert list(cached_likelihoods(unasked, "m", store, asked[::-1])) == found[::-1]
    assert list(cached_likelihoods(unasked, "m", store, [])) == []
    more = Scoring()
    new = (request("Else?"), "xx")
    assert list(cached_likelihoods(lambda: more, "m", store, [asked[0], new, asked[1]]))[1].n_tokens == 2
    assert more.asked == [new]


def test_what_changes_a_likelihood_is_scored_anew(store: ResponseStore, images: list[ImageRef]) -> None:
    one = request("What?", images[0])
    asked = [
        (one, "a"), (one, "b"), (request("What?", images[1]), "a"), (request("What?"), "a"),
        (request("Where?", images[0]), "a"), (going_on(one, "x"), "a"),
        (request("What?", diffuse(images[0], 5, 1)), "a"),
    ]  # fmt: skip
    for number, each in enumerate(asked, 1):
        model = Scoring()
        list(cached_likelihoods(lambda model=model: model, "m", store, [each]))
        assert (len(model.asked), len(store)) == (1, number)
    adapter = Scoring()
    list(cached_likelihoods(lambda: adapter, "m with an adapter", store, asked))
    assert len(adapter.asked) == len(asked)
    otherwise = [(request("What?", images[0], Generation(99, 0.5, 0.5, 7)), "a")]  # decoding has no say
    assert list(cached_likelihoods(unasked, "m", store, otherwise)) == [Likelihood(-1 / 3, 1)]


def test_answers_to_the_same_request_are_no_likelihoods(store: ResponseStore) -> None:
    one = request("What?")
    vlm = FakeVLM(lambda request: "a", "m")
    list(CachedVLM(lambda: vlm, "m", store).generate([one]))
    model = Scoring()
    assert list(cached_likelihoods(lambda: model, "m", store, [(one, "a")])) == [Likelihood(-1 / 3, 1)]
    ((_, answer),) = CachedVLM(lambda: vlm, "m", store).generate([one])
    assert (answer.text, len(vlm.asked)) == ("a", 1)


def test_what_was_scored_before_a_failure_is_kept(store: ResponseStore) -> None:
    asked = [(request(f"{n}?"), "x" * (1 + n % 7)) for n in range(1500)]
    broken = Scoring(most=700)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        list(cached_likelihoods(lambda: broken, "m", store, asked))
    assert len(store) == 700
    whole = Scoring()
    found = list(cached_likelihoods(lambda: whole, "m", store, asked))
    assert found == [Likelihood(-len(text) / 3, len(text)) for _, text in asked]
    assert len(whole.asked) == 800
    assert not set(whole.asked) & set(broken.asked)


def test_a_kill_costs_what_was_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process sees, while the model is at work, what was scored so far."""
    monkeypatch.setattr(response_cache, "_COMMIT_SECONDS", 0.0)
    store, other = (ResponseStore(tmp_path / "responses.sqlite") for _ in range(2))
    seen: list[int] = []

    class Watching(Scoring):
        def likelihoods(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, Likelihood]]:
            for one in super().likelihoods(asked):
                seen.append(len(other))
                yield one

    list(cached_likelihoods(Watching, "m", store, [(request(f"{n}?"), "x") for n in range(5)]))
    assert seen == [0, 1, 2, 3, 4]
    assert len(other) == 5


@settings(max_examples=30, deadline=None)
@given(logp=st.floats(max_value=0, allow_nan=False), n_tokens=st.integers(0, 10_000))
def test_a_number_is_kept_to_the_last_digit(logp: float, n_tokens: int) -> None:
    class One(Scoring):
        def likelihoods(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, Likelihood]]:
            yield from ((one, Likelihood(logp, n_tokens)) for one in asked)

    with tempfile.TemporaryDirectory() as folder:
        store = ResponseStore(Path(folder) / "responses.sqlite")
        asked = [(request("What?"), "a")]
        first = list(cached_likelihoods(One, "m", store, asked))
        assert list(cached_likelihoods(unasked, "m", store, asked)) == first == [Likelihood(logp, n_tokens)]
        store.close()


def test_a_real_model_scores_the_same_from_the_store(
    tiny_vlm: Path, adapters: tuple[Path, Path], images: list[ImageRef], store: ResponseStore
) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")
    asked = [(request("What?", image), text) for image in images for text in ("a red box", "a red bow", "x")]
    first = list(cached_likelihoods(lambda: model, model.fingerprint, store, asked))
    assert list(cached_likelihoods(unasked, model.fingerprint, store, asked)) == first
    adapted = model.with_adapter(adapters[0])
    assert list(cached_likelihoods(lambda: adapted, adapted.fingerprint, store, asked)) != first
