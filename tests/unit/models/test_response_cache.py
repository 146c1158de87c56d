"""The response cache: nothing is asked twice, and nothing that was answered is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from stic_eval.contracts.engine import VLM
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.models.response_cache import CachedVLM
from stic_eval.store import ResponseStore
from stic_eval.types import Generation, ImageRef, Message, Request, Response
from tests.support.fake import FakeVLM


def ask(text: object, *images: ImageRef, tokens: int = 8, seed: int = 0, temperature: float = 0) -> Request:
    return Request((Message("user", str(text)),), images, Generation(tokens, temperature, 1.0, seed))


def shout(request: Request) -> str:
    return request.messages[0].text.upper()


def unasked() -> VLM:
    raise AssertionError("the model was loaded although every answer is known")


@pytest.fixture
def store(tmp_path: Path) -> ResponseStore:
    return ResponseStore(tmp_path / "responses.sqlite")


def test_what_is_known_is_not_asked_and_loads_no_model(store: ResponseStore) -> None:
    requests = [ask(f"q{i}") for i in range(5)]
    fake = FakeVLM(shout)
    assert {r: a.text for r, a in CachedVLM(lambda: fake, "m", store).generate(requests)} == {
        r: shout(r) for r in requests
    }
    again = dict(CachedVLM(unasked, "m", store).generate(reversed(requests)))
    assert {r: a.text for r, a in again.items()} == {r: shout(r) for r in requests}
    assert list(CachedVLM(unasked, "m", store).generate([])) == []
    some = CachedVLM(lambda: fake, "m", store)
    list(some.generate([*requests, ask("new")]))
    assert [shout(r) for r in fake.asked] == ["Q0", "Q1", "Q2", "Q3", "Q4", "NEW"]


def test_the_same_request_is_asked_once_and_answered_each_time(store: ResponseStore) -> None:
    fake = FakeVLM(shout)
    requests = [
        ask("a"),
        ask("b"),
        ask("a"),
        ask("a", temperature=0.0, seed=7),
    ]  # a seed means nothing to greedy
    answered = [r for r, _ in CachedVLM(lambda: fake, "m", store).generate(requests)]
    assert sorted(answered, key=repr) == sorted(requests, key=repr)
    assert len(fake.asked) == 2
    answered = [r for r, _ in CachedVLM(unasked, "m", store).generate(requests)]
    assert sorted(answered, key=repr) == sorted(requests, key=repr)


def test_what_changes_an_answer_is_asked_anew(store: ResponseStore, photos: Path) -> None:
    one, two = scan_images(photos)[0][:2]
    fake = FakeVLM(shout)
    base = [ask("a", one, temperature=1, seed=1)]
    list(CachedVLM(lambda: fake, "m", store).generate(base))
    others = [
        ask("b", one, temperature=1, seed=1), ask("a", two, temperature=1, seed=1),
        ask("a", temperature=1, seed=1),
        ask("a", one, temperature=1, seed=2), ask("a", one, temperature=2, seed=1), ask("a", one, seed=1),
        ask("a", one, temperature=1, seed=1, tokens=9),
    ]  # fmt: skip
    list(CachedVLM(lambda: fake, "m", store).generate(others))
    list(CachedVLM(lambda: fake, "another model", store).generate(base))
    assert fake.asked == [*base, *others, *base]


class Failing(FakeVLM):
    """Gives up after so many answers."""

    def __init__(self, after: int) -> None:
        super().__init__(shout)
        self.after = after

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        for number, answer in enumerate(super().generate(requests)):
            if number == self.after:
                raise RuntimeError("out of luck")
            yield answer


def test_answers_survive_an_exception_in_the_middle(store: ResponseStore) -> None:
    requests = [ask(i) for i in range(10)]
    with pytest.raises(RuntimeError, match="out of luck"):
        list(CachedVLM(lambda: Failing(7), "m", store).generate(requests))
    assert len(store) == 7
    fake = FakeVLM(shout)
    assert len(list(CachedVLM(lambda: fake, "m", store).generate(requests))) == 10
    assert fake.asked == requests[7:]


def test_answers_survive_a_consumer_that_stops_listening(store: ResponseStore) -> None:
    stream = CachedVLM(lambda: FakeVLM(shout), "m", store).generate([ask(i) for i in range(10)])
    for _ in range(4):
        next(stream)
    stream.close()
    assert len(store) == 4


def test_a_kill_costs_one_commit_at_most(tmp_path: Path) -> None:
    code = f"""
import os, signal
from stic_eval.models.response_cache import CachedVLM
from tests.support.fake import FakeVLM
from stic_eval.store import ResponseStore
from stic_eval.types import Generation, Message, Request

def answer(request):
    if request.messages[0].text == "200":
        os.kill(os.getpid(), signal.SIGKILL)
    return request.messages[0].text

requests = [Request((Message("user", str(i)),), (), Generation(8)) for i in range(300)]
store = ResponseStore({str(tmp_path / "r.sqlite")!r})
list(CachedVLM(lambda: FakeVLM(answer), "m", store).generate(requests))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    store = ResponseStore(tmp_path / "r.sqlite")
    assert 200 - 64 < len(store) <= 200
    fake = FakeVLM(lambda request: request.messages[0].text)
    kept = len(store)
    found = dict(CachedVLM(lambda: fake, "m", store).generate([ask(i) for i in range(300)]))
    assert [found[ask(i)].text for i in range(300)] == [str(i) for i in range(300)]
    assert len(fake.asked) == 300 - kept


def test_a_real_model_answers_the_same_from_the_cache(
    tiny_vlm: Path, photos: Path, store: ResponseStore
) -> None:
    images = scan_images(photos)[0]
    requests = [ask(text, image) for image in images for text in ("What?", "Where is it?")]
    model = HFModel.load(str(tiny_vlm), device="cpu")
    first = dict(CachedVLM(lambda: model, model.fingerprint, store).generate(requests))
    second = dict(CachedVLM(unasked, model.fingerprint, store).generate(requests))
    assert first == second  # tokens, seconds and reason as well
    assert {r: a.text for r, a in model.generate(requests)} == {r: a.text for r, a in first.items()}
