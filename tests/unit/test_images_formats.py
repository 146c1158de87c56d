"""Every kind of image file, encoded in memory or on disk, comes out as upright 8-bit RGB or as one line."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stic_eval.images import (
    ImageError,
    bytes_ref,
    encoded_bytes,
    image_ref,
    load_bytes,
    load_image,
    ref_from_pil,
)

RED, GREY = (255, 0, 0), (128, 128, 128)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    """A JPEG that is stored on its side: its left half is red, and on top once it is upright."""
    image = Image.new("RGB", (64, 32), "blue")
    image.paste(Image.new("RGB", (32, 32), "red"), (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to show
    return saved(image, "JPEG", exif=exif, quality=95)


def palette() -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 255, 0, 255, 0, 0])
    image.putpixel((0, 0), 0)
    return saved(image, transparency=0)


def deep(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values))


READ: dict[str, tuple[bytes, tuple[int, int], tuple[int, int, int]]] = {
    # name: file, pixel, its colour
    "transparent": (saved(Image.new("RGBA", (4, 4), (0, 0, 0, 0))), (1, 1), (255, 255, 255)),
    "half transparent": (saved(Image.new("RGBA", (4, 4), (0, 0, 0, 127))), (1, 1), GREY),
    "grey with alpha": (saved(Image.new("LA", (4, 4), (0, 127))), (1, 1), GREY),
    "palette": (palette(), (1, 1), RED),
    "transparent palette entry": (palette(), (0, 0), (255, 255, 255)),
    "transparent colour": (saved(Image.new("RGB", (4, 4), "red"), transparency=RED), (1, 1), (255, 255, 255)),
    "one bit": (saved(Image.new("1", (4, 4), 1)), (1, 1), (255, 255, 255)),
    "grey": (saved(Image.new("L", (4, 4), 128)), (1, 1), GREY),
    "16 bit": (deep(np.full((4, 4), 0x8080, np.uint16)), (1, 1), GREY),
    "16 bit, dark": (deep(np.full((4, 4), 256, np.uint16)), (1, 1), (1, 1, 1)),
    "16 bit TIFF": (saved(Image.fromarray(np.full((4, 4), 0x8080, np.uint16)), "TIFF"), (1, 1), GREY),
    "32 bit TIFF": (saved(Image.fromarray(np.full((4, 4), 0x8080, np.int32)), "TIFF"), (1, 1), GREY),
    "float TIFF": (saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), (1, 1), GREY),
    "not a number": (saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), (1, 1), (0, 0, 0)),
    "CMYK TIFF": (saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), (1, 1), RED),
    "CMYK JPEG": (saved(Image.new("CMYK", (8, 8), (0, 0, 0, 127)), "JPEG"), (1, 1), GREY),
    "turned": (turned(), (16, 8), (254, 0, 0)),
    "WebP": (saved(Image.new("RGB", (4, 4), "red"), "WEBP", lossless=True), (1, 1), RED),
    "GIF": (saved(Image.new("RGB", (4, 4), "red"), "GIF"), (1, 1), RED),
    "BMP": (saved(Image.new("RGB", (4, 4), "red"), "BMP"), (1, 1), RED),
    "PPM": (saved(Image.new("RGB", (4, 4), "red"), "PPM"), (1, 1), RED),
}


@pytest.mark.parametrize("name", READ)
def test_a_file_and_its_bytes_are_the_same_picture(name: str, tmp_path: Path) -> None:
    data, at, colour = READ[name]
    (tmp_path / "x").write_bytes(data)
    from_file, from_bytes = load_image(tmp_path / "x"), load_bytes(data, "x")
    assert from_file.mode == from_bytes.mode == "RGB"
    assert from_file.tobytes() == from_bytes.tobytes()
    assert np.abs(np.subtract(from_file.getpixel(at), colour)).max() <= 1


def test_a_turned_picture_stands(tmp_path: Path) -> None:
    assert load_bytes(turned(), "x").size == (32, 64)


def test_broken_exif_does_not_lose_a_picture() -> None:
    data = saved(Image.new("RGB", (8, 8), "red"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert load_bytes(data, "x").size == (8, 8)


def huge() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def noise(kind: str) -> bytes:
    return saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
        (huge(), "larger than 89,478,485 pixels"),
        *[
            (noise(kind)[:-400], "damaged|not an image")
            for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")
        ],
        (noise("PNG")[:60], "damaged"),
        (noise("PNG")[:200] + b"\0" * 300 + noise("PNG")[500:], "damaged"),
    ],
)
def test_what_cannot_be_used_says_why(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(data)
    for load in (lambda: load_image(tmp_path / "x.png"), lambda: load_bytes(data, "x.png")):
        with pytest.raises(ImageError, match=reason) as caught:
            load()
        assert "\n" not in str(caught.value)


def test_the_limit_of_pixels_is_the_last_that_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("RGB", (11, 10)))
    monkeypatch.setattr("stic_eval.images.MAX_PIXELS", 110)
    assert load_bytes(data, "x").size == (11, 10)
    monkeypatch.setattr("stic_eval.images.MAX_PIXELS", 109)
    with pytest.raises(ImageError, match="11 x 10 is larger than 109 pixels"):
        load_bytes(data, "x")


def made_of(kind: str, folder: Path, data: bytes) -> object:
    (folder / "x.jpg").write_bytes(data)
    return image_ref("x.jpg", folder) if kind == "file" else bytes_ref(lambda: data, "x.jpg")


@pytest.mark.parametrize("kind", ["file", "bytes"])
def test_the_original_encoding_is_kept(kind: str, tmp_path: Path) -> None:
    data = noise("JPEG")
    ref: Callable[..., object] = made_of(kind, tmp_path, data)  # type: ignore[assignment]
    assert encoded_bytes(ref) == data  # type: ignore[arg-type]


def test_what_never_was_a_file_is_encoded_without_loss() -> None:
    picture = load_bytes(noise("PNG"), "x")
    assert load_bytes(encoded_bytes(ref_from_pil(picture, "x")), "x").tobytes() == picture.tobytes()
