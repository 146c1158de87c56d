"""Finds the usable images of a source, whatever it is."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stic_eval.errors import UserError
from stic_eval.image_sources.candidates import Candidate, is_named_as_image
from stic_eval.image_sources.folders import folder_candidates
from stic_eval.image_sources.lists import list_candidates
from stic_eval.image_sources.shards import is_shard, shard_candidates
from stic_eval.image_sources.tables import is_table, table_candidates
from stic_eval.images import UNKNOWN_FORMAT, ImageError, Skipped, bytes_ref, check_image, file_ref, in_order
from stic_eval.types import ImageRef

# Of what is no path: owner/name, alone or in an address, of which a Path keeps one slash.
_HUB_ID = re.compile(r"(?:(?:hf:/{0,2}|https:/{1,2}huggingface\.co/)(?:datasets/)?)?([\w-][\w.-]*/[\w.-]+)")


def scan_images(
    path: Path | str,
    *,
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[ImageRef], list[Skipped]]:
    """Finds the usable images of a folder, a list, a webdataset shard, or a data set on disk.

    A folder is read recursively, sorted by relative path, shards and parquet files in it too; links that
    leave it are not followed. A list has one path a line (blank lines and those that start with `#` are
    ignored), or is a JSON array of names, and keeps its order. Every image is decoded once, so that a damaged
    one is found now and not in the middle of training. Of images with the same content the first counts.

    Args:
        root: Folder that the names of a list start at; None: the list's own.
        progress: Called with (files looked at, files in all).

    Returns:
        The images, and each file left out with the reason.

    Raises:
        UserError: There is no such file or folder, or it is nothing that holds images.
    """
    path = Path(path)
    try:
        candidates = _candidates(path, root)
    except OSError as error:
        raise UserError(f"--images {path}: {error.strerror or error}") from error
    images: list[ImageRef] = []
    skipped: list[Skipped] = []
    first: dict[str, str] = {}
    # Hashing and decoding release the interpreter lock. Results come in order, a window at a time.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged files: they end up in `skipped`
        for number, result in enumerate(in_order(pool, _inspect, candidates), start=1):
            if isinstance(result, Skipped):
                skipped.append(result)
            elif result.sha256 in first:
                skipped.append(Skipped(result.source, f"same content as {first[result.sha256]}"))
            else:
                first[result.sha256] = result.source
                images.append(result)
            if progress is not None:
                progress(number, len(candidates))
    return images, skipped


def keeps_order(path: Path) -> bool:
    """Whether the order of a source's images is somebody's choice: that of a list is."""
    return not (path.is_dir() or is_shard(path) or is_table(path))


def _candidates(path: Path, root: Path | None) -> list[Candidate]:
    if not path.exists():
        advice = ""
        if found := _HUB_ID.fullmatch(str(path)):
            name = found[1]
            advice = (
                f"; if it is on the hub, give DIR of hf download {name} --repo-type dataset --local-dir DIR"
            )
        raise UserError(f"--images {path}: no such file or folder{advice}")
    if is_table(path):
        return list(table_candidates(path, path.name))
    if path.is_dir():
        return list(folder_candidates(path))
    if is_shard(path):
        return list(shard_candidates(path, path.name))
    return list(list_candidates(path, root))


def _inspect(candidate: Candidate) -> ImageRef | Skipped:
    if candidate.reason:
        return Skipped(candidate.source, candidate.reason, candidate.fault)
    try:
        if isinstance(candidate.place, Path):
            ref = file_ref(candidate.place, candidate.source)
            check_image(candidate.place, candidate.source)
        else:
            data = candidate.place()
            ref = bytes_ref(candidate.place, candidate.source, data)
            check_image(data, candidate.source)
    except ImageError as error:
        return Skipped(candidate.source, error.reason, not _lies_beside(candidate, error.reason))
    return ref


def _lies_beside(candidate: Candidate, reason: str) -> bool:
    """Whether what is left out is no image by name and content: a note, a caption, .DS_Store."""
    told = reason in (UNKNOWN_FORMAT, "empty file") or reason.startswith("larger than")
    return told and isinstance(candidate.place, Path) and not is_named_as_image(candidate.place.name)
