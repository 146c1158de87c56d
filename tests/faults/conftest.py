"""The world of the faults, and processes to have them in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.fork_server import ForkServer
from tests.faults.small_world import World, small_world


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Runs commands that may be killed."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler, which what numbers file operations needs")
    with ForkServer(tmp_path_factory.mktemp("fork-server")) as found:
        yield found


@pytest.fixture(scope="session")
def world(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Where they run; read only."""
    with small_world(tmp_path_factory.mktemp("world"), server) as found:
        yield found


@pytest.fixture(scope="session")
def servers(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ForkServer]]:
    """One for each of two cores."""
    with ExitStack() as stack:
        other = stack.enter_context(ForkServer(tmp_path_factory.mktemp("other-fork-server")))
        yield [server, other]
