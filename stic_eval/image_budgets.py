"""What an image may cost before it is decoded: bytes, pixels, scans, values that Pillow reads in Python."""

from __future__ import annotations

import os
import re
from typing import Any, BinaryIO

from PIL import Image

# Pillow's own warning limit; a picture of this size takes 270 MB as RGB.
MAX_PIXELS = 89_478_485
# The most that such a picture takes, 8 bytes a pixel and a header.
MAX_BYTES = 8 * MAX_PIXELS + 2**20
# Pixels times scans. Every scan of a JPEG goes over all of the picture once more; usual ones have ten.
MAX_SCANNED = 16 * MAX_PIXELS
# Of what Pillow decodes in Python, value by value: PPM in digits or of odd depth, run lengths in BMP.
MAX_SLOW_VALUES = 2**21
MAX_SLOW_BYTES = 16 * MAX_SLOW_VALUES
MAX_COMMENTS = 1000  # in PPM in digits, where each has what comes after it copied
_CHUNK = 1 << 20
_BLANK = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PPM_HEAD = re.compile(rb"P[1-6f]" + _BLANK + rb"\d+" + _BLANK + rb"\d+[\s#]")
_STRIPS = (273, 324)  # TIFF's tags for where its strips, or tiles, lie


def unfit_file(file: BinaryIO) -> str:
    """Why a file cannot be an image that could be opened in no time; empty: it may be one."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(4096)
    file.seek(0)
    if size == 0:
        return "empty file"
    if size > MAX_BYTES:
        return f"larger than {MAX_BYTES >> 20} MiB"
    # Pillow reads this header byte by byte, up to the end of the file if need be.
    if head[:1] == b"P" and head[1:2] in b"123456f" and not _PPM_HEAD.match(head):
        return "damaged: its header has no end"
    return ""


def too_slow(image: Image.Image, file: BinaryIO) -> str:
    """Why decoding an image would take far longer than its size lets anyone expect; empty: it does not."""
    values = image.width * image.height * len(image.getbands())
    codecs = {tile[0] for tile in getattr(image, "tile", ())}
    if codecs & set(Image.DECODERS):  # those that are written in Python
        size = file.seek(0, os.SEEK_END)
        if values > MAX_SLOW_VALUES or size > MAX_SLOW_BYTES:
            return f"{image.format} of a kind that takes long, and too large for it; save it as PNG"
        if "ppm_plain" in codecs and _count(file, b"#") > MAX_COMMENTS:
            return f"PPM with more than {MAX_COMMENTS:,} comments; save it as PNG"
    if image.format in ("JPEG", "MPO") or image.info.get("compression") == "jpeg":
        # The strips of a TIFF are pictures of their own.
        parts = max(1, *(_length(getattr(image, "tag_v2", {}).get(tag)) for tag in _STRIPS))
        scans = _count(file, b"\xff\xda")
        if scans * image.width * image.height > MAX_SCANNED * parts:
            return f"{scans:,} scans are too many for {image.width} x {image.height} pixels; save it again"
    return ""


def _length(value: Any) -> int:
    return len(value) if isinstance(value, tuple) else 0


def _count(file: BinaryIO, what: bytes) -> int:
    """How often one or two bytes stand in a file, which is read on from where it was."""
    at, found, last = file.tell(), 0, b""
    file.seek(0)
    while part := file.read(_CHUNK):
        found += (last + part).count(what)
        last = part[-1:] if len(what) == 2 else b""
    file.seek(at)
    return found
