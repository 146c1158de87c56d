"""Images that would take minutes to decode are refused before that, and all others are not."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image, PpmImagePlugin

from stic_eval import image_budgets, images
from stic_eval.image_sources import scan_images
from stic_eval.images import Decoding, ImageError, image_ref, load_bytes, load_image
from stic_eval.types import ImageRef


def progressive(scans: int) -> bytes:
    """A JPEG of 64 x 64 with as many scans more: their headers again, which refine nothing."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    start = data.index(b"\xff\xda")
    start = data.index(b"\xff\xda", start + 2)
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return data[:-2] + (data[start:end] + b"\0") * scans + data[-2:]


def plain(width: int, height: int, more: bytes = b"") -> bytes:
    return b"P3\n%d %d\n255\n" % (width, height) + more + b"7 " * (3 * width * height)


@pytest.fixture
def nothing_decodes_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded after all")

    for decoder in (PpmImagePlugin.PpmPlainDecoder, PpmImagePlugin.PpmDecoder):
        monkeypatch.setattr(decoder, "decode", refuse)


def test_scans_times_pixels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_budgets, "MAX_SCANNED", 64 * 64 * 100)
    assert load_bytes(progressive(80), "x").size == (64, 64)
    with pytest.raises(ImageError, match="410 scans are too many for 64 x 64 pixels"):
        load_bytes(progressive(400), "x")


def test_an_ordinary_progressive_jpeg_of_any_size_is_within() -> None:
    assert progressive(0).count(b"\xff\xda") * image_budgets.MAX_PIXELS <= image_budgets.MAX_SCANNED


@pytest.mark.usefixtures("nothing_decodes_in_python")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (plain(20, 20), "too large"),
        (plain(2, 2, b"#\n" * 1001), "comments"),
        (b"P6\n20 20\n254\n" + b"\0" * 1200, "too large"),
        (b"P6\n" + b"#" * 5000 + b"\n2 2\n255\n" + b"\0" * 12, "header has no end"),
        (b"P6\n" + b" " * 5000 + b"2 2\n255\n" + b"\0" * 12, "header has no end"),
    ],
    ids=["values", "comments", "depth", "comment in the header", "blanks in the header"],
)
def test_what_pillow_decodes_in_python_is_bounded(
    data: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_budgets, "MAX_SLOW_VALUES", 1000)
    with pytest.raises(ImageError, match=message):
        load_bytes(data, "x")


def test_small_ones_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(plain(3, 2, b"# made by hand\n"))
    (tmp_path / "b.ppm").write_bytes(b"P6 2 2 254\n" + b"\xfe" * 12)
    assert load_image(tmp_path / "a.ppm").getpixel((2, 1)) == (7, 7, 7)
    assert load_image(tmp_path / "b.ppm").getpixel((1, 1)) == (255, 255, 255)


def test_a_file_too_large_is_not_even_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "x.png").open("wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(images, "file_sha256", lambda path: pytest.fail("read"))
    with pytest.raises(ImageError, match="larger than 6"):
        image_ref(tmp_path / "x.png")
    with pytest.raises(ImageError, match="larger than 6"):
        load_image(tmp_path / "x.png")


def test_links_in_a_circle_devices_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    for name in ("circle.png", "pipe.png"):
        for root in (None, tmp_path):
            with pytest.raises(ImageError):
                image_ref(name if root else tmp_path / name, root)
    with pytest.raises(ImageError):
        load_image("/dev/zero")
    found, skipped = scan_images(tmp_path)
    assert [image.source for image in found] == ["good.png"]
    assert sorted(item.source for item in skipped) == ["circle.png", "pipe.png", "zero.png"]
    listed = tmp_path / "list.txt"
    listed.write_text("circle.png\ngood.png\npipe.png\n")
    assert [image.source for image in scan_images(listed)[0]] == ["good.png"]


def test_what_libtiff_says_stays_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "damaged.tif"
    Image.radial_gradient("L").save(path, compression="tiff_adobe_deflate")
    data = bytearray(path.read_bytes())
    for at in range(100, len(data) // 2, 50):
        data[at] ^= 255
    path.write_bytes(data)
    with caplog.at_level("INFO", "stic_eval.run"), pytest.raises(ImageError):
        load_image(path)
    assert capfd.readouterr().err == ""
    assert "Decod" in caplog.text


def test_a_single_image_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    loads: list[int] = []
    load = Image.core.zip_decoder
    monkeypatch.setattr(Image.core, "zip_decoder", lambda *args: loads.append(1) or load(*args))
    assert len(scan_images(tmp_path / "good.png")[0]) == 1
    assert len(loads) == 1


def test_whoever_asks_at_once_waits_for_the_first() -> None:
    from concurrent.futures import ThreadPoolExecutor

    loads: list[int] = []

    def load() -> Image.Image:
        loads.append(1)
        raise ImageError("x", "damaged")

    decoding, ref = Decoding(), ImageRef("0" * 64, "x", load)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(decoding.fault, [ref] * 64)) == {"damaged"}
    assert len(loads) == 1
