"""A client of OpenAI-compatible servers: many chat completions at once, failures retried, spending bounded.

Servers that are one model are asked as they have room, and what one of them fails at goes to another.

`Client.stream` runs work in a bounded number of threads, and that work calls `Client.ask`. What a
server sends is untrusted: it is bounded in size and time, checked against the schema, and cleared of
the key, should it echo it. httpx2 is imported when the first request is sent, not before.
"""

from __future__ import annotations

import json
import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from stic_eval.errors import RunError, UserError
from stic_eval.models.chat_wire import Chat, NoMessage, Reply, read_reply
from stic_eval.models.connection import (
    Connection,
    Endpoint,
    NoReply,
    check_key,
    check_url,
    error_of,
    permanent_refusal,
    retry_after,
)
from stic_eval.models.replicas import Replica, Replicas
from stic_eval.printable import printable

__all__ = ["Chat", "Client", "Failure", "Reply"]

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger("stic_eval.run")
_RETRIED = {408, 409, 429}  # and every 5xx
_FATAL = {401, 403, 404}  # no later request would fare better
_SHOWN = 200
# Seconds after which the main thread looks up from waiting: Ctrl-C that comes the moment before it begins
# to wait would else go unnoticed until the next reply.
_WAKE = 0.2
_AHEAD = 2  # items taken from a stream for each that is worked on
_LONG_WAIT = 10.0  # seconds that nobody waits for without wondering
_LOST = 8  # requests in a row, each with all its attempts, after which the server counts as gone


class Failure(Exception):
    """A request that got no usable reply, with the reason in one line."""


class _Retry(Exception):
    """One attempt failed; another one may not.

    Attributes:
        wait: Seconds that the server asked for.
        reached: Whether there was a connection at all.
        moved: Whether another server can be asked at once.
        silent: Whether there was no reply.
    """

    def __init__(
        self,
        reason: str,
        wait: float | None = None,
        *,
        reached: bool = True,
        moved: bool = False,
        silent: bool = False,
    ) -> None:
        super().__init__(reason)
        self.wait, self.reached, self.moved, self.silent = wait, reached, moved, silent


class Client:
    """Asks one endpoint, which may be several servers of one model. Usable by many threads.

    Args:
        wait: Sleeps for so many seconds; for tests. The default is woken by `stop`.
        recover: Makes the model known again to a server, given its address, that has forgotten it; what it
            raises ends the request.

    Attributes:
        gone: What the server's absence ends whatever needs it with; None: it may answer.

    Raises:
        UserError: The address is none, or the key is no header value.
    """

    gone: UserError | RunError | None = None

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        wait: Callable[[float], object] | None = None,
        recover: Callable[[str], None] | None = None,
    ) -> None:
        self.endpoint, self._recover = endpoint, recover
        each = endpoint.each()
        self._replicas = Replicas([(one.base_url, check_url(one)) for one in each])
        self._flight = endpoint.concurrency * len(each)
        check_key(endpoint)
        self._stopped = threading.Event()
        self._wait = wait or self._stopped.wait
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self._flight)
        self._local = threading.local()
        self._lines: list[Connection] = []
        self._sent = 0
        self._resume_at = 0.0  # nobody sends before: a server that is overrun is so for all
        self._answered = self._served = False
        self._lost_in_a_row = self._silent = 0
        self._limit_name = "max_tokens"
        self._random = random.Random()

    @property
    def place(self) -> str:
        """Address and model, for the beginning of a line about them."""
        return f"{self._base}: {self.endpoint.model}"

    @property
    def sent(self) -> int:
        """HTTP requests sent so far, repetitions included."""
        return self._sent

    @property
    def served(self) -> bool:
        """Whether any request has been answered with status 200."""
        return self._served

    @property
    def stopped(self) -> bool:
        """Whether `stop` has ended it for good."""
        return self._stopped.is_set()

    def stream(self, items: Iterable[T], work: Callable[[T], R]) -> Iterator[tuple[T, R]]:
        """Does work on every item, `concurrency` at a time a server; yields each with its result as it ends.

        Items are taken from the iterable as they are needed, in the caller's thread, a few more than are
        worked on. Whatever ends the iteration early - Ctrl-C, an error of `work`, the caller - stops the
        client: waits are woken, open requests are cut, items not yet begun are dropped.
        """
        ended: queue.SimpleQueue[tuple[T, R | None, BaseException | None]] = queue.SimpleQueue()
        if self._stopped.is_set():
            raise RuntimeError("this client was stopped")
        left: queue.SimpleQueue[tuple[T] | None] = queue.SimpleQueue()  # None: nothing more will come

        def run() -> None:
            while (taken := left.get()) is not None and not self._stopped.is_set():
                (item,) = taken
                try:
                    ended.put((item, work(item), None))
                except BaseException as error:  # raised again where the results are awaited
                    ended.put((item, None, error))
                    break
            self._hang_up()

        source, threads, open_ = iter(items), 0, 0
        try:
            while True:
                for item in islice(source, _AHEAD * self._flight - open_):
                    left.put((item,))
                    open_ += 1
                    if threads < self._flight:
                        threads += 1
                        # Daemons: a request that hangs must not keep the interpreter from exiting.
                        threading.Thread(target=run, daemon=True).start()
                if not open_:
                    return
                try:
                    item, result, error = ended.get(timeout=_WAKE)
                except queue.Empty:
                    continue
                open_ -= 1
                if error is not None:
                    raise error
                yield item, result  # type: ignore[misc]
        except BaseException:
            self.stop()
            raise
        finally:
            for _ in range(threads):
                left.put(None)

    def stop(self) -> None:
        """Ends every wait and every open request; the client is of no use afterwards."""
        self._stopped.set()
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            line.hang_up()

    def ask(self, chat: Chat, *, going_on: bool = True) -> Reply:
        """Sends one request until it is answered.

        Args:
            chat: The request.
            going_on: Whether a reply that has begun is gone on with.

        Raises:
            Failure: It was refused, ran out of attempts, or the cap is used up.
            UserError: No request can succeed: the key is refused, the address or the model is wrong.
        """
        reason, reached, attempt, moves = "", True, 0, 0
        while attempt < self.endpoint.attempts:
            if self._lost_in_a_row >= max(_LOST, self._flight):
                raise Failure(f"given up on the server after {self._lost_in_a_row} failures in a row")
            try:
                with self._slots:  # streams that are under way at once share them
                    self._pause()
                    self._spend()
                    reply = self._send(chat, going_on)
            except _Retry as failed:
                reason, reached = self._clean_text(str(failed)), failed.reached
                moves += 1
                if not failed.moved or moves == len(self._replicas):  # all have been tried, if they are awake
                    self._silent += failed.silent
                    self._back_off(attempt, failed.wait, reason)
                    attempt, moves = attempt + 1, 0
            else:
                self._lost_in_a_row = 0
                return reply
        with self._lock:
            self._lost_in_a_row += 1
        if not reached and not self._answered:
            self.gone = UserError(f"{self._base}: cannot be reached ({reason}); is the address right?")
            raise self.gone
        if self._silent >= self.endpoint.attempts * max(_LOST, self._flight):
            what = "no longer answers" if len(self._replicas) == 1 else "none of them answers any longer"
            self.gone = RunError(f"{self._base}: {what} ({reason}); answers so far are kept")
        raise Failure(f"{reason} ({self.endpoint.attempts} attempts)")

    @property
    def _base(self) -> str:
        return f"{self.endpoint.prefix}base-url {','.join(self.endpoint.base_urls)}"

    def _pause(self) -> None:
        delay = self._resume_at - time.monotonic()
        if delay > 0:
            self._wait(delay)
        self._go_on()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Failure("interrupted")

    def _spend(self) -> None:
        cap = self.endpoint.max_requests
        with self._lock:
            if cap is not None and self._sent >= cap:
                raise Failure(f"the cap of {cap} requests is used up ({self.endpoint.prefix}max-requests)")
            self._sent += 1

    def _back_off(self, attempt: int, demanded: float | None, reason: str) -> None:
        last = attempt + 1 == self.endpoint.attempts
        ceiling = min(self.endpoint.longest_backoff, self.endpoint.backoff * 2.0**attempt)
        delay = self._random.uniform(0, ceiling)
        if demanded is not None:
            demanded = min(demanded, self.endpoint.longest_wait)
            until = time.monotonic() + demanded
            with self._lock:
                # One line, not one for each request that is sent away meanwhile.
                news = demanded >= _LONG_WAIT and until > self._resume_at + _LONG_WAIT
                self._resume_at = max(self._resume_at, until)
            if news and not self._stopped.is_set():
                _LOG.warning("%s: asks to wait for %.0f s (%s)", self.place, demanded, reason)
            delay += demanded
        if not last:  # else the next request waits, by `_resume_at`
            self._wait(delay)

    def _send(self, chat: Chat, going_on: bool) -> Reply:
        limit = self._limit_name
        body = json.dumps(chat.body(self.endpoint.model, limit, going_on=going_on)).encode()
        begin = time.monotonic()
        with self._replicas.borrow() as replica:
            try:
                line = self._line()  # takes a while the first time, in which others may have given up
                self._go_on()
                status, headers, data = line.post(replica.url, body)
            except NoReply as cut:
                raise self._missed(replica, str(cut), reached=cut.reached) from None
        self._answered, self._silent = True, 0
        if status == 200:
            self._served = True
            self._replicas.succeeded(replica)
            try:
                return read_reply(data, time.monotonic() - begin, self._storable)
            except NoMessage as why:
                raise _Retry(str(why)) from None
        detail = self._clean_text(error_of(data))
        if status == 404 and self._recover is not None:
            self._recover(replica.base_url)
            raise _Retry(f"HTTP {status}{detail}")
        if status in _RETRIED or status >= 500:
            moved = status >= 500 and self._replicas.failed(replica)
            raise _Retry(f"HTTP {status}{detail}", retry_after(headers.get("retry-after")), moved=moved)
        if self._served and (status in _FATAL or 300 <= status < 400):
            self._lost_in_a_row += 1
            raise Failure(f"HTTP {status}{detail}")  # others were served: this request's own trouble
        if status in _FATAL or 300 <= status < 400:
            where = self._clean_text(headers.get("location", "elsewhere")) if status < 400 else ""
            asked = replace(self.endpoint, base_url=replica.base_url)
            raise UserError(permanent_refusal(asked, status, detail, where))
        if limit == "max_tokens" and "max_completion_tokens" in detail:
            self._limit_name = "max_completion_tokens"  # newer models at OpenAI know only this name
            raise _Retry(f"HTTP {status}{detail}")
        raise Failure(f"HTTP {status}{detail}")

    def _missed(self, replica: Replica, reason: str, reached: bool) -> _Retry:
        """That a server has not answered: another one is asked at once, if there is one that may."""
        first = not replica.misses
        moved = self._replicas.failed(replica)
        if moved and first and not self._stopped.is_set():
            where = f"{self.endpoint.prefix}base-url {replica.base_url}"
            _LOG.warning("%s: does not answer (%s); others are asked in its place", where, reason)
        return _Retry(reason, reached=reached, moved=moved, silent=True)

    def _storable(self, text: str) -> str:
        """A text without the key, and without half a surrogate pair, which no file or database takes."""
        if self.endpoint.api_key:
            text = text.replace(self.endpoint.api_key, "[key]")
        return text.encode("utf-8", "replace").decode()

    def _line(self) -> Connection:
        line: Connection | None = getattr(self._local, "line", None)
        if line is None:
            key = self.endpoint.api_key
            line = Connection(key, self.endpoint.timeout, self.endpoint.max_bytes)
            self._local.line = line
            with self._lock:
                self._lines.append(line)
        return line

    def _hang_up(self) -> None:
        line: Connection | None = getattr(self._local, "line", None)
        if line is not None:
            with self._lock:
                self._lines.remove(line)
            del self._local.line
            line.close()

    def _clean_text(self, text: str) -> str:
        if self.endpoint.api_key:
            text = text.replace(self.endpoint.api_key, "[key]")
        text = printable(" ".join(text.split()))
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
