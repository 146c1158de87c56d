"""Images by URL: refused unless allowed, fetched once, within limits. Against a server on this machine."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from stic_eval import registry
from stic_eval.errors import UserError
from stic_eval.evals import remote_images
from stic_eval.evals.data_check import check
from stic_eval.evals.sources import samples


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever HF_HUB_OFFLINE says of the machine that the tests run on."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (9, 8, 7)).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/drip.png":  # a byte now and then, which no limit between two bytes ends
            self.send_response(200)
            self.end_headers()
            while not self.server.stopped.wait(0.05):  # type: ignore[attr-defined]
                try:
                    self.wfile.write(b"\0")
                except OSError:
                    return
            return
        if self.path.startswith("/to"):
            target = {"/to": "/ok.png", "/to-file": "file:///etc/passwd", "/to-itself": "/to-itself"}[
                self.path
            ]
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()
            return
        self.send_response(404 if self.path == "/none.png" else 200)
        self.end_headers()
        if self.path == "/large.png":
            for _ in range(64):
                try:
                    self.wfile.write(b"\0" * 4096)
                except OSError:
                    return
        else:
            self.wfile.write(b"<html></html>" if self.path == "/page" else png())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.asked = []
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.stopped = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.stopped.set()  # type: ignore[attr-defined]
    made.shutdown()
    thread.join()
    made.server_close()


def rows(folder: Path, *urls: str) -> Path:
    lines = [json.dumps({"type": "human_test", "question": "?", "answer": "1", "image": url}) for url in urls]
    (folder / "test.jsonl").write_text("\n".join(lines))
    return folder / "test.jsonl"


def test_nothing_is_fetched_unless_it_is_allowed(server: str, tmp_path: Path) -> None:
    file = rows(tmp_path, f"{server}/ok.png")
    chartqa = registry.benchmarks().get("chartqa")
    with pytest.raises(
        UserError, match=r'row 1: column "image": http://127\.0\.0\.1:\d+/ok\.png: .*--allow-remote-images'
    ):
        samples(chartqa, file)
    assert len(samples(chartqa, file, images=False)) == 1
    assert Handler.asked == []


def test_an_image_is_fetched_once_for_all_runs(server: str, tmp_path: Path) -> None:
    file = rows(tmp_path, f"{server}/ok.png", f"{server}/to", f"{server}/ok.png")
    chartqa = registry.benchmarks().get("chartqa")
    for _ in range(2):
        found = samples(chartqa, file, remote=True)
        assert {s.images[0].load().getpixel((0, 0)) for s in found} == {(9, 8, 7)}
    assert sorted(Handler.asked) == ["/ok.png", "/ok.png", "/to"]
    assert found[0].images[0].source == f"{server}/ok.png"
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 2


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none.png", "the server answers 404"),
        ("/page", "not an image of a known format"),
        ("/to-file", "cannot be fetched"),
        ("/to-itself", "cannot be fetched: .*redirects"),
        ("/large.png", "is larger than"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    server: str, path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_images, "MAX_BYTES", 100_000)
    (problem,) = check(
        registry.benchmarks().get("chartqa"), rows(tmp_path, server + path), remote=True
    ).problems
    import re

    assert re.search(message, str(problem))
    assert not (tmp_path / "cache" / "images").exists()


def test_a_server_that_dribbles_is_left(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_images, "SECONDS", 0.5)
    checked = check(registry.benchmarks().get("chartqa"), rows(tmp_path, f"{server}/drip.png"), remote=True)
    assert "cannot be fetched: no complete reply within 0.5 s" in str(checked.problems[0])


def test_a_server_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match="row 1: .*cannot be fetched: ") as caught:  # noqa: RUF043
        samples(registry.benchmarks().get("chartqa"), rows(tmp_path, "http://127.0.0.1:9/x.png"), remote=True)
    assert "\n" not in str(caught.value)


def test_offline_nothing_is_fetched(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    chartqa, file = registry.benchmarks().get("chartqa"), rows(tmp_path, f"{server}/ok.png")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="not in the local cache; without --offline"):
        samples(chartqa, file, remote=True)
    assert Handler.asked == []
