"""Pictures that are spoilt on purpose, and those that a scan leaves out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stic_eval.image_sources import scan_images
from stic_eval.images import CORRUPTIONS, corrupt, ref_from_pil
from stic_eval.types import ImageRef


def grey(level: int, side: int = 200) -> ImageRef:
    return ref_from_pil(Image.new("RGB", (side, side), (level,) * 3), "grey")


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_kind_gives_an_rgb_picture_named_by_kind_and_seed(kind: str) -> None:
    draw = np.random.default_rng(0)
    clean = ref_from_pil(Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)), "noise")
    spoilt = corrupt(clean, kind, 1)
    assert spoilt.load().mode == "RGB"
    assert spoilt.load().tobytes() == corrupt(clean, kind, 1).load().tobytes()
    assert spoilt.load().tobytes() != clean.load().tobytes()
    names = {spoilt.sha256, corrupt(clean, kind, 2).sha256, clean.sha256}
    assert len(names) == (3 if kind in {"jitter", "noise", "diffusion", "crop"} else 2)


def test_diffusion_noise_follows_its_formula() -> None:
    step = 50  # early enough that no value is cut off
    kept = math.prod(1 - (1e-4 + (0.02 - 1e-4) * t / 999) for t in range(step))
    for level in (100, 155):
        clean = level / 127.5 - 1
        values = np.asarray(corrupt(grey(level), "diffusion", step=step).load()) / 127.5 - 1
        assert values.mean() == pytest.approx(math.sqrt(kept) * clean, abs=0.003)
        assert values.std() == pytest.approx(math.sqrt(1 - kept), rel=0.02)


def test_diffusion_noise_goes_from_the_picture_to_noise_alone() -> None:
    first = np.asarray(corrupt(grey(200), "diffusion", step=1).load()).astype(int)
    assert abs(first - 200).max() <= 8  # a deviation of 0.01 of [-1, 1]
    black, white = (np.asarray(corrupt(grey(level), "diffusion", step=1000).load()) for level in (0, 255))
    assert abs(black.mean() - white.mean()) < 3


def test_a_strip_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (200, 1), "red").save(tmp_path / "a_long.png")
    Image.new("RGB", (201, 1), "red").save(tmp_path / "b_wide.png")
    Image.new("RGB", (2, 403), "red").save(tmp_path / "c_high.png")
    images, skipped = scan_images(tmp_path)
    assert [image.source for image in images] == ["a_long.png"]
    assert [(s.source, s.reason) for s in skipped] == [
        ("b_wide.png", "201 x 1: sides differ by more than 200 times"),
        ("c_high.png", "2 x 403: sides differ by more than 200 times"),
    ]
