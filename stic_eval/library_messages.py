"""What libraries write to standard error, which no setting of theirs stops: to the log instead."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Held while standard error is another file. Whoever has a line for the terminal waits for it.
STANDARD_ERROR = threading.RLock()
_MOST = 20_000  # bytes; a damaged file has them say the same thing again and again
_LOG = logging.getLogger("stic_eval.run")
_HUB_REQUESTS = "huggingface_hub.utils._http"  # two lines for each time that a request is sent again


@contextmanager
def kept_in_log() -> Iterator[None]:
    """Has what is written to the file of standard error while the block runs end up in the log."""
    with STANDARD_ERROR:
        try:
            kept, own = tempfile.TemporaryFile(), os.dup(2)  # noqa: SIM115 - closed below
        except OSError:  # there is none, or no room: what is said is said
            yield
            return
        with kept:
            os.dup2(kept.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(own, 2)
                os.close(own)
                kept.seek(0)
                said = kept.read(_MOST).decode("utf-8", "replace").splitlines()
                for line in dict.fromkeys(said):
                    _LOG.info("%s", line)


class _ToLogs(logging.Handler):
    """Hands records to the handlers of the root logger, past those of the library; a line says so once."""

    def __init__(self) -> None:
        super().__init__()
        self._waits = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._waits and record.levelno >= logging.WARNING:
            self._waits = True
            said = "the Hugging Face hub does not answer; trying again (--offline asks nobody)"
            print(said, file=sys.stderr)
        for handler in logging.getLogger().handlers:
            if record.levelno >= handler.level:
                handler.handle(record)


@contextmanager
def hub_requests_in_log() -> Iterator[None]:
    """Has what the hub's client says of requests that it sends again end up in logs; people get one line."""
    logger, handler = logging.getLogger(_HUB_REQUESTS), _ToLogs()
    before = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # the client's own logger, above it, prints
    try:
        yield
    finally:
        logger.propagate = before
        logger.removeHandler(handler)
