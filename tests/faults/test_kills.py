"""Commands that are killed: started again they end as if nothing had been, and nothing is left behind."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.faults.campaign_results import write_counts
from tests.faults.fork_server import ForkServer
from tests.faults.killing import go_on, in_peace, kill_at, on_all
from tests.faults.small_world import COMMANDS, World

RANDOM_KILLS = {"run": 120, "ablate": 30, "score": 10, "export pairs": 5, "export adapter": 10, "import": 5,
                "data prepare": 10, "report": 10}  # fmt: skip


def test_killed_at_some_file_operations_commands_go_on(
    world: World, server: ForkServer, tmp_path: Path
) -> None:
    chosen = random.Random(0)
    for command, tries in (("run", 1), ("import", 1)):
        peace = in_peace(world, server, command, tmp_path / command)
        for number in chosen.sample(peace.points, tries):
            assert kill_at(world, server, command, number, tmp_path / command, peace) == []


# ---------------------------------------------------------------- the campaign


@pytest.mark.campaign
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_every_file_operation_a_command_goes_on(
    world: World, servers: list[ForkServer], command: str, tmp_path: Path
) -> None:
    peace = in_peace(world, servers[0], command, tmp_path)
    numbers, points = range(1, len(peace.ended.operations) + 1), set(peace.points)
    wrong = on_all(
        servers,
        numbers,
        lambda server, number: kill_at(world, server, command, number, tmp_path, peace, number in points),
    )
    write_counts(
        f"killed at every file operation: {command}",
        tries=len(numbers), states=len(points), lost=len(wrong), first="; ".join(wrong[:3]),
    )  # fmt: skip
    assert wrong == []


@pytest.mark.campaign
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_at_random_times_a_command_goes_on(
    world: World, servers: list[ForkServer], command: str, tmp_path: Path
) -> None:
    peace = in_peace(world, servers[0], command, tmp_path)
    chosen = random.Random(1)
    times = [chosen.uniform(0.05, peace.ended.seconds) for _ in range(RANDOM_KILLS[command])]
    ended = []

    def kill(server: ForkServer, number: int) -> list[str]:
        folder = world.begin(command, tmp_path / f"{number}")
        killed = server.run(world.argv(command), folder, fatal_seconds=times[number])
        ended.append(killed.code)
        found = go_on(world, server, command, folder, peace)
        shutil.rmtree(folder)
        return [f"{command}, killed after {times[number]:.2f} s: {one}" for one in found]

    wrong = on_all(servers, range(len(times)), kill)
    write_counts(
        f"killed at random times: {command}",
        tries=len(times), killed=ended.count(-9), lost=len(wrong), first="; ".join(wrong[:3]),
    )  # fmt: skip
    assert wrong == []
