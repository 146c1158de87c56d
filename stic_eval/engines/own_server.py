"""A server that this program starts, waits for and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from stic_eval.errors import RunError
from stic_eval.printable import printable

_LONGEST = 3600.0  # seconds that one may take until it answers: large models are read from slow disks
_ENDING = 30.0
_END_OF_LOG = 1 << 16
_TAKEN = "address already in use"


class PortTaken(RunError):
    """Somebody else listens on a server's port, which was free when it was looked for."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class OwnServer:
    """A server process, from its start on.

    Args:
        command: What is executed.
        environment: Of the process, beside this one's.
        port: That it listens on.
        log: Where what it prints goes.

    Attributes:
        root: Its address, without `/v1`.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], port: int, log: Path) -> None:
        self.root, self.log = f"http://127.0.0.1:{port}", log
        log.parent.mkdir(parents=True, exist_ok=True)
        keeper = [sys.executable, "-m", "stic_eval.engines.keeper", *command]
        with log.open("ab") as out:
            out.write(f"$ {' '.join(command)}\n".encode())
            out.flush()
            self._keeper = subprocess.Popen(
                keeper, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._keeper.poll() is None

    def get(self, path: str) -> bool:
        """Whether a GET of a path is answered with status 200."""
        import httpx2

        try:
            return httpx2.get(f"{self.root}{path}", timeout=10.0).status_code == 200
        except (httpx2.HTTPError, OSError):
            return False

    def post(self, path: str) -> bool:
        """Whether a POST to a path is answered with status 200."""
        import httpx2

        try:
            return httpx2.post(f"{self.root}{path}", timeout=600.0).status_code == 200
        except (httpx2.HTTPError, OSError):
            return False

    def has(self, model: str) -> bool:
        """Whether it lists a model; one that somebody else has begun on its port has others."""
        import httpx2

        try:
            listed = httpx2.get(f"{self.root}/v1/models", timeout=10.0).json()["data"]
            return any(one.get("id") == model for one in listed)
        except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def wait(self, step: Callable[[str], AbstractContextManager[Any]], what: str, model: str) -> None:
        """Waits until it answers, and shows that.

        Args:
            step: Shows a piece of work.
            what: That it is waited for.
            model: A name that it alone gives its model.

        Raises:
            PortTaken: Somebody else answers on its port.
            RunError: It has ended, or takes too long; with the last error of its log.
        """
        begin = time.monotonic()
        with step(what) as progress:
            while not (self.get("/health") and self.has(model)):
                seconds = time.monotonic() - begin
                if progress is not None:
                    progress.update(int(seconds), None)
                if not self.alive:
                    taken = PortTaken if _TAKEN in (words := self.last_words()).lower() else RunError
                    raise taken(f"{what}: it has ended{words} (see {self.log})")
                if seconds > _LONGEST:
                    self.end()
                    raise RunError(f"{what}: no answer within {_LONGEST:.0f} s (see {self.log})")
                time.sleep(0.3)

    def last_words(self) -> str:
        """`: ` and the last line of its log that names an error, or the last one; nothing of an empty log."""
        with suppress(OSError):
            text = self.log.read_bytes()[-_END_OF_LOG:].decode("utf-8", "replace")
            lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "$"]
            named = [line for line in lines if "Error" in line or "error:" in line]
            for line in (named or lines)[-1:]:
                return f": {printable(line)[:300]}"
        return ""

    def end(self) -> None:
        """Ends it, and all processes that it has begun."""
        if self._keeper.stdin is not None:
            with suppress(OSError):
                self._keeper.stdin.close()
        try:
            self._keeper.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
