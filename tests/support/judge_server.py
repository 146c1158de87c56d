"""A local OpenAI-compatible server that behaves as a test tells it to, as badly as need be."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What is sent back: status, headers, body; or `act`, which gets the handler and does as it likes."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    act: Callable[[BaseHTTPRequestHandler], None] | None = None


def says(text: Any, finish: str = "stop", *, before: int | None = None, **message: Any) -> Answer:
    """A completion; `before`: tokens of its prompt."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish,
    }
    usage = {"completion_tokens": 3} | ({} if before is None else {"prompt_tokens": before})
    return Answer(json.dumps({"choices": [choice], "usage": usage}).encode())


def fails(status: int, message: str = "no", **headers: str) -> Answer:
    """An error in OpenAI's shape; `retry_after="2"` becomes the header `retry-after`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps({"error": {"message": message}}).encode(), status, named)


def _cut(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(2)


def _cut_in_the_middle(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices": [')
    handler.connection.shutdown(2)


def _drip(handler: BaseHTTPRequestHandler, piece: bytes) -> None:
    try:
        for _ in range(600):
            handler.wfile.write(piece)
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass


def _drip_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    _drip(handler, b" ")


def _drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
    _drip(handler, b"a")


CUT, CUT_IN_THE_MIDDLE = Answer(act=_cut), Answer(act=_cut_in_the_middle)
SLOW_BODY, SLOW_HEADERS = Answer(act=_drip_body), Answer(act=_drip_headers)


def _text(content: Any) -> str:
    """The text of a message, which may have other parts as well."""
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part["type"] == "text")


class Server:
    """What it was asked, and what it answered.

    Attributes:
        url: The base URL, with `/v1`.
        asked: Bodies of all requests, with `authorization` and `path` added.
        answered: Prompts of the requests that got status 200 and were sent in full.
    """

    def __init__(self, behave: Callable[[int, str], Answer]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answered: list[str] = []
        self.most_at_once = 0
        lock, open_ = threading.Lock(), [0]
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = _text(body["messages"][-1]["content"])
                with lock:
                    number = len(server.asked)
                    server.asked.append(
                        {**body, "authorization": self.headers["authorization"], "path": self.path}
                    )
                    open_[0] += 1
                    server.most_at_once = max(server.most_at_once, open_[0])
                try:
                    answer = behave(number, prompt)
                    if answer.act is not None:
                        self.close_connection = True
                        answer.act(self)
                        return
                    self.send_response(answer.status)
                    for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(answer.body)
                    if answer.status == 200:
                        with lock:
                            server.answered.append(prompt)
                finally:
                    with lock:
                        open_[0] -= 1

            def do_GET(self) -> None:
                """Answers by path, and keeps nothing: such a request asks a model nothing."""
                answer = behave(-1, self.path)
                self.send_response(answer.status)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients hang up on purpose

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def serving(behave: Callable[[int, str], Answer]) -> Iterator[Server]:
    """A server that answers the n-th request, with this prompt, as `behave(n, prompt)` says."""
    server = Server(behave)
    try:
        yield server
    finally:
        server.close()
