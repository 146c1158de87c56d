"""Finished stages on disk, by content key.

A stage folder is one rename of what is on the disk: `kill -9` at any point, or a power cut, leaves it whole
or its work folder to go on from. They may lie on a file system that several machines share.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from stic_eval import durable_files, lease
from stic_eval.digests import carry_over, digests, first_change
from stic_eval.errors import ELSEWHERE, RunError, UserError, write_failure
from stic_eval.store import atomic_write


def _first_changed(folder: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The first file of a stage whose content differs from its manifest's digest, if it has one."""
    file = first_change(folder, {file: manifest["sha256"].get(file, "") for file in manifest["files"]})
    return None if file is None else folder / file


def _writable(folder: Path) -> Path:
    try:
        durable_files.make_folder(folder)
    except OSError as error:
        raise write_failure(f"the stage cache {folder}", error, ELSEWHERE) from error
    return folder


def _remove(work: Path) -> None:
    """Removes a work folder, first from where others look for one to go on in."""
    aside = durable_files.temporary_name(work)
    with suppress(OSError):
        os.rename(work, aside)
        durable_files.remove(aside)


class StageStore:
    """Finished stages by content key, each a folder `<name>-<first 16 digits of its key>`.

    A stage is made in a work folder of an attempt's own, which survives a kill: the next attempt goes on in
    it. `finish` gives it a manifest and renames it into place. Take `lock` around looking, working and
    finishing, so that two processes do not run one stage at once.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self._said: set[str] = set()
        self._work: dict[Path, Path] = {}  # finished folder -> work folder of this attempt
        self._held: dict[Path, lease.Owner] = {}  # finished folder -> as whom this attempt holds its lease

    def sweep(self) -> None:
        """Removes what processes that have ended left beside stages and their work folders."""
        durable_files.sweep(self.root)
        lease.sweep(self.root)

    def folder(self, name: str, key: str) -> Path:
        """Where the finished stage lies (or will lie)."""
        return self.root / f"{name}-{key[:16]}"

    def done(self, name: str, key: str) -> Path | None:
        """The finished folder, or None if there is none or files of it are missing or cut short.

        By names and sizes alone: good for a plan. What is to be used is asked of `sound`.
        """
        return None if self._manifest(name, key) is None else self.folder(name, key)

    def _manifest(self, name: str, key: str) -> dict[str, Any] | None:
        """A finished stage's manifest, if its files are there in the sizes that it has of them."""
        folder = self.folder(name, key)
        try:
            manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
            sizes = {file: (folder / file).stat().st_size for file in manifest["files"]}
            return manifest if manifest.get("key") == key and sizes == manifest["files"] else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def sound(self, name: str, key: str, tell: Callable[[str], None]) -> Path | None:
        """The finished folder, if the content of its files is what was written; None: make it anew.

        Each file is read once in a process. A manifest that an earlier version wrote has no digests: they
        are taken now and kept, and it says from then on that they were taken later.

        Args:
            tell: Says, once, what is wrong with it, or that its digests are taken only now.
        """
        folder, which = self.folder(name, key), f"stage {name} ({key[:16]})"
        manifest = self._manifest(name, key)  # read once: another process may put a new folder in its place
        if manifest is None:
            if folder.is_dir():
                self._say(tell, f"{which}: {folder} is damaged or incomplete; the stage is made again")
            return None
        if isinstance(manifest.get("sha256"), dict):
            if (file := _first_changed(folder, manifest)) is not None:
                self._say(tell, f"{which}: {file} has changed since it was written; the stage is made again")
                return None
            return folder
        self._say(tell, f"{which}: was kept without digests of its files; they are taken now")
        try:
            taken = digests(folder, manifest["files"])
        except OSError:
            return None
        manifest |= {"sha256": taken, "sha256_taken": "at first use"}
        with suppress(UserError, RunError):  # a cache that may only be read is used as it is
            atomic_write(folder / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True))
        return folder

    def first_damaged(self, name: str, key: str) -> Path | None:
        """The first file of a finished stage whose content is not what was written; None: none is known."""
        folder = self.folder(name, key)
        try:
            return _first_changed(folder, json.loads((folder / "manifest.json").read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _say(self, tell: Callable[[str], None], line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            tell(line)

    def work_dir(self, name: str, key: str) -> Path:
        """This attempt's folder to work in, with whatever an earlier, killed one left there.

        It is renamed for that: a process that has lost its lease and goes on does not find it any more.

        Raises:
            UserError: It cannot be created.
        """
        folder = self.folder(name, key)
        if folder not in self._work or not self._work[folder].is_dir():
            own = folder.with_name(f"{folder.name}.{uuid4().hex[:8]}.work")
            for left in self._left(folder):
                if own.exists():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    with suppress(OSError):  # what is open there cannot be moved on every system
                        os.rename(left, own)
            for half in list(own.rglob(".*.tmp")):  # being written when that attempt was killed
                durable_files.remove(half)
            self._work[folder] = own
        return _writable(self._work[folder])

    def _left(self, folder: Path) -> list[Path]:
        """Work folders that other attempts at a stage have left, the last one first."""
        found = [path for path in self.root.glob(f"{folder.name}*.work") if path.is_dir()]
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def finish(self, name: str, key: str, manifest: Mapping[str, Any] | None = None) -> Path:
        """Turns the work folder into the finished one and returns it.

        Args:
            manifest: Whatever should be kept beside the name, the key and the list of files.

        Raises:
            RunError: Another process has taken the stage over, and goes on in this one's work folder.
        """
        folder = self.folder(name, key)
        work = self._work.get(folder)
        if work is None or not work.is_dir():
            return self._taken_over(name, key)
        try:
            files = {
                path.relative_to(work).as_posix(): path.stat().st_size
                for path in sorted(work.rglob("*"))
                if path.is_file() and path.name != "manifest.json"
            }
            sha256 = digests(work, files)
            whole = {**(manifest or {}), "name": name, "key": key, "files": files, "sha256": sha256}
            atomic_write(work / "manifest.json", json.dumps(whole, indent=2, sort_keys=True))
            # Looked at after the last write, which makes a folder anew that another has taken. From here on
            # whoever takes the lease takes the folder as well, and there is nothing left to rename.
            if not self.holds(name, key):
                return self._taken_over(name, key)
            if self.publish(name, key, work):
                carry_over(work, folder, files)
        except FileNotFoundError:
            if work.is_dir():
                raise
            return self._taken_over(name, key)
        del self._work[folder]
        return folder

    def holds(self, name: str, key: str) -> bool:
        """Whether nobody else has the lease of a stage that this attempt took, nor has anyone deleted it."""
        owner = self._held.get(self.folder(name, key))
        return owner is None or lease.held(self._lease(name, key), owner)

    def _taken_over(self, name: str, key: str) -> Path:
        """What another process has made of a stage meanwhile.

        Raises:
            RunError: It has not finished.
        """
        if (found := self.sound(name, key, lambda line: None)) is not None:
            return found
        raise RunError(
            f"stage {name} ({key[:16]}): this process was stopped for so long that another has taken the "
            "stage over; the same command waits for that one and continues with its result"
        )

    def publish(self, name: str, key: str, work: Path) -> bool:
        """Puts a folder with its manifest in place, also of a damaged one; False: a sound one is there.

        Raises:
            FileNotFoundError: The folder has been taken away.
        """
        folder = self.folder(name, key)
        durable_files.sync_tree(work)
        while True:
            if self.sound(name, key, lambda line: None) is not None:
                shutil.rmtree(work, ignore_errors=True)
                return False
            aside = durable_files.temporary_name(folder)
            with suppress(FileNotFoundError):
                os.rename(folder, aside)
                durable_files.remove(aside)
            try:
                os.rename(work, folder)
                durable_files.sync(self.root)
                return True
            except OSError:
                if not folder.is_dir() or not work.is_dir():  # else another has been faster by a moment
                    raise

    def made_of(self, keys: Iterable[str]) -> dict[str, str]:
        """Content key -> name, of finished stages that were made of these, directly or not; not of these."""
        found, names, needs = set(keys), {}, {}
        for path in self.root.glob("*/manifest.json"):
            try:
                manifest = json.loads(path.read_bytes())
                key = str(manifest["key"])
                names[key], needs[key] = str(manifest["name"]), set(manifest["needs"].values())
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        before = set(found)
        while more := {key for key, of in needs.items() if key not in found and of & found}:
            found |= more
        return {key: names[key] for key in found - before}

    def discard(self, name: str, key: str) -> None:
        """Forgets a stage, finished or not."""
        folder = self.folder(name, key)
        for path in (folder, *self._left(folder)):
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def lock(self, name: str, key: str) -> Iterator[None]:
        """Holds a stage for this process; waits for another one, however long it takes.

        A lease (`lease.py`): that of a process of this machine that was killed is taken at once, that of
        another machine when it has not been renewed for two minutes. To create it shows this machine what
        others have put into the folder; whoever holds it looks again before anything is computed.
        """
        _writable(self.root)
        folder = self.folder(name, key)
        with lease.hold(self._lease(name, key)) as owner:
            self._held[folder] = owner
            try:
                yield
            finally:
                if folder in self._work and not self.holds(name, key):
                    _remove(self._work.pop(folder))  # a fragment, which nobody is to go on in
                del self._held[folder]

    def _lease(self, name: str, key: str) -> Path:
        folder = self.folder(name, key)
        return folder.with_name(f"{folder.name}.lease")
