"""Workers: order, dependents of what fails, processes that die, leaving early."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stic_eval.experiment.events import Event, Executor, Send
from stic_eval.experiment.executors.local import Local
from stic_eval.experiment.executors.processes import Begin, Processes
from tests.support.executor_tasks import SAID, Task, Yielded, said, setup


class ToPipe(logging.Handler):
    """Sends what is logged, as a worker does."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self.send = send

    def emit(self, record: logging.LogRecord) -> None:
        self.send("line", record.getMessage())


def logging_setup(number: int, common: Any, send: Send) -> Callable[[Task], Yielded]:
    logging.getLogger("noisy").addHandler(ToPipe(send))
    return setup(number, common, send)


def broken(number: int, common: Any, send: Send) -> Callable[[Task], Yielded]:
    raise OSError("no device")


def run(tasks: Sequence[Task], begin: Begin, common: Any, jobs: int) -> Iterator[Event]:
    return Processes(begin, common, jobs).run(tasks)


def outcome(events: list[Event]) -> dict[str, str]:
    return {
        e.task: e.kind if e.kind == "done" else str(e.value) for e in events if e.kind in ("done", "failed")
    }


def test_a_task_waits_for_what_it_needs(tmp_path: Path) -> None:
    tasks = [
        Task("c", ("b",), "see b"),
        Task("b", ("a",), "touch b"),
        Task("a", ("cached",), "see b"),
    ]
    events = list(run(tasks, setup, tmp_path, 2))
    assert [e.task for e in events if e.kind == "done"] == ["a", "b", "c"]
    assert [e.value for e in events if e.kind == "result"] == [False, True]


def test_what_fails_takes_its_dependents_along_and_nothing_else(tmp_path: Path) -> None:
    tasks = [
        Task("bad", (), "fail"),
        Task("child", ("bad",), "touch child"),
        Task("grandchild", ("child",), "touch grandchild"),
        Task("killed", (), "die"),
        Task("orphan", ("killed",), "touch orphan"),
        Task("good", (), "touch good"),
    ]
    events = list(run(tasks, setup, tmp_path, 1))
    found = outcome(events)
    assert found["good"] == "done"
    assert found["bad"] == found["child"] == found["grandchild"] == "ValueError: no good"
    assert found["killed"] == found["orphan"] == "its process ended (killed by signal 9)"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good"]


def test_workers_are_kept_and_work_side_by_side(tmp_path: Path) -> None:
    events = list(run([Task(str(n), (), 0.3) for n in range(6)], setup, tmp_path, 3))
    assert len({e.value[1] for e in events if e.kind == "progress"}) <= 3
    running = peak = 0
    for event in events:
        running += {"started": 1, "done": -1}.get(event.kind, 0)
        peak = max(peak, running)
    assert peak == 3


def test_a_group_stays_with_one_worker(tmp_path: Path) -> None:
    """However long its tasks are, and though other tasks come before them."""
    tasks = [Task(f"{group}{n}", (), 0.1 + 0.2 * (group == "b"), group) for group in "ab" for n in range(3)]
    late = [Task(f"c{n}", ("a0",), 0.1, "c") for n in range(2)]
    events = list(run([*late, *tasks], setup, tmp_path, 2))
    pids: dict[str, set[int]] = {}
    running: list[str] = []
    for event in events:
        group = event.task[0]
        if event.kind == "started":
            assert group not in running
            running.append(group)
        elif event.kind == "progress":
            pids.setdefault(group, set()).add(event.value[1])
        elif event.kind == "done":
            running.remove(group)
    assert {group: len(found) for group, found in pids.items()} == {"a": 1, "b": 1, "c": 1}


def test_a_worker_that_cannot_begin_fails_each_task_with_the_reason(tmp_path: Path) -> None:
    events = list(run([Task("a", (), None), Task("b", (), None)], broken, tmp_path, 1))
    assert outcome(events) == {"a": "OSError: no device", "b": "OSError: no device"}


def test_a_worker_that_dies_is_noticed_though_what_it_has_forked_lives_on(tmp_path: Path) -> None:
    events = list(run([Task("a", (), "fork"), Task("b", (), "touch b")], setup, tmp_path, 1))
    assert outcome(events) == {"a": "its process ended (killed by signal 9)", "b": "done"}
    assert not (tmp_path / "left").exists()


def test_a_worker_that_died_without_a_task_costs_none(tmp_path: Path) -> None:
    pid = 0
    events = []
    for event in run([Task("a", (), None), Task("b", (), None)], setup, tmp_path, 1):
        events.append(event)
        pid = event.value[1] if event.kind == "progress" else pid
        if event.kind == "done" and event.task == "a":
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert outcome(events) == {"a": "done", "b": "done"}


class Ending:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[int], Any], tuple[int]]:
        return os._exit, (3,)


def test_a_worker_that_ends_before_it_begins_is_no_task_s_fault() -> None:
    events = list(run([Task("a", (), None), Task("b", (), None)], setup, Ending(), 1))
    assert outcome(events) == dict.fromkeys("ab", "its process ended before it began (exit code 3)")


def test_a_connection_that_broke_in_a_task_is_that_tasks_failure(tmp_path: Path) -> None:
    events = list(run([Task("a", (), "disconnect")], setup, tmp_path, 1))
    assert outcome(events) == {"a": "ConnectionResetError: the server went away"}


def test_what_is_logged_while_something_is_sent_is_sent_as_well(tmp_path: Path) -> None:
    events = list(run([Task("a", (), "log")], logging_setup, tmp_path, 1))
    assert [(e.kind, e.value) for e in events if e.kind in ("line", "result")] == [
        ("line", "about to go"), ("result", "gone"),
    ]  # fmt: skip


def test_a_worker_that_leaves_is_not_interrupted(tmp_path: Path) -> None:
    list(run([Task("a", (), "end while leaving")], setup, tmp_path, jobs=1))
    assert (tmp_path / "left").is_file()


def wait_for_end(pid: int) -> None:
    for _ in range(300):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.1)
    raise AssertionError("the worker lives on")


def test_leaving_early_ends_the_workers(tmp_path: Path) -> None:
    events = run([Task("long", (), 600.0)], setup, tmp_path, 1)
    pid = next(e.value[1] for e in events if e.kind == "progress")
    events.close()  # type: ignore[attr-defined]
    wait_for_end(pid)


DRIVER = """
import sys
from stic_eval.experiment.executors.processes import Processes
from tests.support.executor_tasks import Task, setup
class Elsewhere:  # has the process that unpickles it take itself for one of another system
    def __reduce__(self):
        return exec, ("import sys; sys.platform = 'other'",)
common = Elsewhere() if sys.argv[1] == "elsewhere" else None
for event in Processes(setup, common, 1).run([Task("long", (), 600.0)]):
    if event.kind == "progress":
        print(event.value[1], flush=True)
"""


@pytest.mark.parametrize("system", ["linux", "elsewhere"])
def test_workers_end_with_a_driver_that_is_killed(system: str) -> None:
    """Though they compute, and neither send nor receive anything."""
    argv = [sys.executable, "-c", DRIVER, system]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        pid = int(driver.stdout.readline())
        driver.kill()
    wait_for_end(pid)


def test_a_process_whose_parent_has_ended_already_ends_at_once() -> None:
    code = "import os; from stic_eval.parent_death import end_with_parent; end_with_parent(os.getpid())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL


# ---------------------------------------------------------------- one contract


def executors(folder: Path) -> dict[str, Executor[Task]]:
    here = setup(0, folder, lambda kind, value: None)
    return {"local": Local(here), "processes": Processes(setup, folder, 1)}


@pytest.mark.parametrize("name", ["local", "processes"])
def test_both_say_the_same(name: str, tmp_path: Path) -> None:
    assert said(executors(tmp_path)[name], tmp_path) == SAID
