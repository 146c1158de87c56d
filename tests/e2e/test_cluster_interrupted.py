"""Ctrl-C and a scheduler's SIGTERM while workers of a Ray cluster are at work: the end of a local run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from stic_eval.store import ResponseStore
from tests.support import lost_nodes

if TYPE_CHECKING:
    from conftest import Lab

pytest.importorskip("ray")
pytestmark = pytest.mark.usefixtures("only_cluster")


def whose(variable: str, value: str) -> list[psutil.Process]:
    """Processes that have a variable in their environment, wherever they have gone."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value:
                found.append(process)
        except psutil.Error:  # gone meanwhile, or somebody else's
            pass
    return found


def answers(lab: Lab) -> int:
    """How many are kept."""
    return sum(len(ResponseStore(path)) for path in (lab.folder / "cache" / "responses").glob("*.sqlite"))


# What a scheduler sends to one process is a part of what a terminal sends to all: it is for the campaign.
@pytest.mark.campaign  # minutes
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_it_ends_with_a_line_keeps_everything_and_leaves_no_process(
    name: str, lab: Lab, tmp_path: Path
) -> None:
    moments, plugins = tmp_path / "moments", tmp_path / "plugins"
    moments.mkdir()
    plugins.mkdir()
    (plugins / "lost_nodes.py").write_text(Path(lost_nodes.__file__).read_text())
    here = lab.at(tmp_path / "lab")
    environment = {
        **os.environ, **here.environment, "STIC_EVAL_PLUGINS": str(plugins), "LOST_NODES": str(moments),
        "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    # Of a test that runs in the background Python would ignore Ctrl-C.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from stic_eval.cli.app import main; main()"
    argv = here.argv("run", "--method", "stic", "--no-dar", "--cluster", "ray", "--jobs", "1", "--quiet")

    def begin() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, *argv], cwd=here.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    process, tries = begin(), 3
    # A worker waits, and the driver for it, which has kept what was sent before.
    while not ((moments / "pairs").exists() and answers(here)):
        if process.poll() is not None:
            _, err = process.communicate()
            # Ray gives its own start 15 seconds here and 30 there, which on a busy machine may be too few.
            assert tries and "cannot be joined: The current node timed out" in err, err
            process, tries = begin(), tries - 1
        time.sleep(0.2)
    with process:
        if name == "SIGINT":  # which a terminal sends to all that it has in the foreground
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    (folder,) = here.runs()
    kept = f"finished stages, answers and scores are kept (results/{folder.name}): the same command resumes"
    assert err == f"stic-eval: interrupted; {kept}\n"
    assert answers(here) > 0
    until = time.monotonic() + 60
    while left := whose("LOST_NODES", str(moments)):
        assert time.monotonic() < until, left
        time.sleep(0.5)
