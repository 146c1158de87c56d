"""Several servers that are one model: who is asked, what is moved, and what ends it."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from stic_eval.errors import RunError, UserError
from stic_eval.models.chat_wire import Chat
from stic_eval.models.connection import Endpoint
from stic_eval.models.openai_client import Client, Failure
from stic_eval.models.replicas import Replicas
from stic_eval.models.server_model import ServerModel
from stic_eval.types import Generation, Message, Request
from tests.support.judge_server import CUT, CUT_IN_THE_MIDDLE, Answer, fails, says, serving


def endpoint(*urls: str, **more: Any) -> Endpoint:
    given = {"attempts": 2, "timeout": 20.0, "backoff": 0.0, "concurrency": 2, "prefix": "--", **more}
    return Endpoint(urls[0], "m", others=urls[1:], **given)


def requests(count: int) -> list[Request]:
    return [Request((Message("user", f"q{i}"),), (), Generation(max_new_tokens=7)) for i in range(count)]


def test_the_least_loaded_is_asked_and_one_that_failed_rests() -> None:
    now = [0.0]
    several = Replicas([("a", "a/"), ("b", "b/")], lambda: now[0])
    with several.borrow() as first, several.borrow() as second:
        assert (first.base_url, second.base_url) == ("a", "b")
        assert several.failed(first)
        with several.borrow() as third:
            assert third.base_url == "b" and third.busy == 2
    assert not several.failed(second), "both rest"
    with several.borrow() as again:
        assert again.base_url == "a", "it has rested for longest"
    now[0] = 2.0
    with several.borrow() as awake:
        assert awake.base_url == "a"
    assert several.failed(first), "the other one has rested by now"
    assert first.rests_until == 6.0, "its second failure in a row counts double"
    several.succeeded(first)
    assert (first.misses, first.rests_until) == (0, 0.0)


@pytest.mark.parametrize("broken", [CUT, CUT_IN_THE_MIDDLE, fails(500, "engine is dead")])
def test_what_one_server_fails_at_is_answered_by_the_others(
    broken: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    def dying(number: int, prompt: str) -> Answer:
        return says("x") if number < 3 else broken

    with (
        serving(dying) as bad,
        serving(lambda n, prompt: says("x")) as good,
        caplog.at_level(logging.WARNING),
    ):
        found = dict(ServerModel(endpoint(bad.url, good.url)).generate(requests(30)))
    assert {response.text for response in found.values()} == {"x"} and len(found) == 30
    assert 3 < len(bad.asked) < 9 and len(good.asked) == 27
    if broken is not fails(500) and broken.status == 200:
        assert f"--base-url {bad.url}: does not answer" in caplog.text


def test_what_no_server_can_answer_is_given_up_after_its_attempts() -> None:
    """Others wake a server that it has put to rest: it is not sent to and fro between them for that."""

    def behave(number: int, prompt: str) -> Answer:
        return fails(500, "it is too much") if prompt == "q17" else says("x")

    with serving(behave) as one, serving(behave) as other:
        found = dict(ServerModel(endpoint(one.url, other.url, attempts=3)).generate(requests(300)))
    failed = [response for response in found.values() if response.finish_reason == "failed"]
    assert len(found) == 300 and [response.why for response in failed] == [
        "HTTP 500: it is too much (3 attempts)"
    ]
    asked = [body["messages"][-1]["content"] for server in (one, other) for body in server.asked]
    assert 3 <= asked.count("q17") <= 6


def test_both_are_asked_at_once() -> None:
    meet = threading.Barrier(4, timeout=20)

    def together(number: int, prompt: str) -> Answer:
        meet.wait()
        return says("x")

    with serving(together) as one, serving(together) as other:
        assert len(dict(ServerModel(endpoint(one.url, other.url)).generate(requests(8)))) == 8
        assert len(one.asked) == len(other.asked) == 4


def test_when_all_are_gone_it_is_one_line() -> None:
    gone = threading.Event()
    chat = Chat(({"role": "user", "content": "q"},), 7)

    def behave(number: int, prompt: str) -> Answer:
        return CUT if gone.is_set() else says("x")

    with serving(behave) as one, serving(behave) as other:
        client = Client(endpoint(one.url, other.url, attempts=1))
        assert client.ask(chat).text == "x"
        gone.set()
        for _ in range(9):
            with pytest.raises(Failure):
                client.ask(chat)
            client._lost_in_a_row = 0
        line = f"--base-url {one.url},{other.url}: none of them answers any longer"
    assert isinstance(client.gone, RunError)
    assert str(client.gone).startswith(line) and "answers so far are kept" in str(client.gone)


def test_a_replica_that_refuses_is_named_alone() -> None:
    with serving(lambda n, prompt: fails(404, "no model m")) as one:
        with pytest.raises(UserError, match=f"--base-url {one.url} or") as refused:
            Client(endpoint(one.url, "http://127.0.0.1:9/v1")).ask(
                Chat(({"role": "user", "content": "q"},), 7)
            )
        assert "127.0.0.1:9" not in str(refused.value)
