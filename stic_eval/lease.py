"""Locks that hold on shared file systems: a file with an owner, who renews it as long as it lives.

A lock of the operating system (flock) may be known to one node alone, or not be passed on at all. A lease is
a file that is created exclusively, which servers of files do in one step. Whoever waits for one watches it:
where it does not change for `EXPIRY` seconds, or its owner was a process of this machine that is gone, it is
taken. Clocks of different machines are never compared.

A lease may be lost, by a process that stands still for minutes. So it keeps work from being done twice and
is not what keeps results whole: work folders are an attempt's own, and are published by one rename, after a
last look at the lease (`held`).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from stic_eval.durable_files import remove, temporary_name
from stic_eval.errors import ELSEWHERE, write_failure
from stic_eval.process_identity import born, has_ended, machine

# Clients of NFS may see what others do up to a minute late (acregmax, acdirmax); twice that is waited.
HEARTBEAT, EXPIRY = 10.0, 120.0  # seconds
_FORGOTTEN = 86_400.0  # seconds, more than clocks differ by
_POLL = 0.25
_LOOKS = 40  # at a lease that cannot be read, until it counts as lost


@dataclass(frozen=True)
class Owner:
    """Who holds a lease.

    Attributes:
        token: Of this holding; no other has it.
        machine: The running system, and its numbering of processes: containers have their own.
        pid: The process.
        born: When that process was started, as `process_identity.born` has it; 0: not known.
    """

    token: str
    machine: str
    pid: int
    born: int

    @property
    def gone(self) -> bool:
        """Whether it was a process of this machine and has ended."""
        return self.machine == machine() and has_ended(self.pid, self.born)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.machine.partition(' ')[0]}"


@contextmanager
def hold(path: Path, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[Owner]:
    """Holds a lease while the block runs; waits for another holder, however long it takes.

    Args:
        waiting: Called with who holds it, in words, once for each that is waited for. Of an unsigned lease,
            which a power cut has left, nobody is named, and it is taken soon.

    Raises:
        UserError: The file cannot be created.
    """
    owner = Owner(uuid4().hex[:8], machine(), os.getpid(), born(os.getpid()))
    _take(path, owner, waiting)
    ended = Event()
    beat = Thread(target=_renew, args=(path, owner, ended), name=f"lease {path.name}", daemon=True)
    beat.start()
    try:
        yield owner
    finally:
        ended.set()
        beat.join()
        if held(path, owner):
            with suppress(OSError):
                path.unlink()


def holder(path: Path) -> str:
    """Who holds a lease, in words; empty: nobody, or a process of this machine that has ended.

    Of a process on another machine nobody here knows whether it lives: it counts as one that does.
    """
    found = _look(path)
    if found is None or (found[0] is not None and found[0].gone):
        return ""
    return "another process" if found[0] is None else str(found[0])


def held(path: Path, owner: Owner) -> bool:
    """Whether a lease is still its owner's; one that cannot be read is looked at again for some seconds."""
    for _ in range(_LOOKS):
        if (said := _says(path, owner)) is not None:
            return said
        time.sleep(_POLL)
    return False


def _says(path: Path, owner: Owner) -> bool | None:
    """Whether a lease says that it is this owner's; None: it cannot be read at the moment."""
    found = _look(path)
    if found is None:
        return False
    return None if found[0] is None else found[0] == owner


def _take(path: Path, owner: Owner, waiting: Callable[[str], None]) -> None:
    seen: tuple[Owner | None, int] | None = None
    named: set[Owner] = set()
    since = time.monotonic()
    while not _create(path, owner):
        held, now = _look(path), time.monotonic()
        if held is None:  # given up meanwhile
            continue
        if held != seen:
            seen, since = held, now
        patience = _LOOKS * _POLL if held[0] is None else EXPIRY  # unsigned: what a power cut has left
        if (held[0] is not None and held[0].gone) or now - since > patience:
            _take_away(path, held[0])
            seen = None
            continue
        if held[0] is not None and held[0] not in named:
            named.add(held[0])
            waiting(str(held[0]))
        time.sleep(_POLL)


def _create(path: Path, owner: Owner) -> bool:
    """Whether the lease is this owner's now.

    It is there with its owner's name or not at all, so that nobody waits for one who was killed before he
    could sign. It is not flushed: it need not outlive the machine.
    """
    signed = temporary_name(path)
    try:
        signed.write_text(json.dumps(asdict(owner)), encoding="utf-8")
        try:
            os.link(signed, path)
        except FileExistsError:
            return _owner(path) == owner  # NFS may say so of a request that it has answered twice
        except OSError:  # a file system without hard links
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), "w") as file:
                file.write(json.dumps(asdict(owner)))
    except FileExistsError:
        return False
    except OSError as error:
        raise write_failure(path, error, ELSEWHERE) from error
    finally:
        remove(signed)
    return True


def _look(path: Path) -> tuple[Owner | None, int] | None:
    """Who holds a lease, and when it was last renewed; None: nobody. Opened, for NFS to look again."""
    try:
        with path.open(encoding="utf-8") as file:
            renewed = os.fstat(file.fileno()).st_mtime_ns
            text = file.read()
    except FileNotFoundError:
        return None
    except OSError:  # a stale handle: another file has taken its place
        return (None, 0)
    try:
        return Owner(**json.loads(text)), renewed
    except (ValueError, TypeError):  # just created, or its owner was killed in that moment
        return None, renewed


def _owner(path: Path) -> Owner | None:
    found = _look(path)
    return None if found is None else found[0]


def sweep(folder: Path) -> None:
    """Removes leases whose owners were processes of this machine that have ended, and old unsigned ones."""
    for path in folder.glob("*.lease"):
        if (found := _look(path)) is None:
            continue
        owner, renewed = found
        if owner.gone if owner else time.time() - renewed / 1e9 > _FORGOTTEN:
            _take_away(path, owner)


def _take_away(path: Path, dead: Owner | None) -> None:
    """Removes the lease of an owner that is gone; one that another has taken meanwhile is given back."""
    aside = temporary_name(path)
    try:
        os.rename(path, aside)
    except OSError:
        return
    if _owner(aside) != dead:
        with suppress(OSError):
            os.link(aside, path)
    with suppress(OSError):
        aside.unlink()


def _renew(path: Path, owner: Owner, ended: Event) -> None:
    while not ended.wait(HEARTBEAT):
        if _says(path, owner) is False:
            logging.getLogger("stic_eval.run").warning("the lease %s was taken by another process", path)
            return
        with suppress(OSError):
            os.utime(path)
