"""The images in webdataset shards: tar files that are read where they lie."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from stic_eval.errors import first_line
from stic_eval.image_budgets import MAX_BYTES
from stic_eval.image_sources.candidates import Candidate, is_named_as_image
from stic_eval.images import ImageError, file_name_text

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_shard(path: Path) -> bool:
    """Whether a file is a tar by its name."""
    return path.suffix == ".tar" or path.name.endswith(_PACKED)


def shard_candidates(path: Path, source: str) -> Iterator[Candidate]:
    """The members of a shard that are images by their names; captions and labels beside them are not read.

    Args:
        source: What the shard is called.
    """
    if path.name.endswith(_PACKED):
        yield Candidate(source, path, "is compressed, which shards are not read as: unpack it to .tar")
        return
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if not member.isreg() or not is_named_as_image(member.name):
                    continue
                name = f"{source}/{file_name_text(member.name)}"
                read = partial(_read, path, member.offset_data, member.size, name)
                large = member.size > MAX_BYTES
                yield Candidate(name, read, f"larger than {MAX_BYTES >> 20} MiB" if large else "")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        yield Candidate(source, path, f"damaged: {first_line(error)}")


def _read(path: Path, start: int, size: int, source: str) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise ImageError(source, error.strerror or str(error)) from error
