"""Two processes with the same --output: one works, the other waits and finds what that one has made."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stic_eval import lease
from tests.faults.contents import contents, differences
from tests.faults.fork_server import ForkServer
from tests.faults.small_world import World


def test_a_second_process_says_who_is_at_work_and_waits(
    world: World, server: ForkServer, tmp_path: Path
) -> None:
    folder = world.begin("report", tmp_path / "begun")  # with a finished run
    before, log = contents(folder), folder / "run" / "run.log"
    size = log.stat().st_size
    with ThreadPoolExecutor(1) as pool:
        with lease.hold(folder / "run" / ".lease"):
            second = pool.submit(server.run, world.argv("run"), folder)
            while "is working there" not in log.read_text()[size:]:
                assert not second.done(), second.result().output
        done = second.result()
    assert done.code == 0, done.output
    said = [line for line in done.output.splitlines() if "is working" in line]
    assert len(said) == 1 and said[0].startswith(f"run: process {os.getpid()} on ")
    assert said[0].endswith("is working there with the same --output; waiting until it ends")
    assert differences(contents(folder), before) == []
