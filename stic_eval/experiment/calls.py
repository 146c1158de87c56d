"""What holds for every call of the Python API: it leaves the caller's process as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stic_eval import hub_access
from stic_eval.experiment.executors.processes import refuse_while_importing
from stic_eval.experiment.progress import spare_callers_handlers
from stic_eval.library_messages import hub_requests_in_log
from stic_eval.waiting_threads import sleep_while_waiting


@contextmanager
def as_call() -> Iterator[None]:
    """Surrounds a call; a decorator as well.

    Access to the hub, and the number of torch's threads, are afterwards what they were before, and nothing is
    said into the caller's log.
    """
    with (
        hub_access.restore_afterwards(),
        hub_requests_in_log(),
        sleep_while_waiting(),
        spare_callers_handlers(),
    ):
        yield


@contextmanager
def as_experiment() -> Iterator[None]:
    """Surrounds a call that trains or evaluates, as `as_call` does.

    Raises:
        UserError: A worker process comes upon it while it imports the script with it.
    """
    refuse_while_importing()
    with as_call():
        yield
