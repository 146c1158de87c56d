"""Deleting a run: what it has written, and nothing else that lies in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stic_eval import durable_files, lease
from stic_eval.errors import UserError
from stic_eval.experiment import cache_claims, cache_contents
from stic_eval.report import runs
from stic_eval.store import cache_dir

# In the order in which they go: what is left of a deletion that was killed is still known as a run.
_FILES = ("scores.json", *(f"table.{end}" for end in ("md", "tex", "html", "csv", "json")), "report.html",
          "ablation.json", "skipped.jsonl")  # fmt: skip
_FOLDERS = ("records", "training", "figures", "cache")
_LAST = ("manifest.json", "run.log", "config.yaml")


@dataclass(frozen=True)
class RunFiles:
    """What lies in a run's folder.

    Attributes:
        written: What the run has written, and what commands have made of it; the folder's entries.
        others: Names of entries that are nobody's here, and stay.
        size: Bytes of what was written.
    """

    folder: Path
    written: tuple[Path, ...]
    others: tuple[str, ...]
    size: int


def look_at(folder: Path) -> RunFiles:
    """What a run's folder holds.

    Raises:
        UserError: It is a link or no run's, or somebody is at work in it.
    """
    if folder.is_symlink():
        raise UserError(f"{folder}: is a link to {folder.resolve()}; delete that run, or the link by hand")
    if not (folder / "config.yaml").is_file() or not any(
        (folder / name).exists() for name in ("scores.json", "manifest.json", "run.log", "records")
    ):
        raise UserError(f"{folder}: holds no run (config.yaml and results); delete it by hand")
    if holder := lease.holder(folder / ".lease"):
        raise UserError(
            f"{folder}: {holder} is working in it; end that first (if it is certainly gone, delete "
            f"{folder / '.lease'})"
        )
    images = tuple(path.name for path in cache_contents.image_folders([folder]))
    names = (*_FILES, *_FOLDERS, *images, *_LAST)
    written = tuple(folder / name for name in names if (folder / name).exists())
    known = {*names, ".lease"}
    others = tuple(sorted(path.name for path in folder.iterdir() if path.name not in known))
    return RunFiles(folder, written, others, sum(map(cache_contents.size_of, written)))


def check_adapters(doomed: Sequence[Path], others: Iterable[Path]) -> None:
    """Refuses to delete a run in whose own cache an adapter lies that another run evaluates.

    Raises:
        UserError: One does.
    """
    whole = [folder.resolve() for folder in doomed]
    claimed = (claim.folder for claim in cache_claims.read(cache_dir()))
    for other in {path.resolve(): path for path in (*others, *claimed)}.values():
        if other.resolve() in whole:
            continue
        for adapter in cache_claims.adapters_of(other):
            for folder in whole:
                if adapter.is_relative_to(folder):
                    raise UserError(f"{folder}: {other} evaluates an adapter in it; delete that run as well")


def remove(found: RunFiles) -> None:
    """Deletes what a run has written, and its folder if nothing else lies there.

    Raises:
        UserError: Somebody is at work in it.
    """

    def refuse(holder: str) -> None:
        raise UserError(f"{found.folder}: {holder} is working in it; nothing was deleted")

    with lease.hold(found.folder / ".lease", refuse):
        for path in found.written:
            durable_files.remove(path)
    cache_claims.withdraw(cache_dir(), found.folder)
    with suppress(OSError):  # somebody's files are in it
        found.folder.rmdir()


def known_runs(more: Iterable[Path] = ()) -> list[Path]:
    """Folders of runs below `results/` and other folders."""
    return [path for root in (runs.ROOT, *more) for path in runs.runs(root)]
