"""A worker on another machine: stages, answers and replies are the driver's, and come and go by messages.

Stages lie on a file system that both see, or are sent; answers and a judge's replies are always asked of the
driver's machine and sent to it, for no two machines may have one SQLite file open.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stic_eval.durable_files import temporary_name
from stic_eval.errors import RunError, UserError
from stic_eval.experiment.machine_facts import check_version
from stic_eval.experiment.resources import Resources
from stic_eval.experiment.worker import SendingReport, do_with, send_log
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key
from stic_eval.types import Response
from stic_eval.waiting_threads import sleep_from_now_on

if TYPE_CHECKING:
    from stic_eval.experiment.events import Send
    from stic_eval.experiment.graph import Task
    from stic_eval.settings import RunConfig

LATE = 90.0  # seconds that a folder of another machine may take to appear
_CHUNK = 16 << 20  # bytes of a file that are sent at a time
# (path in the folder, whether these are its first bytes, bytes); an empty path ends the folder.
Piece = tuple[str, bool, bytes]


class CacheReader(Protocol):
    """Reads for workers what lies in the driver's cache."""

    def get_many(self, kind: str, keys: list[str]) -> Mapping[str, Response]:
        """Stored responses: `answers` of the base model, or a judge's `replies`."""
        ...

    def count(self, kind: str) -> int:
        """How many there are."""
        ...

    def has(self, folder: str) -> bool:
        """Whether a stage is finished, whether it shows itself already or not."""
        ...

    def manifest(self, folder: str) -> bytes | None:
        """The manifest of a stage that is finished and sound; None: there is none."""
        ...

    def read(self, folder: str) -> Iterator[Piece]:
        """The files of a finished stage."""
        ...


@dataclass(frozen=True)
class FarPlace:
    """What workers on other machines are told when they begin.

    Attributes:
        machine: Where the driver is.
        cache: The driver's cache, by its path there.
        folder: The driver's working directory, which relative paths start from.
        mark: A file among the driver's stages: whoever sees it has its stages before it.
        reader: Reads what of the cache is asked of the driver's machine.
        jobs: How many workers there are.
        dtype: The type of the weights, for all of them; empty: nobody knows.
        together: How many processes train an adapter together.
        version: Of this program.
        environment: Variables of the driver's that count for workers.
    """

    machine: str
    cache: Path
    folder: Path
    mark: str
    reader: CacheReader
    jobs: int
    dtype: str = ""
    together: int = 1
    version: str = field(default_factory=lambda: version("stic-eval"))
    environment: Mapping[str, str] = field(default_factory=dict)


def begin(number: int, place: FarPlace, send: Send) -> Callable[[Task], Iterator[tuple[str, Any]]]:
    """Prepares a worker before it imports what computes; gives what does a task.

    Raises:
        UserError: This machine has another version of this program.
    """
    check_version(place.version)
    with suppress(OSError):  # where it is not there, neither are files by relative paths, which is said then
        os.chdir(place.folder)
    sleep_from_now_on()
    own = own_folder(place)
    os.environ.update(place.environment, STIC_EVAL_CACHE=str(own))  # digests, images by address
    for library in ("HF_HUB", "DATASETS", "TRANSFORMERS") if number else ():
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    send_log(send)
    shared = appears(place.cache / "stages" / place.mark, 3.0)
    stages = FarStages((place.cache if shared else own) / "stages", place.reader, shared, send)

    def resources(config: RunConfig) -> Resources:
        found = Resources(config, SendingReport(send), own, partial(FarStore, place.reader, "answers", send))
        found.stages = stages
        if found.judge is not None:
            found.judge.open_store = partial(FarStore, place.reader, "replies", send)
        return found

    settled = {"dtype": place.dtype} if place.dtype else {}
    return do_with(resources, place.jobs, {**settled, "gpus": place.together})


def own_folder(place: FarPlace) -> Path:
    """Where a worker on this machine keeps what it needs of a driver's cache: nobody else can write there.

    Raises:
        UserError: Somebody else has made that folder, or may write into it.
    """
    found = Path(tempfile.gettempdir()) / f"stic-eval-{getpass.getuser()}"
    found.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid"):
        about = found.lstat()
        if about.st_uid != os.getuid() or not stat.S_ISDIR(about.st_mode) or about.st_mode & 0o022:
            raise UserError(
                f"{found} on {socket.gethostname()} is somebody else's, or others may write into it: remove "
                "it, or give workers another TMPDIR"
            )
        found.chmod(0o700)
    return found / content_key([place.machine, str(place.cache)])[:16]


def appears(path: Path, seconds: float) -> bool:
    """Whether a file is there, or shows itself within so many seconds."""
    until = time.monotonic() + seconds
    while True:
        with suppress(OSError):  # reading a folder makes clients of NFS ask again what is in it
            os.listdir(path.parent.parent)
            if path.name in os.listdir(path.parent):
                return True
        if time.monotonic() > until:
            return False
        time.sleep(0.5)


class FarStore(ResponseStore):
    """Responses on the driver's machine: read by its reader, and sent to it to be kept."""

    def __init__(self, reader: CacheReader, kind: str, send: Send, path: Path) -> None:
        self.path, self._reader, self._kind, self._send = path, reader, kind, send
        self._sent: dict[str, Response] = {}  # which the driver may not have written yet

    def get_many(self, keys: Iterable[str]) -> dict[str, Response]:
        """The stored responses among `keys`, and those that were sent from here."""
        keys = list(keys)
        found = dict(self._reader.get_many(self._kind, keys))
        for key in self._sent.keys() & found.keys():
            del self._sent[key]
        return {**{key: self._sent[key] for key in keys if key in self._sent}, **found}

    def put_many(self, responses: Mapping[str, Response], *, replace: bool = False) -> None:
        """Sends responses."""
        if responses:
            self._sent.update(responses)
            self._send(self._kind, dict(responses))

    def __len__(self) -> int:
        return len(self._sent) + self._reader.count(self._kind)

    def close(self) -> None:
        """There is nothing to close."""


class FarStages(StageStore):
    """Stages that the driver knows of: on a file system that both see, or sent when they are needed.

    Args:
        root: Where they lie, or come to lie.
        reader: Knows what is finished.
        shared: Whether the driver sees the same folder.
        send: Sends finished stages to the driver, where it does not.
    """

    def __init__(self, root: Path, reader: CacheReader, shared: bool, send: Send) -> None:
        super().__init__(root)
        self._reader, self._shared, self._send = reader, shared, send
        self._made: set[Path] = set()  # finished here, which the driver may not have taken in yet

    def _manifest(self, name: str, key: str) -> dict[str, Any] | None:
        """A finished stage's manifest: what the driver has and is not here is waited for, or sent."""
        return self._seen(name, key) if self._shared else self._fetched(name, key)

    def _seen(self, name: str, key: str) -> dict[str, Any] | None:
        """The manifest in the common folder, which may show it late."""
        found = super()._manifest(name, key)
        folder = self.folder(name, key)
        if found is not None or (folder / "manifest.json").is_file() or not self._reader.has(folder.name):
            return found
        if not appears(folder / "manifest.json", LATE):
            raise RunError(
                f"stage {folder.name} is finished and does not appear in {self.root} on "
                f"{socket.gethostname()}; is it the same file system everywhere?"
            )
        return super()._manifest(name, key)

    def _fetched(self, name: str, key: str) -> dict[str, Any] | None:
        """The manifest in this machine's folder, whose stages count as far as the driver has the same."""
        folder = self.folder(name, key)
        if folder in self._made:
            return super()._manifest(name, key)
        theirs = self._reader.manifest(folder.name)
        if theirs is None:
            return None
        with suppress(OSError):
            if (folder / "manifest.json").read_bytes() == theirs:
                return super()._manifest(name, key)
        shutil.rmtree(folder, ignore_errors=True)
        receive(StageStore(self.root), folder.name, self._reader.read(folder.name))
        return super()._manifest(name, key)

    def finish(self, name: str, key: str, manifest: Mapping[str, Any] | None = None) -> Path:
        """Turns the work folder into the finished one, and sends it where the driver does not see it."""
        folder = super().finish(name, key, manifest)
        self._made.add(folder)
        for piece in () if self._shared else pieces(folder):
            self._send("stage", (folder.name, piece))
        return folder


def pieces(folder: Path) -> Iterator[Piece]:
    """The files of a finished stage piece by piece, its manifest last."""
    files = json.loads((folder / "manifest.json").read_bytes())["files"]
    for name in (*files, "manifest.json"):
        with (folder / name).open("rb") as file:
            yield name, True, file.read(_CHUNK)
            while more := file.read(_CHUNK):
                yield name, False, more
    yield "", False, b""


class Receipt:
    """A stage's folder on its way here: it appears when its last piece has come.

    Args:
        stages: Where it is to lie.
        folder: What it is called there.
    """

    def __init__(self, stages: StageStore, folder: str) -> None:
        self._stages, self._aside = stages, temporary_name(stages.root / folder)

    def take(self, piece: Piece) -> bool:
        """Takes in a piece; True: the folder is whole, and lies in place of any that was not sound."""
        name, first, data = piece
        if name:
            path = self._aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb" if first else "ab") as file:
                file.write(data)
            return False
        manifest = json.loads((self._aside / "manifest.json").read_bytes())
        self._stages.publish(manifest["name"], manifest["key"], self._aside)
        return True

    def drop(self) -> None:
        """Forgets what has come."""
        shutil.rmtree(self._aside, ignore_errors=True)


def receive(stages: StageStore, folder: str, sent: Iterable[Piece]) -> None:
    """Takes in a stage's folder from its pieces."""
    receipt = Receipt(stages, folder)
    try:
        for piece in sent:
            receipt.take(piece)
    except BaseException:
        receipt.drop()
        raise
