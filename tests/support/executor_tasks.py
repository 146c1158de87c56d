"""Tasks whose payload says what is done, and what every executor has to say of some of them."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stic_eval.errors import UserError
from stic_eval.experiment.events import Executor, Send

Yielded = Iterator[tuple[str, Any]]


@dataclass(frozen=True)
class Task:
    """What tests have done."""

    id: str
    needs: tuple[str, ...]
    payload: Any
    group: str = ""
    dispensable: bool = False


def setup(number: int, common: Any, send: Send) -> Callable[[Task], Yielded]:
    """Workers of these tests: a payload says what to do."""

    def handle(task: Task) -> Yielded:
        payload = task.payload
        send("progress", ("pid", os.getpid(), None))
        if payload == "fail":
            raise ValueError("no good")
        if payload == "wrong":
            raise UserError("--flag: is wrong")
        if payload == "disconnect":
            raise ConnectionResetError("the server went away")
        if payload == "fork":
            if os.fork() == 0:
                time.sleep(30)
                (common / "left").touch()
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        if payload == "log":
            yield "result", Noisy()
        if payload == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if payload == "end while leaving":
            atexit.register(lambda: (os.kill(os.getpid(), signal.SIGTERM), (common / "left").touch()))
        if isinstance(payload, float):
            time.sleep(payload)
        if isinstance(payload, str) and payload.startswith("see "):
            yield "result", (common / payload[4:]).exists()
        if isinstance(payload, str) and payload.startswith("touch "):
            (common / payload[6:]).touch()

    return handle


class Noisy:
    """Says something into the log when it is pickled, as warnings of libraries do."""

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        logging.getLogger("noisy").warning("about to go")
        return str, ("gone",)


NO_GOOD = "ValueError: no good"
TASKS = (
    Task("good", (), "see nothing"),
    Task("wrong", (), "wrong"),
    Task("bad", ("good",), "fail"),
    Task("child", ("bad", "good"), "touch child"),
    Task("grandchild", ("child",), "touch grandchild"),
    Task("last", ("good", "cached"), "touch last"),
)
SAID = sorted(
    [
        ("started", "good", None, None), ("result", "good", False, None), ("done", "good", None, None),
        ("started", "wrong", None, None), ("failed", "wrong", "--flag: is wrong", UserError),
        ("started", "bad", None, None), ("failed", "bad", NO_GOOD, None),
        ("failed", "child", NO_GOOD, None), ("failed", "grandchild", NO_GOOD, None),
        ("started", "last", None, None), ("done", "last", None, None),
    ],
    key=str,
)  # fmt: skip


def said(executor: Executor[Task], folder: Path) -> list[Any]:
    """What an executor says of these tasks, sorted; they are done in a folder that is empty before."""
    found = [(e.kind, e.task, e.value, e.cause) for e in executor.run(TASKS) if e.kind != "progress"]
    assert sorted(path.name for path in folder.iterdir()) == ["last"]
    return sorted(found, key=str)
