"""Torch's threads sleep while they wait, unless somebody has said otherwise, and leave busy cores alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from stic_eval import waiting_threads
from stic_eval.waiting_threads import VARIABLES, sleep_while_waiting

# GNU's OpenMP says what it goes by when it is loaded.
LOADS = "import os; from stic_eval.waiting_threads import sleep_while_waiting\n"
LOADS += "with sleep_while_waiting():\n    import torch\nprint(os.environ.get('OMP_WAIT_POLICY'))"
ASLEEP = "GOMP_SPINCOUNT = '0'"  # of the policy it says PASSIVE even where nothing is set
gnu = pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP alone says what it goes by")


def start(*argv: str, **more: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment = {**own, "OMP_DISPLAY_ENV": "verbose", **more}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)


@gnu
def test_threads_sleep_and_the_environment_is_left_as_it_was() -> None:
    done = start(sys.executable, "-c", LOADS)
    assert ASLEEP in done.stderr
    assert done.stdout == "None\n"


@gnu
@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "100")])
def test_what_the_user_has_set_stays(name: str, value: str) -> None:
    done = start(sys.executable, "-c", LOADS, **{name: value})
    assert ASLEEP not in done.stderr
    assert f"{name} = '{value.upper()}'" in done.stderr


@gnu
def test_commands_load_torch_so() -> None:
    done = start(sys.executable, "-m", "stic_eval.cli.app", "doctor")
    assert ASLEEP in done.stderr
    assert "threads, OMP_WAIT_POLICY=passive" in done.stdout


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(("idle", "threads"), [(0, 1), (1, 1), (3, 3), (64, 4)])
def test_threads_that_spin_leave_busy_cores_alone(
    idle: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch is loaded already, as in a notebook: how its threads wait can no longer be said."""
    monkeypatch.setattr(waiting_threads, "_LOADED", [])
    monkeypatch.setattr(waiting_threads, "idle_cores", lambda: idle)
    for _ in range(2):
        with sleep_while_waiting():
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 4
        assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.usefixtures("clean")
def test_threads_that_sleep_stay_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_threads, "idle_cores", lambda: 0)
    monkeypatch.setattr(waiting_threads, "_LOADED", [False])
    with sleep_while_waiting():
        assert torch.get_num_threads() == 4
    monkeypatch.setattr(waiting_threads, "_LOADED", [])
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    with sleep_while_waiting():
        assert torch.get_num_threads() == 4


def test_idle_cores_are_no_more_than_there_are() -> None:
    assert 0 <= waiting_threads.idle_cores() <= (os.cpu_count() or 1)
