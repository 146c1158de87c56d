"""The client of OpenAI-compatible servers, against a local one that misbehaves."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from stic_eval.errors import UserError
from stic_eval.models import openai_client
from stic_eval.models.chat_wire import Chat, Reply
from stic_eval.models.connection import Endpoint
from stic_eval.models.openai_client import Client, Failure
from tests.support.judge_server import (
    CUT,
    CUT_IN_THE_MIDDLE,
    SLOW_BODY,
    SLOW_HEADERS,
    Answer,
    Server,
    fails,
    says,
    serving,
)

KEY = "sk-very-secret-0123456789"


def chat(text: str = "hello", **more: Any) -> Chat:
    return Chat(({"role": "user", "content": text},), max_tokens=7, **more)


def client(server: Server, waits: list[float] | None = None, **settings: Any) -> Client:
    kept: list[float] = [] if waits is None else waits
    endpoint = Endpoint(**{"base_url": server.url, "model": "m", "api_key": KEY, "timeout": 5.0, **settings})
    return Client(endpoint, wait=kept.append)


def script(*answers: Answer) -> Callable[[int, str], Answer]:
    return lambda number, prompt: answers[min(number, len(answers) - 1)]


def test_what_is_sent_and_what_comes_back() -> None:
    with serving(script(says("hi"))) as server:
        reply = client(server).ask(chat())
        assert (reply.text, reply.finish_reason, reply.n_tokens) == ("hi", "stop", 3)
        client(server, base_url=server.url + "/", api_key=None).ask(chat(seed=4, temperature=0.5))
    first, second = server.asked
    assert first == {
        "model": "m",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.0,
        "max_tokens": 7,
        "authorization": f"Bearer {KEY}",
        "path": "/v1/chat/completions",
    }
    assert second["path"] == "/v1/chat/completions"
    assert second["seed"] == 4 and second["temperature"] == 0.5
    assert second["authorization"] is None


def test_content_may_be_parts() -> None:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    with serving(script(says("a cat"))) as server:
        client(server).ask(Chat(({"role": "user", "content": parts},), 5))
    assert server.asked[0]["messages"][0]["content"] == parts


@pytest.mark.parametrize(
    "bad",
    [
        fails(408), fails(409), fails(429), fails(500), fails(502), fails(503), fails(529), CUT,
        CUT_IN_THE_MIDDLE, Answer(b'{"choices": [{"mess'), Answer(b"\xff\xfe"), Answer(b""), Answer(b"[]"),
        Answer(b"null"), Answer(b'{"choices": []}'), Answer(b'{"choices": null}'), Answer(b'{"choices": {}}'),
        Answer(b'{"choices": [{"message": null}]}'), Answer(b'{"choices": [{"message": {"content": 5}}]}'),
        Answer(b'{"choices": [{"message": {"content": ["hi"]}}]}'), Answer(b'{"error": {"message": "busy"}}'),
        Answer(b"[" * 100_000), says(None),
        Answer(b"not gzip", headers={"content-encoding": "gzip"}),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:24]!r}" if answer.act is None else answer.act.__name__,
)  # fmt: skip
def test_asked_again_until_it_is_answered(bad: Answer) -> None:
    waits: list[float] = []
    with serving(script(bad, bad, says("at last"))) as server:
        assert client(server, waits).ask(chat()).text == "at last"
    assert len(server.asked) == 3
    assert len(waits) == 2
    assert 0 <= waits[0] <= 1 and 0 <= waits[1] <= 2


@pytest.mark.parametrize("slow", [SLOW_BODY, SLOW_HEADERS], ids=["body", "headers"])
def test_a_server_that_dribbles_cannot_hold_a_request(slow: Answer) -> None:
    with serving(script(slow, says("at last"))) as server:
        assert client(server, timeout=0.3).ask(chat()).text == "at last"
    assert len(server.asked) == 2


def test_a_server_that_hangs() -> None:
    release = threading.Event()

    def hang(handler: object) -> None:
        release.wait(30)

    with serving(script(Answer(act=hang))) as server:
        try:
            with pytest.raises(Failure, match=r"no complete reply within 0\.2 s \(2 attempts\)"):
                client(server, timeout=0.2, attempts=2).ask(chat())
        finally:
            release.set()


def test_a_reply_without_end_is_cut() -> None:
    endless = Answer(gzip.compress(b" " * 3_000_000), headers={"content-encoding": "gzip"})
    with serving(script(endless)) as server, pytest.raises(Failure, match="longer than 1000000 bytes"):
        client(server, attempts=2, max_bytes=1_000_000).ask(chat())


def test_gives_up_after_so_many_attempts_and_says_what_the_server_said() -> None:
    waits: list[float] = []
    with serving(script(fails(500, "on\nfire \x1b[31m"))) as server, pytest.raises(Failure) as error:
        client(server, waits, attempts=4).ask(chat())
    assert str(error.value) == r"HTTP 500: on fire \x1b[31m (4 attempts)"
    assert len(server.asked) == 4
    assert len(waits) == 3  # nobody waits after the last one


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_fails_alone_and_at_once(status: int) -> None:
    with serving(script(fails(status, "too long"), says("fine"))) as server:
        asked = client(server)
        with pytest.raises(Failure, match=f"HTTP {status}: too long"):
            asked.ask(chat())
        assert asked.ask(chat()).text == "fine"


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (fails(401, "bad key"), ["--judge-api-key-env", "bad key"]),
        (fails(403, "not you"), ["--judge-api-key-env", "not you"]),
        (fails(404, "no model m"), ["--judge-base-url", "--judge m", "no model m"]),
        (Answer(status=307, headers={"location": "http://b.example"}), ["--judge-base-url", "b.example"]),
    ],
)  # fmt: skip
def test_what_no_request_could_pass_ends_everything(answer: Answer, named: list[str]) -> None:
    with serving(script(answer)) as server, pytest.raises(UserError) as error:
        list(client(server, concurrency=1).stream(range(50), lambda n: client_ask(server)))
    assert all(part in str(error.value) for part in named)
    assert "\n" not in str(error.value)
    assert len(server.asked) == 1


def client_ask(server: Server) -> Reply:
    return client(server).ask(chat())


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        endpoint = Endpoint(url, "m", attempts=2, timeout=5)
        with pytest.raises(UserError, match=f"--judge-base-url {url}: cannot be reached"):
            Client(endpoint, wait=lambda s: None).ask(chat())


def test_a_server_that_dies_is_not_asked_for_ever() -> None:
    with serving(script(says("hi"), fails(500))) as server:
        asked = client(server, attempts=2, concurrency=4)
        asked.ask(chat())

        def work(number: int) -> str:
            try:
                return asked.ask(chat()).text
            except Failure as error:
                return str(error)

        reasons = [reason for _, reason in asked.stream(range(300), work)]
    assert len(reasons) == 300
    assert sum("failures in a row" in reason for reason in reasons) > 200
    assert len(server.asked) < 80


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_holds_everyone_back(as_date: bool) -> None:
    waits: list[float] = []
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True) if as_date else "40"
    with serving(script(fails(429, retry_after=later), says("hi"))) as server:
        asked = client(server, waits)
        assert asked.ask(chat()).text == "hi"
        assert asked.ask(chat()).text == "hi"  # another request, before the time is over
    assert 30 <= waits[0] <= 41 + 1
    assert all(30 <= wait <= 41 for wait in waits[1:]) and len(waits) == 3


@pytest.mark.parametrize("header", ["-5", "soon", "nan", "Wed, 99 Foo 2020", "0"])
def test_retry_after_without_sense_is_the_usual_wait(header: str) -> None:
    waits: list[float] = []
    with serving(script(fails(429, retry_after=header), says("hi"))) as server:
        client(server, waits).ask(chat())
    assert len(waits) == 1 and 0 <= waits[0] <= 1


def test_retry_after_is_bounded() -> None:
    waits: list[float] = []
    with serving(script(fails(429, retry_after="1e300"), says("hi"))) as server:
        client(server, waits).ask(chat())
    assert max(waits) <= 602


def test_a_long_wait_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with serving(script(*[fails(429, retry_after="300")] * 3, says("hi"))) as server:
        client(server, []).ask(chat())
    (line,) = [record.getMessage() for record in caplog.records if "asks to wait" in record.getMessage()]
    assert "300 s (HTTP 429" in line and KEY not in line
    caplog.clear()
    with serving(script(fails(429, retry_after="2"), says("hi"))) as server:
        client(server, []).ask(chat())
    assert not caplog.records


def test_waits_grow_and_are_drawn_at_random() -> None:
    waits: list[float] = []
    with serving(script(fails(500))) as server:
        for _ in range(3):
            with pytest.raises(Failure):
                client(server, waits, attempts=9, longest_backoff=16).ask(chat())
    rounds = [waits[start : start + 8] for start in (0, 8, 16)]
    for round_ in rounds:
        assert all(0 <= wait <= min(16, 2**n) for n, wait in enumerate(round_))
    assert rounds[0] != rounds[1] != rounds[2]


def test_the_cap_counts_every_request() -> None:
    with serving(lambda number, prompt: fails(500) if number % 2 == 0 else says("hi")) as server:
        asked = client(server, max_requests=5, concurrency=1)

        def work(number: int) -> str:
            try:
                return asked.ask(chat()).text
            except Failure as error:
                return str(error)

        results = [text for _, text in asked.stream(range(4), work)]
    assert results == ["hi", "hi"] + ["the cap of 5 requests is used up (--judge-max-requests)"] * 2
    assert len(server.asked) == asked.sent == 5


def test_the_cap_of_zero_sends_nothing() -> None:
    with serving(script(says("hi"))) as server, pytest.raises(Failure, match="cap of 0"):
        client(server, max_requests=0).ask(chat())
    assert server.asked == []


def test_so_many_at_once_and_each_as_it_ends() -> None:
    gate = threading.Barrier(4, timeout=20)

    def behave(number: int, prompt: str) -> Answer:
        gate.wait()  # nobody is answered before four are asking
        return says(prompt)

    with serving(behave) as server:
        asked = client(server, concurrency=4)
        results = dict(asked.stream(range(12), lambda n: asked.ask(chat(str(n))).text))
    assert results == {n: str(n) for n in range(12)}
    assert server.most_at_once == 4


def test_results_come_before_the_slow_ones_are_done() -> None:
    release = threading.Event()

    def behave(number: int, prompt: str) -> Answer:
        if prompt == "0":
            release.wait(20)
        return says(prompt)

    with serving(behave) as server:
        asked = client(server, concurrency=2, timeout=30)
        stream = asked.stream(range(6), lambda n: asked.ask(chat(str(n))).text)
        first = [next(stream)[0] for _ in range(5)]
        release.set()
        assert sorted(first) == [1, 2, 3, 4, 5]
        assert [n for n, _ in stream] == [0]


def test_an_interrupt_ends_waits_and_open_requests() -> None:
    release, hung = threading.Event(), threading.Event()

    def hang(handler: object) -> None:
        hung.set()
        release.wait(30)

    def behave(number: int, prompt: str) -> Answer:
        if prompt == "hang":
            return Answer(act=hang)
        return fails(500) if prompt == "wait" else says("hi")

    ends: list[str] = []
    with serving(behave) as server:
        # Real waits: of an hour, unless something wakes them.
        asked = Client(
            Endpoint(server.url, "m", concurrency=3, timeout=300, backoff=1e9, longest_backoff=1e9)
        )

        def work(text: str) -> str:
            if text == "go":
                hung.wait(20)
            try:
                return asked.ask(chat(text)).text
            except Failure as error:
                ends.append(f"{text}: {error}")
                raise

        stream = asked.stream(["hang", "wait", "go", *["go"] * 50], work)
        next(stream)
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt())
        try:
            before = time.monotonic()
            while len(ends) < 2 and time.monotonic() - before < 20:
                time.sleep(0.01)
            assert {end.split(":")[0] for end in ends} >= {"hang", "wait"}
        finally:
            release.set()


def test_an_error_of_the_work_is_raised_where_the_results_are_awaited() -> None:
    with serving(script(says("hi"))) as server:
        asked = client(server)

        def work(number: int) -> int:
            raise StopIteration if number == 3 else ZeroDivisionError

        with pytest.raises((ZeroDivisionError, RuntimeError)):
            list(asked.stream(range(5), work))


def test_the_key_is_nowhere() -> None:
    def echo(number: int, prompt: str) -> Answer:
        if prompt == "reply":
            return says(f"your key is {KEY}")
        return Answer(json.dumps({"error": {"message": f"{'x' * 190} Bearer {KEY}"}}).encode(), 400)

    with serving(echo) as server:
        asked = client(server)
        with pytest.raises(Failure) as error:
            asked.ask(chat())
        assert "sk-very" not in str(error.value) and "sk-" not in str(error.value)
        assert asked.ask(chat("reply")).text == "your key is [key]"
        assert KEY not in repr(asked.endpoint) + repr(asked) + repr(vars(asked))


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", ""])
def test_a_key_that_no_header_can_hold(key: str) -> None:
    with pytest.raises(UserError) as error:
        Client(Endpoint("http://localhost/v1", "m", api_key=key))
    assert "--judge-api-key-env" in str(error.value)
    assert not key or key not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host/v1", "http://", "http://host:99999/v1", "file:///etc/passwd"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UserError, match="--judge-base-url"):
        Client(Endpoint(url, "m"))


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hunter2@host/v1",
        "https://host/v1?key=hunter2",
        "http://a:hunter2@host:x/",
        "http://h#hunter2",
    ],
)
def test_an_address_with_a_secret(url: str) -> None:
    with pytest.raises(UserError, match="--judge-base-url") as error:
        Client(Endpoint(url, "m"))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (says("cut of", "length"), ("cut of", "length")),
        (says(None, "content_filter"), ("", "content_filter")),
        (says(None, refusal="I will not"), ("I will not", "refusal")),
        (says("", "length"), ("", "length")),
        (says("half \ud83d", "stop"), ("half ?", "stop")),
    ],
)
def test_how_it_ended_is_passed_on(answer: Answer, expected: tuple[str, str]) -> None:
    with serving(script(answer)) as server:
        reply = client(server).ask(chat())
    assert (reply.text, reply.finish_reason) == expected


def test_models_that_want_another_name_for_the_bound() -> None:
    wanted = fails(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    with serving(lambda n, p: wanted if "max_tokens" in server.asked[n] else says("hi")) as server:
        asked = client(server)
        assert [asked.ask(chat()).text, asked.ask(chat()).text] == ["hi", "hi"]
    assert [("max_tokens" in body) for body in server.asked] == [True, False, False]
    assert server.asked[-1]["max_completion_tokens"] == 7


def test_importing_it_imports_no_http_client() -> None:
    code = (
        "import sys, stic_eval.models.openai_client, stic_eval.evals.judging;"
        " sys.exit('httpx2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_would_end_everything_is_one_requests_trouble_once_others_were_served() -> None:
    with serving(script(says("hi"), fails(404, "lost"), says("ho"))) as server:
        asking = client(server)
        assert asking.ask(chat()).text == "hi"
        with pytest.raises(Failure, match="HTTP 404: lost"):
            asking.ask(chat())
        assert asking.ask(chat()).text == "ho"


def test_retry_after_holds_for_the_next_request_even_if_this_one_is_lost() -> None:
    waits: list[float] = []
    with serving(script(fails(429, retry_after="4"), says("hi"))) as server:
        asking = client(server, waits, attempts=1)
        with pytest.raises(Failure, match="HTTP 429"):
            asking.ask(chat())
        assert asking.ask(chat()).text == "hi"
    assert len(waits) == 1 and 3 < waits[0] <= 4


def test_nothing_is_sent_by_who_was_about_to_when_the_client_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopped, ends = threading.Event(), threading.Event(), list[str]()

    class Slow(openai_client.Connection):
        def __init__(self, *how: Any) -> None:
            begun.set()
            stopped.wait(20)
            super().__init__(*how)

    monkeypatch.setattr(openai_client, "Connection", Slow)

    def ask() -> None:
        try:
            asked.ask(chat("late"))
        except Failure as error:
            ends.append(str(error))

    with serving(lambda number, prompt: says("hi")) as server:
        asked = client(server)
        late = threading.Thread(target=ask)
        late.start()
        begun.wait(20)
        asked.stop()
        stopped.set()
        late.join(20)
        assert ends == ["interrupted"] and not server.asked
