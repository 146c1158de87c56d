"""How workers of a cluster read the driver's cache: an actor on its machine, and what asks it."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.experiment.executors.interrupts import held_back
from stic_eval.experiment.far_worker import pieces
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore

if TYPE_CHECKING:
    from stic_eval.experiment.far_worker import Piece
    from stic_eval.types import Response


def comes(answer: Any, seconds: float) -> bool:
    """Whether Ray has an answer within so many seconds; meanwhile it can be interrupted."""
    import ray

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with held_back():
            if ray.wait([answer], timeout=1.0)[0]:
                return True
    return False


class Reader:
    """Reads for workers what they ask of the driver's cache; an actor on the driver's machine."""

    def __init__(self, cache: Path, answers: Path) -> None:
        self._stages = StageStore(cache / "stages")
        self._paths = {"answers": answers, "replies": cache / "judge" / "replies.sqlite"}
        self._stores: dict[str, ResponseStore] = {}
        self._finished: set[str] = set()

    def get_many(self, kind: str, keys: list[str]) -> Mapping[str, Response]:
        """See `CacheReader`."""
        return self._store(kind).get_many(keys)

    def count(self, kind: str) -> int:
        """See `CacheReader`."""
        return len(self._store(kind))

    def has(self, folder: str) -> bool:
        """See `CacheReader`."""
        return folder in self._finished or (self._stages.root / folder / "manifest.json").is_file()

    def manifest(self, folder: str) -> bytes | None:
        """See `CacheReader`."""
        try:
            found = (self._stages.root / folder / "manifest.json").read_bytes()
            read = json.loads(found)
            sound = self._stages.sound(read["name"], read["key"], logging.getLogger("stic_eval.run").info)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if sound is None else found

    def finish(self, folder: str) -> None:
        """Takes in that a stage is finished, whether it shows itself here already or not."""
        self._finished.add(folder)

    def read(self, folder: str) -> Iterator[Piece]:
        """See `CacheReader`."""
        yield from pieces(self._stages.root / folder)

    def _store(self, kind: str) -> ResponseStore:
        if kind not in self._stores:
            self._stores[kind] = ResponseStore(self._paths[kind])
        return self._stores[kind]


@dataclass(frozen=True)
class RayReader:
    """The reader as workers reach it."""

    actor: Any

    def get_many(self, kind: str, keys: list[str]) -> Mapping[str, Response]:
        found: Mapping[str, Response] = self._get(self.actor.get_many.remote(kind, keys))
        return found

    def count(self, kind: str) -> int:
        found: int = self._get(self.actor.count.remote(kind))
        return found

    def has(self, folder: str) -> bool:
        found: bool = self._get(self.actor.has.remote(folder))
        return found

    def manifest(self, folder: str) -> bytes | None:
        found: bytes | None = self._get(self.actor.manifest.remote(folder))
        return found

    def finish(self, folder: str) -> None:
        self._get(self.actor.finish.remote(folder))

    def read(self, folder: str) -> Iterator[Piece]:
        for piece in self.actor.read.options(num_returns="streaming").remote(folder):
            yield self._get(piece)

    def _get(self, asked: Any) -> Any:
        import ray

        comes(asked, math.inf)
        with held_back():
            return ray.get(asked)
