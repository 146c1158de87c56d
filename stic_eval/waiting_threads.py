"""How torch's threads wait for each other on cores that other processes use as well.

OpenMP's threads spin while they wait. Where another process has one of their cores, the rest of them wait
spinning for the one that is not running, and take the very core that it needs: an evaluation of 14 s took
115 s beside two busy processes. Threads that sleep instead took 22 s there, and no longer on idle cores.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

# Whoever has set one of these, of GNU's, LLVM's or Intel's OpenMP, has decided.
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_LOOK = 0.1  # seconds for which other processes' use of the cores is looked at


_LOADED: list[bool] = []  # once torch is loaded: whether its threads spin


@contextmanager
def sleep_while_waiting() -> Iterator[None]:
    """Has threads sleep while they wait, in this process and in those that it starts.

    OpenMP reads its settings when torch is loaded. Where that was before, and threads spin, there are for the
    time of the block no more of them than cores that nobody else uses.
    """
    chosen = any(name in os.environ for name in VARIABLES)
    if "torch" in sys.modules and not _LOADED:
        _LOADED.append(not chosen)
    if not chosen:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        with _no_more_than_idle_cores() if True in _LOADED else nullcontext():
            yield
    finally:
        if not chosen:
            os.environ.pop("OMP_WAIT_POLICY", None)
        if "torch" in sys.modules and not _LOADED:
            _LOADED.append(False)


def sleep_from_now_on() -> None:
    """Has threads of this process sleep while they wait, for good: of a worker, before torch is loaded."""
    if not any(name in os.environ for name in VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "passive"


@contextmanager
def _no_more_than_idle_cores() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, idle_cores())))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def idle_cores() -> int:
    """How many cores nobody uses, looked at for a tenth of a second."""
    import psutil

    used = psutil.cpu_percent(interval=_LOOK) / 100
    return round((os.cpu_count() or 1) * (1 - used))


def setting() -> str:
    """The variable that says how threads wait, with its value, for `doctor`."""
    return next((f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ), "no setting")
