"""Pictures in every format, and headers that speak of more than there is."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image


def put_pictures(folder: Path) -> None:
    """Saves one usable image, and what only looks like one: links, a pipe, damaged and enormous ones."""
    Image.new("RGB", (40, 30), "blue").save(folder / "good.png")
    (folder / "circle.png").symlink_to("circle.png")
    os.mkfifo(folder / "pipe")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:60])
    # Pillow and libtiff speak about each of these.
    (folder / "strange.tif").write_bytes(ENCODED[11][:-40])
    (folder / "odd.jpg").write_bytes(ENCODED[0].replace(b"Exif\0\0II*\0\x08", b"Exif\0\0II*\0\xf8"))
    head = (9_000).to_bytes(4, "big") * 2 + b"\x08\2\0\0\0"
    ihdr = b"\0\0\0\rIHDR" + head + zlib.crc32(b"IHDR" + head).to_bytes(4, "big")
    (folder / "empty.png").write_bytes(b"\x89PNG\r\n\x1a\n" + ihdr + b"\0\0\0\0IEND\xaeB`\x82")


PICTURES = ("good.png", "circle.png", "pipe", "cut.png", "strange.tif", "odd.jpg", "empty.png")


def _encoded() -> list[bytes]:
    """One picture in every format that is read, and in the odd kinds of some."""
    drawn = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (drawn, "JPEG", {}),
        (drawn, "JPEG", {"progressive": True}),
        (drawn.convert("CMYK"), "JPEG", {}),
        (drawn, "PNG", {}),
        (drawn.convert("P"), "PNG", {}),
        (drawn.convert("LA"), "PNG", {}),
        (drawn.convert("I;16"), "PNG", {}),
        (drawn, "GIF", {"save_all": True, "append_images": [drawn.convert("L")]}),
        (drawn, "WEBP", {}),
        (drawn, "BMP", {}),
        (drawn.convert("P"), "BMP", {}),
        (drawn, "TIFF", {}),
        (drawn, "TIFF", {"compression": "tiff_lzw"}),
        (drawn, "TIFF", {"compression": "jpeg"}),
        (drawn.convert("F"), "TIFF", {}),
        (drawn.convert("1"), "TIFF", {"compression": "group4"}),
        (drawn, "PPM", {}),
        (drawn.convert("L"), "PPM", {}),
        (drawn, "AVIF", {}),
        (drawn, "MPO", {}),
    ]
    found: list[bytes] = []
    for picture, kind, how in kinds:
        buffer = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}), **how)
        found.append(buffer.getvalue())
    by_hand = [
        b"P3\n4 4\n255\n" + b"7 " * 48,
        b"P6\n4 4\n65535\n" + b"\1\2" * 48,
        b"P1\n2 2\n0 1 1 0\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(../canary) (w) file closefile\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='http://127.0.0.1:9/x'/></svg>",
        b"push graphic-context\nviewbox 0 0 9 9\nfill 'url(https://127.0.0.1/x|touch ../canary)'\n",
        b"8BPS\0\1" + b"\0" * 40,
        b"",
        b"\x1f\x8b\x08" + b"\0" * 40,
        b"PK\3\4" + b"\0" * 40,
    ]
    return found + by_hand


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Headers that speak of more pixels, strips or frames than there are."""
    width, height = (draw(st.sampled_from([0, 1, 300, 9_459, 65_535, 2**31 - 1])) for _ in range(2))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\2\0\0\0"
        return (
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
            + head
            + zlib.crc32(b"IHDR" + head).to_bytes(4, "big")
            + b"\0\0\0\nIDATx\x9c"
            + draw(st.binary(max_size=8))
        )
    if kind == 1:
        return b"P%d %d %d 255\n" % (draw(st.sampled_from([1, 2, 3, 5, 6])), width, height) + b"7 " * 50
    if kind == 2:
        return (
            b"BM"
            + b"\0" * 8
            + b"\x36\0\0\0\x28\0\0\0"
            + width.to_bytes(4, "little")
            + height.to_bytes(4, "little")
            + b"\1\0\x08\0\1"
            + b"\0" * 50
        )
    if kind == 3:
        size = min(width, 65_535).to_bytes(2, "little") + min(height, 65_535).to_bytes(2, "little")
        return (
            b"GIF89a" + size + b"\x80\0\0" + b"\0" * 6 + b"\x2c\0\0\0\0" + size + b"\0\2\x16\x8c" + b"\0" * 30
        )
    entries = [
        (256, width),
        (257, height),
        (258, 8),
        (259, draw(st.sampled_from([1, 5, 7, 8, 32773]))),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, width),
    ]
    body = b"".join(
        tag.to_bytes(2, "little")
        + b"\4\0"
        + draw(st.sampled_from([b"\1\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\x0f"]))
        + (value & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, value in entries
    )
    return b"II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little") + body + b"\0" * 20


ENCODED = _encoded()
