"""Checkpoints that survive `kill -9` and a power cut: each is sealed by rank 0, when all of it is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from stic_eval.durable_files import sync_tree
from stic_eval.store import atomic_write, file_sha256
from stic_eval.training import ranks

_KEPT = 2
_SEAL = "complete.json"


def folder_of(out: Path) -> Path:
    """Where a stage's checkpoints lie."""
    return out / "checkpoints"


def seal(checkpoint: Path) -> None:
    """Declares a checkpoint whole once every rank has written its part, and deletes what is older.

    A rank that dies before leaves it without a seal.
    """
    ranks.wait()
    if not ranks.leads():
        return
    sync_tree(checkpoint)
    atomic_write(checkpoint / _SEAL, json.dumps(digests(checkpoint)))
    for old in _by_step(checkpoint.parent)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """The last checkpoint that was written to its end, as rank 0 finds it; what is not whole is deleted."""
    return ranks.of_leader(_latest(folder) if ranks.leads() else None)


def _latest(folder: Path) -> Path | None:
    for path in _by_step(folder):
        try:
            sealed = json.loads((path / _SEAL).read_bytes())
            # Earlier versions have sealed sizes alone.
            if sealed == digests(path) or sealed == sizes(path):
                return path
        except (OSError, ValueError):
            pass
        shutil.rmtree(path, ignore_errors=True)
    return None


def _by_step(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def sizes(folder: Path) -> Mapping[str, int]:
    """The files of a checkpoint, with their sizes in bytes; without its seal."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}


def digests(folder: Path) -> Mapping[str, str]:
    """The files of a checkpoint, with the sha256 of what is in them: a disk may change them meanwhile."""
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != _SEAL]
