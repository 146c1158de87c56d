"""What `datasets` says on its way to the terminal: to the log instead."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOG = logging.getLogger("stic_eval.run")


class _Forwarding(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _LOG.info("datasets: %s", record.getMessage())


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Has what `datasets` logs end up in the log, and no bars drawn, while the block runs."""
    import datasets

    logger = logging.getLogger("datasets")
    handlers, drawn = list(logger.handlers), not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    logger.handlers[:] = [_Forwarding()]
    try:
        yield
    finally:
        logger.handlers[:] = handlers
        if drawn:
            datasets.enable_progress_bars()
