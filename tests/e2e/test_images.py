"""Folders of images as they are found in the world."""

from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from conftest import Lab

SMALL = ("stage1.batch_size=4", "stage1.max_new_tokens=8", "lora.r=4", "lora.alpha=8")


def huge_png(path: Path, side: int = 20_000) -> None:
    """A valid PNG of one bit a pixel: 400 million pixels in some 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + side // 8) * side), 1)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values)


def train(lab: Lab, images: Path, *extra: str) -> Any:
    argv = ["train", "--model", lab.model, "--method", "stic_stage1", "--images", images, "--output", "run"]
    for option in SMALL:
        argv += ["-o", option]
    return lab.invoke(*argv, *extra)


def pairs_of(lab: Lab, cache: Path) -> Any:
    from datasets import Dataset

    (folder,) = lab.done("pairs")
    return Dataset.from_parquet(str(folder / "pairs.parquet"), cache_dir=str(cache))


def test_a_hostile_folder_is_trained_on_but_for_what_is_unusable(lab: Lab, tmp_path: Path) -> None:
    folder, lab = tmp_path / "images", lab.at(tmp_path)
    (folder / "sub").mkdir(parents=True)
    picture(0).save(folder / "plain.jpg")
    picture(1).save(folder / "sub" / "plain.png")
    picture(2).convert("CMYK").save(folder / "cmyk.jpg")
    palette = picture(3).quantize(16)
    palette.save(folder / "palette.png", transparency=palette.getpixel((0, 0)))
    frames = [picture(seed) for seed in (4, 5, 6)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    picture(7).save(os.fsencode(folder) + b"/caf\xe9.png", format="PNG")  # a name in Latin-1
    whole = tmp_path / "outside.jpg"
    picture(8, (200, 160)).save(whole)
    (folder / "cut.jpg").write_bytes(whole.read_bytes()[:-3000])
    (folder / "link.jpg").symlink_to(whole)
    (folder / "notes.txt").write_text("no image")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "copy.jpg").write_bytes((folder / "plain.jpg").read_bytes())
    (folder / "\x1b[2Jred\n.txt").write_text("its name is an attack")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).write_bytes(b"bad name, no image")
    huge_png(folder / "huge.png")

    done = train(lab, folder)
    assert done.code == 3, done.err
    lines = (lab.folder / "run" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    reasons = {row["source"]: row["reason"] for row in map(json.loads, lines)}
    expected = {
        "cut.jpg": "damaged", "link.jpg": "link out of the folder",
        "empty.jpg": "empty file", "huge.png": "larger than", "plain.jpg": "same content as copy.jpg",
    }  # fmt: skip
    assert {name for name in expected if expected[name] not in reasons.get(name, "")} == set()
    assert len(lines) == len(expected) + 1  # and the one with a bad name
    assert "6 input files skipped" in done.err
    assert "2 skipped: not an image" in done.err  # the notes
    assert "\x1b" not in done.err + done.out
    assert "Logging error" not in done.err
    log = (lab.folder / "run" / "run.log").read_text(encoding="utf-8")
    assert "\x1b" not in log
    assert all(line[:2] == "20" for line in log.splitlines())  # a name cannot pose as a line of its own

    pairs = pairs_of(lab, tmp_path / "read")
    usable = {"copy.jpg", "sub/plain.png", "cmyk.jpg", "palette.png", "animated.gif"}
    assert usable < set(pairs["source"])
    assert len(pairs) == len(usable) + 1
    pictures = {row["source"]: row["images"][0] for row in pairs}
    assert all(picture.mode == "RGB" for picture in pictures.values())
    assert pictures["palette.png"].getpixel((0, 0)) == (255, 255, 255)  # transparency lies on white
    first = Image.open(folder / "animated.gif").convert("RGB")
    assert pictures["animated.gif"].tobytes() == first.tobytes()
    (adapter,) = lab.done("preference")
    assert (adapter / "adapter" / "adapter_model.safetensors").is_file()


def test_photographs_are_trained_on(lab: Lab, tmp_path: Path) -> None:
    chosen = os.environ.get("STIC_EVAL_REAL_DATA")
    photographs = Path(chosen or "nowhere") / "photos"
    if not photographs.is_dir():
        pytest.skip("the photographs are not at hand (STIC_EVAL_REAL_DATA)")
    lab = lab.at(tmp_path)
    done = train(lab, photographs, "-o", "stage1.images=4", "-q")
    assert done.code == 0, done.err
    pairs = pairs_of(lab, tmp_path / "read")
    assert len(pairs) == 4
    for row in pairs:
        assert row["images"][0].size == Image.open(photographs / row["source"]).size
    assert done.out.startswith("stic_stage1: ")
