"""Images: files of every format with something wrong in them, under names that nobody would give."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress

import pytest
from hypothesis import strategies as st

from stic_eval.image_sources import scan_images
from stic_eval.images import ImageError, load_bytes
from tests.faults.hostile.attempts import Place
from tests.faults.hostile.budget import explore, few, many
from tests.faults.hostile.pictures import ENCODED, headers
from tests.faults.hostile.values import TEXTS, one_of, spoilt

_AT_ONCE = 8


@st.composite
def folders(draw: st.DrawFn) -> list[tuple[str, bytes]]:
    """Files of one folder: their names and what they hold."""
    files = []
    for number in range(_AT_ONCE):
        data = draw(st.one_of(one_of(ENCODED).flatmap(spoilt), one_of(ENCODED).flatmap(spoilt), headers()))
        name = draw(one_of(TEXTS)) if draw(st.booleans()) else ""
        name = "".join(c for c in name if c not in "/\0" and not "\ud800" <= c <= "\udfff")[:60].strip(".")
        files.append(
            (f"{number}{name}.{draw(st.sampled_from(['png', 'jpg', 'tif', 'ppm', 'gif', '']))}", data)
        )
    return files


def attempt(place: Place, files: list[tuple[str, bytes]]) -> None:
    """Has a run look at a folder of images; what it takes can be decoded, and what it does not is listed."""
    folder = place.work / "photos"
    folder.mkdir()
    for name, data in files:
        (folder / name).write_bytes(data)
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "out.png").symlink_to(place.secret_image)
    os.mkfifo(folder / "pipe.png")
    row = {"type": "human_test", "question": "q", "answer": "1", "image": "good.png"}
    (place.work / "rows.jsonl").write_text(json.dumps(row) + "\n")
    place.attempt(
        "run",
        "--method",
        "stic_stage1",
        "--images",
        "photos",
        "--benchmarks",
        "chartqa",
        "-o",
        "rows.chartqa=rows.jsonl",
        "-o",
        "stage1.images=4",
        "--dry-run",
        tries=len(files),
    )
    taken, left = scan_images(folder)
    assert not any((folder / image.source).samefile(place.secret_image) for image in taken)
    for image in taken:
        assert image.load().mode == "RGB"
        json.dumps(image.source, ensure_ascii=False).encode()
    assert len(taken) + len(left) == len(files) + 3
    for _, data in files:
        with suppress(ImageError):
            load_bytes(data, "x")
    shutil.rmtree(folder)


def test_images(place: Place) -> None:
    explore("images", place, folders(), attempt, few(4))


@pytest.mark.campaign
def test_many_images(place: Place) -> None:
    explore("images", place, folders(), attempt, many(400))
