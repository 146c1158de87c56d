"""Small copies of images for the page: in it while they fit a budget, else in a folder beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from stic_eval.contracts.engine import ProgressUpdate
from stic_eval.durable_files import make_folder, publish, temporary_folder
from stic_eval.images import in_order
from stic_eval.store import atomic_write
from stic_eval.types import ImageRef

SIDES = (512, 320, 192)  # longest side in px; the first at which all images fit the budget
_LOSSLESS = 96  # drawings of this size or smaller, which compression would smear
_QUALITY = 80
_TRIED = 24  # images from which the size of all is estimated
_MARK = ".stic-eval"  # in a folder of images that was made here, and may go when it is needed no more
_PREFIX = "data:image/webp;base64,"


@dataclass(frozen=True)
class Thumbnails:
    """What the page shows.

    Attributes:
        addresses: Of each image, in the order asked for: a data address or a file relative to the
            page; None where there is no image.
        side: Longest side of any, px.
        folder: The folder beside the page that holds them; None if they are in the page.
    """

    addresses: tuple[str | None, ...]
    side: int
    bytes: int
    folder: Path | None = None

    @property
    def missing(self) -> int:
        """Images that were not there or could not be decoded."""
        return sum(address is None for address in self.addresses)


def make(
    wanted: Sequence[str],
    refs: Mapping[str, ImageRef],
    budget: int,
    folder: Path,
    progress: ProgressUpdate | None = None,
) -> Thumbnails:
    """Encodes each image once, as WebP, as large as the budget allows.

    Args:
        refs: Content hash -> image.
        budget: Bytes that may go into the page. Where not even the smallest size fits, the images are
            written to files, in the largest size.
        folder: Where those go, beside the page; made when it is needed.
        progress: Called with (images done, images in all).
    """
    known = [refs[sha] for sha in wanted if sha in refs]
    for side in SIDES:
        tried = known[:: max(1, len(known) // _TRIED)]
        sizes = [len(data) for data in (_encode(ref, side) for ref in tried) if data is not None]
        if sizes and sum(sizes) / len(sizes) * len(known) > budget:
            continue
        inside: dict[str, str] = {}
        total = 0
        for sha, data in _all(known, side, progress):
            total += len(data)
            if total > budget:
                break
            inside[sha] = _PREFIX + base64.b64encode(data).decode("ascii")
        else:
            return Thumbnails(tuple(map(inside.get, wanted)), side, total)
    beside: dict[str, str] = {}
    total = 0
    for sha, data in _all(known, SIDES[0], progress):
        # Named by what is in it: a hash in a file of records is whatever somebody wrote there.
        name = f"{hashlib.sha256(data).hexdigest()[:32]}.webp"
        if not folder.is_dir():
            make_folder(folder.parent)
            with temporary_folder(folder) as made:
                (made / _MARK).touch()
                publish(made, folder)
        # Not flushed: there may be thousands, and the same command makes them again.
        atomic_write(folder / name, data, flush=False)
        beside[sha] = f"{quote(folder.name)}/{name}"
        total += len(data)
    return Thumbnails(tuple(map(beside.get, wanted)), SIDES[0], total, folder if beside else None)


def clear(folder: Path) -> None:
    """Removes the images that an earlier report left beside the page, in a folder that `make` made."""
    if not (folder / _MARK).is_file():
        return
    for path in folder.iterdir():
        if path.name == _MARK or re.fullmatch(r"[0-9a-f]{32}\.webp", path.name):
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _all(refs: Sequence[ImageRef], side: int, progress: ProgressUpdate | None) -> Iterator[tuple[str, bytes]]:
    """Content hash and small copy of each image that can be decoded."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        results = in_order(pool, lambda ref: _encode(ref, side), refs)
        for number, (ref, data) in enumerate(zip(refs, results, strict=True), start=1):
            if data is not None:
                yield ref.sha256, data
            if progress is not None:
                progress(number, len(refs))


def _encode(ref: ImageRef, side: int) -> bytes | None:
    """An image as WebP with sides of at most `side` px; None if it cannot be decoded."""
    try:
        image = ref.load()
    except Exception:  # a file that is gone, damaged or no image: the page says how many
        return None
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    # Method 2 takes a third of the default's time for 3 % more bytes.
    image.save(buffer, "WEBP", quality=_QUALITY, method=2, lossless=max(image.size) <= _LOSSLESS)
    return buffer.getvalue()
