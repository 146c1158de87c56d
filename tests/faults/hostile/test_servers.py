"""Servers: replies of a model's server, lists of models, and images on the web, that nobody should send."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.faults.hostile.attempts import SECRET, Place
from tests.faults.hostile.budget import explore, few, many
from tests.faults.hostile.pictures import ENCODED, headers
from tests.faults.hostile.values import changed, one_of, spoilt, texts, to_json, values

COMPLETION: dict[str, Any] = {
    "id": "1",
    "object": "chat.completion",
    "model": "base",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "12.5"}, "finish_reason": "stop"}],
    "usage": {"completion_tokens": 3, "prompt_tokens": 10},
}
MODELS: dict[str, Any] = {"object": "list", "data": [{"id": "base", "max_model_len": 4096}]}
WHOLE = (
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 999\r\n\r\n",
    b"\0" * 100,
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    b"HTTP/1.1 307 x\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 x\r\nLocation: //127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 302 x\r\nLocation: \x1b[2J\xe2\x80\xae\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 " + b"x" * 99_999 + b"\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 9_999 + b"\r\n{}",
    b"HTTP/1.1 429 x\r\nRetry-After: 1e309\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 429 x\r\nRetry-After: Fri, 99 Foo 99999 99:99:99\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"",
)


def _head(status: int, body: bytes, more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode("latin-1", "replace")
        + body
    )


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """What a server sends to a question, and as its list of models: whole HTTP."""
    return _reply(draw, COMPLETION), _reply(draw, MODELS)


def _reply(draw: st.DrawFn, whole: dict[str, Any]) -> bytes:
    what = draw(st.integers(0, 9))
    if what == 0:
        return draw(one_of(WHOLE))
    made = draw(changed(whole, st.one_of(values, texts)))
    if what < 6 and whole is COMPLETION:
        made = {**whole, "choices": [draw(changed(whole["choices"][0], st.one_of(values, texts)))]}
    if what < 3 and whole is COMPLETION:
        made["choices"][0]["message"] = {"role": "assistant", "content": draw(texts)}
    body = to_json(made).encode()
    if what == 9:
        body = draw(
            st.one_of(
                spoilt(body),
                st.sampled_from([b"[" * 9_999, b'{"a":' * 9_999, b"", b"null", b"5", b"1" * 9_999]),
            )
        )
    status = 200 if what < 8 else draw(st.sampled_from([200, 400, 401, 404, 418, 429, 500, 503]))
    if status != 200:
        body = to_json(
            draw(
                st.sampled_from([{"error": {"message": draw(texts)}}, {"detail": draw(values)}, draw(values)])
            )
        ).encode()
    return _head(status, body)


class _Sender:
    """A server on this machine that sends what it is told to, whatever it is asked."""

    def __init__(self) -> None:
        self.said: dict[str, bytes] = {}
        sender = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self._send(sender.said.get("POST", b""))

            def do_GET(self) -> None:
                self._send(sender.said.get(self.path, sender.said.get("GET", b"")))

            def _send(self, data: bytes) -> None:
                self.close_connection = True
                with suppress(OSError):
                    self.wfile.write(data)

            def log_message(self, *what: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@contextmanager
def sending(place: Place) -> Iterator[_Sender]:
    """Starts such a server, which commands may ask."""
    sender = _Sender()
    place.ports = (sender.port,)
    try:
        yield sender
    finally:
        sender.server.shutdown()
        sender.server.server_close()


def ask(place: Place, said: tuple[bytes, bytes], sender: _Sender) -> None:
    """Evaluates a server's model on one row, has a judge grade an answer, and looks at the server."""
    sender.said = {"POST": said[0], "GET": said[1]}
    url = f"http://127.0.0.1:{sender.port}/v1"
    row = {"id": 1, "type": "human_test", "question": "q", "answer": "1", "image": "good.png"}
    (place.work / "rows.jsonl").write_text(json.dumps(row) + "\n")
    open_row = {"question_id": "v1_0", "question": "What?", "answer": "red", "capability": ["rec"]}
    (place.work / "open.jsonl").write_text(json.dumps(open_row) + "\n")
    (place.work / "answers.jsonl").write_text('{"id": "v1_0", "response": "red"}\n')
    place.attempt(
        "eval",
        "--engine",
        "openai",
        "--base-url",
        url,
        "--model",
        "base",
        "--benchmarks",
        "chartqa",
        "-o",
        "rows.chartqa=rows.jsonl",
        "-o",
        "server.attempts=1",
        "--timeout",
        "10",
        "--output",
        "out/run",
        "-q",
        "--api-key-env",
        "CANARY_KEY",
    )
    place.attempt(
        "score",
        "mmvet",
        "--predictions",
        "answers.jsonl",
        "--rows",
        "open.jsonl",
        "--judge",
        "base",
        "--judge-base-url",
        url,
        "--judge-api-key-env",
        "CANARY_KEY",
        "-o",
        "judge.attempts=1",
        "--json",
        "out/scores.json",
        "-q",
    )
    place.attempt("doctor", "--base-url", url, "--api-key-env", "CANARY_KEY")
    for path in (*(place.work / "out").rglob("*"), *(place.root / "cache").rglob("*")):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    place.clear()


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """What lies where an image should: whole HTTP."""
    what = draw(st.integers(0, 5))
    if what == 0:
        return draw(one_of(WHOLE))
    body = draw(st.one_of(one_of(ENCODED).flatmap(spoilt), headers(), one_of(ENCODED)))
    status = draw(st.sampled_from([200, 200, 200, 206, 302, 404, 500]))
    to = draw(
        st.sampled_from(
            [
                "/good",
                "/loop",
                "file:///etc/passwd",
                "http://127.0.0.1:9/",
                "//",
                "\x1b[2J",
                "x" * 9_999,
                "http://[::1",
                "ftp://x/",
            ]
        )
    )
    return _head(status, body, f"Location: {to}\r\nContent-Type: text/html\r\n")


# Where a server may send whoever fetches an image: a row may name any address, so a redirect may, too.
_REDIRECTS = (9,)


def fetch(place: Place, said: bytes, sender: _Sender) -> None:
    """Checks a row whose image lies on the web."""
    import shutil

    good = _head(200, (place.work / "good.png").read_bytes())
    sender.said = {"/image": said, "/good": good, "/loop": _head(302, b"", "Location: /loop\r\n")}
    row = {
        "id": 1,
        "type": "human_test",
        "question": "q",
        "answer": "1",
        "image": f"http://127.0.0.1:{sender.port}/image",
    }
    (place.work / "rows.jsonl").write_text(json.dumps(row) + "\n")
    place.attempt("data", "check", "chartqa", "--from", "rows.jsonl", "--allow-remote-images", "-q")
    shutil.rmtree(place.root / "cache" / "images", ignore_errors=True)


def test_servers(place: Place) -> None:
    with sending(place) as sender:
        explore("server replies", place, replies(), lambda at, said: ask(at, said, sender), few(6))


def test_images_on_the_web(place: Place) -> None:
    with sending(place) as sender:
        place.ports = (sender.port, *_REDIRECTS)
        explore("images on the web", place, pictures(), lambda at, said: fetch(at, said, sender), few(8))


@pytest.mark.campaign
def test_many_replies(place: Place) -> None:
    with sending(place) as sender:
        explore("server replies", place, replies(), lambda at, said: ask(at, said, sender), many(400))


@pytest.mark.campaign
def test_many_images_on_the_web(place: Place) -> None:
    with sending(place) as sender:
        place.ports = (sender.port, *_REDIRECTS)
        explore("images on the web", place, pictures(), lambda at, said: fetch(at, said, sender), many(500))
