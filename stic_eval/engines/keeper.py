"""Keeps a server of a run from outliving it: `python -m stic_eval.engines.keeper COMMAND...`.

It begins the command in a process group of its own, and ends all of that group when its standard input
closes, which it does however the run ends, or when it is told to. It imports nothing that takes time.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

from stic_eval.parent_death import end_with_parent

_PATIENCE = 15.0  # seconds between asking a group to end and ending it


def main(command: list[str]) -> int:
    """Runs a command until it ends, or standard input does; its exit code."""
    ended = [False]

    def end(number: int, frame: object) -> None:
        ended[0] = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    try:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # On Linux a server is ended even if its keeper is killed; elsewhere the keeper has to live.
            preexec_fn=partial(end_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - one thread
        )
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while server.poll() is None and not ended[0]:
        readable, _, _ = select.select([0], [], [], 0.2)
        if readable and not os.read(0, 1):
            break
    if server.poll() is None:
        _signal(server.pid, signal.SIGTERM)
        begin = time.monotonic()
        while server.poll() is None and time.monotonic() - begin < _PATIENCE:
            time.sleep(0.05)
    _signal(server.pid, signal.SIGKILL)  # whatever of its group is left
    return server.wait()


def _signal(group: int, number: int) -> None:
    with suppress(OSError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
