"""The files of a folder, as candidates; shards and tables in it are opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from stic_eval.image_sources import shards, tables
from stic_eval.image_sources.candidates import Candidate
from stic_eval.images import file_name_text


def folder_candidates(root: Path) -> Iterator[Candidate]:
    """What a folder holds, sorted by relative path; links that leave it are not followed."""
    inside = root.resolve()
    found: list[Candidate] = []
    for folder, subfolders, files in os.walk(root):
        for name in subfolders + files:
            file = Path(folder, name)
            source = file_name_text(file.relative_to(root).as_posix())
            if name in subfolders:
                if file.is_symlink():
                    found.append(Candidate(source, file, "link to a folder, not followed"))
            elif file.is_symlink() and not file.exists():
                found.append(Candidate(source, file, "broken link"))
            elif not _lies_in(file, inside):
                found.append(Candidate(source, file, "link out of the folder"))
            elif shards.is_shard(file):
                found += shards.shard_candidates(file, source)
            elif file.suffix == ".parquet":
                found += tables.table_candidates(file, source)
            else:
                found.append(Candidate(source, file))
    yield from sorted(found, key=lambda candidate: candidate.source)


def _lies_in(file: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, links followed, which may go in a circle."""
    try:
        return file.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):
        return False
