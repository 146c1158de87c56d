"""One connection to a server: a request with a deadline for all of it, and a bound on the reply's size."""

from __future__ import annotations

import email.utils
import math
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from stic_eval.documents import from_json
from stic_eval.errors import UserError


@dataclass(frozen=True)
class Endpoint:
    """A server, a model on it, and how patiently it is asked.

    Attributes:
        base_url: What `/chat/completions` is appended to, as given; with a key, use https unless the
            server is on this machine.
        model: The model's name at the server.
        api_key: Sent as a bearer token; None: none. In no `repr`, error or log.
        timeout: Seconds for one request, from connecting to the reply's last byte.
        attempts: Times that a request is sent before it counts as failed.
        concurrency: Requests in flight.
        max_requests: Cap on requests sent, repetitions included; None: none.
        backoff: Seconds; the n-th wait is drawn from [0, backoff * 2^n] (full jitter).
        longest_backoff: Bound on that range, in seconds.
        longest_wait: Bound on what a server may demand by Retry-After, in seconds.
        max_bytes: Bound on a reply's size.
        flag: Flag of the model's name.
        prefix: What the flags of address, key and cap begin with.
        others: Addresses of replicas, which have the same model under the same name.
    """

    base_url: str
    model: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    attempts: int = 6
    concurrency: int = 8
    max_requests: int | None = None
    backoff: float = 1.0
    longest_backoff: float = 60.0
    longest_wait: float = 600.0
    max_bytes: int = 8 << 20
    flag: str = "--judge"
    prefix: str = "--judge-"
    others: tuple[str, ...] = ()

    @property
    def base_urls(self) -> tuple[str, ...]:
        """All addresses."""
        return (self.base_url, *self.others)

    def each(self) -> list[Endpoint]:
        """The servers, each alone."""
        return [replace(self, base_url=url, others=()) for url in self.base_urls]


_REDIRECTS = 5


class NoReply(Exception):
    """No complete reply came, with the reason; `reached`: whether there was a connection at all."""

    def __init__(self, reason: str, *, reached: bool = True) -> None:
        super().__init__(reason)
        self.reached = reached


class TooLarge(NoReply):
    """A reply of more bytes than are taken."""


class Connection:
    """Asks a server over one connection that is kept. One thread uses it; any may make it `hang_up`.

    Time-outs of HTTP libraries start anew with every byte, so a server that dribbles could hold a
    request for ever. Here a timer shuts the socket down when the time for the whole is over.

    Args:
        api_key: Sent as a bearer token; None: none.
        timeout: Seconds for a request, from connecting to the last byte.
        max_bytes: Bound on the reply, decompressed.
    """

    def __init__(self, api_key: str | None, timeout: float, max_bytes: int) -> None:
        import httpx2

        self._timeout, self._max_bytes = timeout, max_bytes
        headers = {"User-Agent": "stic-eval"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._client = httpx2.Client(
            headers=headers,
            timeout=timeout,
            follow_redirects=False,  # else the key would go wherever the server points
            max_redirects=_REDIRECTS,
            limits=httpx2.Limits(max_connections=1, max_keepalive_connections=1),
        )
        self._socket: socket.socket | None = None
        self._expired = False

    def post(self, url: str, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        """Sends JSON and returns status, headers (lower-case names) and body.

        Raises:
            NoReply: The server cannot be reached, is too slow, sends too much, or hangs up.
        """
        return self._exchange("POST", url, content=body, headers={"Content-Type": "application/json"})

    def get(self, url: str) -> tuple[int, Mapping[str, str], bytes]:
        """As `post`, of what lies at an address, or where that points to.

        Raises:
            NoReply: As of `post`, or it points to itself, or to what is not on the web.
        """
        return self._exchange("GET", url, follow_redirects=True)

    def _exchange(self, method: str, url: str, **how: Any) -> tuple[int, Mapping[str, str], bytes]:
        import httpx2

        self._expired = False
        timer = threading.Timer(self._timeout, self._expire)
        timer.daemon = True
        timer.start()
        ends = time.monotonic() + self._timeout
        try:
            with self._client.stream(method, url, extensions={"trace": self._trace}, **how) as reply:
                data = bytearray()
                for chunk in reply.iter_bytes():
                    data += chunk
                    if len(data) > self._max_bytes:
                        raise TooLarge(f"the reply is longer than {self._max_bytes} bytes")
                    if time.monotonic() > ends:
                        raise NoReply(self._late)
                if self._expired:  # without a length, a connection that was shut down looks like the end
                    raise NoReply(self._late)
                return reply.status_code, dict(reply.headers), bytes(data)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.InvalidURL) as error:
            raise NoReply(f"no connection: {error}", reached=False) from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError, ValueError) as error:
            late = self._expired or isinstance(error, httpx2.TimeoutException)
            raise NoReply(self._late if late else f"cut off: {str(error) or type(error).__name__}") from None
        finally:
            timer.cancel()

    def hang_up(self) -> None:
        """Closes the connection: a request that is waiting for bytes ends now."""
        connection = self._socket
        if connection is not None:
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Gives the connection back to the system."""
        self._client.close()
        self._forget()

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @property
    def _late(self) -> str:
        return f"no complete reply within {self._timeout:g} s"

    def _expire(self) -> None:
        self._expired = True
        self.hang_up()

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".connect_unix_socket.complete")):
            self._forget()
            # A handle of its own: TLS takes the socket itself over, and nobody else closes this one.
            self._socket = info["return_value"].get_extra_info("socket").dup()


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (a number, or a date); None: nothing sensible."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def permanent_refusal(endpoint: Endpoint, status: int, detail: str, where: str) -> str:
    """One line on a status that every other request would get as well, with the flag to correct."""
    base, key = f"{endpoint.prefix}base-url {endpoint.base_url}", f"{endpoint.prefix}api-key-env"
    if status in (401, 403) and endpoint.api_key is None:
        return f"{key}: the server asks for a key (HTTP {status}{detail}); name the variable that holds it"
    if status in (401, 403):
        return f"{key}: the server refuses the key (HTTP {status}{detail})"
    if status == 404:
        return (
            f"{base} or {endpoint.flag} {endpoint.model}: "
            f"the server knows no such address or model (HTTP 404{detail})"
        )
    return f"{base}: the server points to {where} (HTTP {status}); give that"


def error_of(data: bytes) -> str:
    """`: message` of an error body in OpenAI's or FastAPI's shape, or the beginning of any other."""
    text = data[:4000].decode("utf-8", "replace")
    try:
        found = from_json(data)
        error = found["error"] if "error" in found else found["detail"]
        text = str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        pass
    return f": {text.strip()}" if text.strip() else ""


def check_url(endpoint: Endpoint) -> str:
    """Checks an endpoint's address, and gives the one that chat completions are posted to.

    Raises:
        UserError: The address is none, or one that may hold a secret, which is then not shown.
    """
    flag, url = f"{endpoint.prefix}base-url", endpoint.base_url
    if "@" in url or "?" in url or "#" in url:
        raise UserError(
            f"{flag}: an address with a password or a query would be stored in plain text; put the key "
            f"into the environment variable of {endpoint.prefix}api-key-env, and give only the address"
        )
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UserError(f"{flag} {url}: give an address such as https://api.openai.com/v1")
    return url.rstrip("/") + "/chat/completions"


def check_key(endpoint: Endpoint) -> None:
    """Makes sure that the key can be sent.

    Raises:
        UserError: It holds what no header may; the message does not show it.
    """
    key = endpoint.api_key
    if key is not None and (not key or not all("!" <= char <= "~" for char in key)):
        raise UserError(
            f"{endpoint.prefix}api-key-env: that variable holds blanks or characters that no key has"
        )
