"""What a cache keeps: what lies where, how large and how old it is, and what no run needs any more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval import durable_files, lease
from stic_eval.experiment import cache_claims
from stic_eval.experiment.integrity import ASIDE

if TYPE_CHECKING:
    from stic_eval.experiment.cache_claims import Claim

# What lies in a folder of the cache, and in which order it is listed.
KINDS: Mapping[str, str] = {
    "stages": "trained adapters, pairs, descriptions",
    "responses": "answers, one file per base model",
    "judge": "a judge's replies",
    "images": "images downloaded from rows' web addresses",
    "served": "models with weights renamed for vLLM",
    "canaries": "answers by which servers' adapters are checked",
    "templates": "chat templates for vLLM",
    "digests.sqlite": "checksums of large files",
    "runs": "which runs need what of this cache",
}
_ALWAYS = ("judge", "digests.sqlite", "runs")  # paid for, or of no size
_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database
_STAGE = re.compile(r".+?-[0-9a-f]{16}(?![0-9a-f])")


@dataclass(frozen=True)
class CacheItem:
    """Something that is kept or deleted as a whole.

    Attributes:
        kind: The entry of the cache that it is or lies in, e.g. `stages`.
        path: Of its file or folder.
        size: Bytes, with what belongs to it.
        made: When the oldest of its files was written, in seconds since 1970.
        written: When the newest was.
    """

    kind: str
    path: Path
    size: int
    made: float
    written: float


@dataclass(frozen=True)
class Keep:
    """Something that is not deleted although it is old, and why."""

    item: CacheItem
    reason: str


def items(cache: Path) -> list[CacheItem]:
    """All that a cache keeps, kinds in their order; what is being written is left out."""
    try:
        entries = sorted(cache.iterdir(), key=lambda path: ([*KINDS, path.name].index(path.name), path.name))
    except OSError:
        return []
    return [item for entry in entries for item in _items_in(entry)]


def _items_in(entry: Path) -> Iterator[CacheItem]:
    if not entry.is_dir():
        if not entry.name.endswith(_BESIDE):
            yield _measure(entry.name, entry)
        return
    for path in sorted(entry.iterdir()):
        if not path.name.startswith(".") and not path.name.endswith((*_BESIDE, ".lease")):
            yield _measure(entry.name, path)


def _measure(kind: str, path: Path) -> CacheItem:
    size, times = 0, list[float]()
    for file in _files_of(path):
        with suppress(OSError):  # gone meanwhile
            found = file.lstat()
            size += found.st_size
            times.append(found.st_mtime)
    return CacheItem(kind, path, size, min(times, default=0.0), max(times, default=0.0))


def _files_of(path: Path) -> Iterator[Path]:
    """A file with what SQLite keeps beside it, or a folder's files."""
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            yield from (Path(folder) / name for name in names)
    else:
        yield path
        yield from (beside for end in _BESIDE if (beside := Path(f"{path}{end}")).exists())


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return _measure("", path).size


def sort_out(
    cache: Path, before: float, more_runs: Iterable[Path] = ()
) -> tuple[list[CacheItem], list[Keep]]:
    """What of a cache nobody needs that was last used before a time, and what is old but needed.

    A stage or a file of answers was used when it was written, and when a run that needs it was last started.
    Kept are stages that any run has its adapters of (as `cache_claims` knows them), and
    stages and answers that a run needs which is unfinished or at work.

    Args:
        cache: Its folder.
        before: Seconds since 1970.
        more_runs: Folders of runs that may have been started by earlier versions.
    """
    claims = cache_claims.read(cache, more_runs)
    reasons, used = _reasons(claims, cache), dict[str, float]()
    for claim in claims:
        for name in (*claim.stages, claim.responses):
            used[name] = max(used.get(name, 0.0), claim.used)
    dispensable, kept = list[CacheItem](), list[Keep]()
    for item in items(cache):
        name = _name(item)
        if item.kind in _ALWAYS or item.kind not in KINDS or max(item.written, used.get(name, 0)) >= before:
            continue
        aside = item.path.name.endswith(ASIDE)  # which nobody needs
        reason = "" if aside else reasons.get(name, "") or reasons.get(item.kind, "")
        if item.kind == "stages" and not reason and (holder := lease.holder(_lease(item.path))):
            reason = f"{holder} is working on it"
        kept += [Keep(item, reason)] if reason else []
        dispensable += [] if reason else [item]
    return dispensable, kept


def _name(item: CacheItem) -> str:
    """The name by which runs need it: a stage's folder, also of an attempt at it, or a file of answers."""
    return _stage_of(item.path) if item.kind == "stages" else item.path.name


def _stage_of(path: Path) -> str:
    """The name of a stage's folder, of an attempt at it, or of what was set aside of it."""
    match = _STAGE.match(path.name)
    return match[0] if match else path.name


def _lease(path: Path) -> Path:
    return path.with_name(f"{_stage_of(path)}.lease")


def _reasons(claims: Sequence[Claim], cache: Path) -> dict[str, str]:
    """Name of a stage's folder or of a file of answers, or a whole kind -> why it has to stay."""
    found: dict[str, str] = {}
    for claim in claims:
        adapter = f"{claim.folder} refers to it"
        found |= {name: adapter for name in claim.stages if name not in found}
        for path in cache_claims.adapters_of(claim.folder):
            if path.is_relative_to(inside := (cache / "stages").resolve()) and path != inside:
                found.setdefault(path.relative_to(inside).parts[0], f"{claim.folder} evaluates its adapter")
    for claim in claims:
        if claim.is_away:
            why = f"{claim.folder} is not seen here, and may lie on {claim.host}, where it was started"
        elif claim.at_work:
            why = f"{claim.at_work} is working in {claim.folder}"
        elif not claim.known:
            why = (
                f"{claim.folder} is unfinished, and an earlier version began it, so what it needs is unknown"
            )
        elif claim.is_unfinished(cache / "stages"):
            why = f"{claim.folder} is unfinished"
        else:
            continue
        found |= {name: why for name in (*claim.stages, claim.responses) if name}
        # Small things, and images that may be gone from where they came from: no run says which it needs.
        kinds = ("images", "served", "canaries", "templates")
        everything = () if claim.known else ("stages", "responses")
        found |= dict.fromkeys((*kinds, *everything), why)
    return found


def delete(item: CacheItem) -> int:
    """Deletes something that nobody needs, unless somebody has begun to work on it; gives the bytes freed.

    What goes is renamed first, so that nobody finds half of it.
    """
    if item.kind != "stages":
        files = list(_files_of(item.path)) if item.path.is_file() else [item.path]
        for path in files:
            _delete(path)
        return 0 if item.path.exists() else item.size
    path = _lease(item.path)
    if lease.holder(path):
        return 0
    with lease.hold(path):
        if _measure(item.kind, item.path).written != item.written:  # made anew meanwhile
            return 0
        _delete(item.path)
    return 0 if item.path.exists() else item.size


def _delete(path: Path) -> None:
    aside = durable_files.temporary_name(path)
    with suppress(OSError):
        os.rename(path, aside)
        durable_files.remove(aside)


def own_caches(folders: Iterable[Path]) -> dict[Path, int]:
    """Caches that runs have to themselves, as they were started with --fresh -> bytes."""
    return {own: size_of(own) for folder in folders if (own := folder / "cache").is_dir()}


def image_folders(folders: Iterable[Path]) -> dict[Path, int]:
    """Folders of small images beside reports that could not hold them -> bytes."""
    found = (mark.parent for folder in folders for mark in folder.glob("*/.stic-eval"))
    return {folder: size_of(folder) for folder in found}
