"""A server that this program starts, waits for and ends."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from http.client import HTTPConnection, HTTPException
from itertools import takewhile
from pathlib import Path
from typing import Any

from stic_eval.documents import from_json
from stic_eval.errors import RunError
from stic_eval.printable import printable

_LONGEST = 3600.0  # seconds that one may take until it answers: large models are read from slow disks
_ENDING = 30.0
_END_OF_LOG = 1 << 16
_TAKEN = "address already in use"
# At a line's beginning, or behind who logs it and where: `(EngineCore pid=9) ERROR [core.py:1] ValueError: x`
_ERROR = re.compile(r"(?:^|[)\]] )((?:[\w.]+(?:Error|Exception)|[\w.\- ]*\berror): .+)")


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
        self.root, self.log, self._port = f"http://127.0.0.1:{port}", log, port
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
        return self._request("GET", path, 10.0) is not None

    def post(self, path: str) -> bool:
        """Whether a POST to a path is answered with status 200."""
        return self._request("POST", path, 600.0) is not None

    def has(self, model: str) -> bool:
        """Whether it lists a model; one that somebody else has begun on its port has others."""
        try:
            listed = from_json(self._request("GET", "/v1/models", 10.0) or "")["data"]
            return any(one["id"] == model for one in listed)
        except (ValueError, KeyError, TypeError):
            return False

    def _request(self, method: str, path: str, seconds: float) -> bytes | None:
        """What is answered with status 200; None: nothing is."""
        # Past proxies; and it costs next to nothing, while what is waited for needs the cores.
        line = HTTPConnection("127.0.0.1", self._port, timeout=seconds)
        try:
            line.request(method, path)
            reply = line.getresponse()
            return reply.read() if reply.status == 200 else None
        except (OSError, HTTPException):
            return None
        finally:
            line.close()

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
        """`: ` and the last error that its log names, or its last line; nothing of an empty log."""
        with suppress(OSError):
            text = self.log.read_bytes()[-_END_OF_LOG:].decode("utf-8", "replace")
            lines = [line for line in text.splitlines() if line.strip() and line[0] != "$"]
            # vLLM's first process ends with an error that only refers to one of its other processes.
            named = [
                (at, found[1]) for at, line in enumerate(lines, 1)
                if (found := _ERROR.search(line)) and "root cause above" not in line
            ]  # fmt: skip
            for at, error in named[-1:]:
                more = takewhile(lambda line: line.startswith(" "), lines[at:])
                return f": {printable(' '.join([error, *map(str.strip, more)]))[:300]}"
            for line in lines[-1:]:
                return f": {printable(line.strip())[:300]}"
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
