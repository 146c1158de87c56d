"""The power is cut: what looks whole is whole, and what was published is there."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stic_eval.stage_store import StageStore
from stic_eval.store import read_object
from tests.faults.campaign_results import write_counts
from tests.faults.contents import contents, differences
from tests.faults.fork_server import ForkServer
from tests.faults.killing import go_on, in_peace, on_all
from tests.faults.power_cut import Disk, flush_all
from tests.faults.small_world import COMMANDS, World

# Of what was not flushed: nothing is left; or the names, of files whose content is not; or this and that.
MODES = ("nothing", "names", "some")


def survivors(mode: str, seed: int) -> Callable[[str], bool]:
    chosen = random.Random(seed)
    return {
        "nothing": lambda what: False,
        "names": lambda what: what == "names",
        "some": lambda what: chosen.random() < 0.5,
    }[mode]


def whole_looking(folder: Path) -> list[str]:
    """Finished stages that are not what was written."""
    store, found = StageStore(folder / "cache" / "stages"), []
    for path in (path for path in store.root.glob("*-*") if re.fullmatch(r"\w+-[0-9a-f]{16}", path.name)):
        manifest = read_object(path / "manifest.json")
        name, key = str(manifest.get("name")), str(manifest.get("key"))
        if store.done(name, key) != path or store.first_damaged(name, key) is not None:
            found.append(f"{path.name} looks whole and is not")
    return found


def cut(world: World, server: ForkServer, command: str, at: Path, number: int) -> Disk:
    """Cuts the power at a file operation of a command, 0: at its end."""
    folder = world.begin(command, at / "before")
    flush_all(folder, at / "flushed")
    server.run(world.argv(command), folder, number, flushed=at / "flushed")
    return Disk(folder, at / "flushed")


def without_temporaries(found: Sequence[str]) -> list[str]:
    """Leases and temporary files may be there again; whoever comes next takes them."""
    return [line for line in found if not re.search(r"^left over: .*\.(lease|tmp)(/|$)", line)]


def test_what_a_command_has_published_is_there_after_a_power_cut(
    world: World, server: ForkServer, tmp_path: Path
) -> None:
    disks = {"run": Disk(world.begun, world.flushed)}
    disks |= {name: cut(world, server, name, tmp_path / name, 0) for name in ("import", "data prepare")}
    for command, disk in disks.items():
        there = contents(disk.folder)
        for mode in MODES:
            disk.leave(tmp_path / f"{command} {mode}", survivors(mode, 0))
            left = contents(tmp_path / f"{command} {mode}")
            assert without_temporaries(differences(left, there)) == [], (command, mode)


@pytest.mark.campaign
@pytest.mark.parametrize("command", COMMANDS)
def test_after_a_power_cut_at_any_rename_a_command_goes_on(
    world: World, servers: list[ForkServer], command: str, tmp_path: Path
) -> None:
    peace = in_peace(world, servers[0], command, tmp_path)
    numbers = [n for n, one in enumerate(peace.ended.operations, 1) if one.kind == "rename"]

    def work(server: ForkServer, number: int) -> list[str]:
        at = tmp_path / f"{number}"
        disk = cut(world, server, command, at, number)
        found = []
        for mode in MODES:
            disk.leave(at / mode, survivors(mode, number))
            wrong = whole_looking(at / mode)
            wrong += without_temporaries(go_on(world, server, command, at / mode, peace))
            found += [f"{command}, {mode} left at {number}: {one}" for one in wrong]
        shutil.rmtree(at)
        return found

    wrong = on_all(servers, numbers, work)
    write_counts(
        f"power cut: {command}",
        tries=len(numbers) * len(MODES), lost=len(wrong), first="; ".join(wrong[:3]),
    )  # fmt: skip
    assert wrong == []
