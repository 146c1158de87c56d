"""Commands that are killed and started again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.faults.contents import contents, differences
from tests.faults.fork_server import Ended, ForkServer, Operation
from tests.faults.small_world import World

# After these, and after lines of the log, nothing is otherwise than before.
UNCHANGED = {"fsync"}
# Whoever had written all of it before it was killed is told so.
WHOLE = ("is not empty", "already exists")


@dataclass(frozen=True)
class Peace:
    """A command that nobody has killed.

    Attributes:
        ended: How it ended.
        contents: What its folder then held.
    """

    ended: Ended
    contents: dict[str, str]

    @property
    def points(self) -> list[int]:
        """Numbers of file operations before which the folder is not as it was before the last one."""
        operations = self.ended.operations
        return [1, *(n for n in range(2, len(operations) + 1) if _changes(operations[n - 2]))]


def _changes(operation: Operation) -> bool:
    return operation.kind not in UNCHANGED and not operation.path.endswith("run.log")


def in_peace(world: World, server: ForkServer, command: str, at: Path) -> Peace:
    """Runs a command to its end, unless the world has that already."""
    if command == "run":
        return Peace(world.run, contents(world.begun))
    folder = world.begin(command, at / "peace")
    ended = server.run(world.argv(command), folder)
    assert ended.code == 0, ended.output
    return Peace(ended, contents(folder))


def go_on(world: World, server: ForkServer, command: str, folder: Path, peace: Peace) -> list[str]:
    """Starts a command again that was killed; what is wrong with how that ends."""
    again = server.run(world.argv(command), folder)
    whole = again.code == 2 and any(text in again.output for text in WHOLE)
    wrong = [] if again.code == 0 or whole else [f"exit code {again.code}: {again.output[-500:]}"]
    wrong += ["was made anew" for _ in range(again.output.count("has changed since it was written"))]
    return wrong + differences(contents(folder), peace.contents)


def kill_at(
    world: World, server: ForkServer, command: str, number: int, at: Path, peace: Peace, resume: bool = True
) -> list[str]:
    """Kills a command at a file operation and starts it again; what is wrong afterwards."""
    folder = world.begin(command, at / f"{number}")
    killed = server.run(world.argv(command), folder, number)
    if len(killed.operations) < number:  # a thread had less to write this time
        found = [f"ended before it came there: {killed.output}"] if killed.code else []
    else:
        found = go_on(world, server, command, folder, peace) if resume else []
    shutil.rmtree(folder)
    last = killed.operations[-1] if killed.operations else "nothing"
    return [f"{command}, killed at {number} ({last}): {one}" for one in found]


def on_all(
    servers: Sequence[ForkServer], jobs: Sequence[int], work: Callable[[ForkServer, int], list[str]]
) -> list[str]:
    """Does jobs on servers, each of which does one at a time; what was wrong with all of them."""
    free: SimpleQueue[ForkServer] = SimpleQueue()
    for one in servers:
        free.put(one)

    def do(job: int) -> list[str]:
        mine = free.get()
        try:
            return work(mine, job)
        finally:
            free.put(mine)

    with ThreadPoolExecutor(len(servers)) as pool:
        return [line for found in pool.map(do, jobs) for line in found]
