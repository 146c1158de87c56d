"""The pocket world: small pictures drawn from a description that is known exactly.

A picture is either a *scene* (up to four coloured shapes on a 3 x 3 grid, sometimes a sign with a
word, in one of three settings) or a *chart* (bars, a line or a pie with three coloured values).
Pictures are 72 x 72 px, so that one CLIP patch of 24 px covers one grid cell.

Splits never share a picture: the content hash of a spec (everything but pixel jitter) decides
which split it may appear in, and every split draws from its own range of seeds as well.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

SIZE = 72
CELL = 24
POSITIONS = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 39, 40),
    "green": (34, 150, 60),
    "blue": (40, 90, 220),
    "yellow": (240, 205, 20),
    "purple": (135, 55, 170),
    "orange": (250, 130, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
OBJECT_SIZES = ("small", "large")
SETTINGS: dict[str, tuple[int, int, int]] = {
    "day": (196, 226, 250),
    "night": (28, 30, 58),
    "desert": (238, 222, 188),
}
CHARTS = ("bar", "line", "pie")
WORDS = (
    "cafe", "bank", "zoo", "park", "shop", "taxi", "bus", "hotel", "pizza", "music", "stop", "exit",
    "open", "sale", "farm", "gym", "school", "museum", "beach", "lake", "books", "toys", "shoes", "fish",
    "milk", "bread", "tea", "juice", "garden", "bridge", "tower", "river",
)  # fmt: skip

Split = Literal["train", "val", "images", "sft", "test"]
# Residues (of 16) of a spec's hash, and first seed, of each split. Both are disjoint.
_SPLITS: dict[Split, tuple[range, int]] = {
    "train": (range(0, 11), 0),
    "val": (range(11, 12), 4_000_000_000),
    "images": (range(12, 13), 1_000_000_000),
    "sft": (range(13, 14), 2_000_000_000),
    "test": (range(14, 16), 3_000_000_000),
}
SEEDS_PER_SPLIT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in a grid cell (0 to 8, reading order)."""

    cell: int
    shape: str
    color: str
    size: str

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Shapes in reading order, a setting, and perhaps a sign across the top or bottom row."""

    setting: str
    things: tuple[Thing, ...]
    sign: str | None = None
    sign_row: int = 2


@dataclass(frozen=True, slots=True)
class Chart:
    """Three coloured values from 1 to 9 (a pie's add up to 10), left to right or clockwise from the top."""

    kind: str
    values: tuple[tuple[str, int], ...]


Spec = Scene | Chart


def spec_residue(spec: Spec) -> int:
    """The residue (0 to 15) of a spec's content hash, which decides the split it belongs to."""
    return hashlib.sha256(repr(spec).encode()).digest()[0] % 16


def spec_part(spec: Spec, parts: int) -> int:
    """Which of a split's `parts` (0 and up) a spec belongs to, by another byte of its hash."""
    return hashlib.sha256(repr(spec).encode()).digest()[1] % parts


def split_seeds(split: Split) -> range:
    """The seeds a split may use."""
    first = _SPLITS[split][1]
    return range(first, first + SEEDS_PER_SPLIT)


def sample_scene(rng: random.Random, *, sign: bool | None = None, n_things: int | None = None) -> Scene:
    """Draws a scene; no two things share both colour and shape, so every thing has a unique name."""
    has_sign = rng.random() < 0.3 if sign is None else sign
    sign_row = rng.choice((0, 2))
    cells = [c for c in range(9) if not (has_sign and c // 3 == sign_row)]
    n = n_things if n_things is not None else rng.choice((1, 2, 2, 3, 3, 4))
    names = rng.sample([(c, s) for c in COLORS for s in SHAPES], n)
    things = tuple(
        Thing(cell, shape, color, rng.choice(OBJECT_SIZES))
        for cell, (color, shape) in zip(sorted(rng.sample(cells, n)), names, strict=True)
    )
    word = rng.choice(WORDS) if has_sign else None
    return Scene(rng.choice(list(SETTINGS)), things, word, sign_row if has_sign else 2)


def sample_chart(rng: random.Random, *, kind: str | None = None) -> Chart:
    """Draws a chart whose three values differ, so that highest and lowest are unique."""
    kind = kind or rng.choice(CHARTS)
    colors = rng.sample(list(COLORS), 3)
    while True:
        values = [rng.randint(1, 9) for _ in range(3)]
        if len(set(values)) == 3 and (kind != "pie" or sum(values) == 10):
            return Chart(kind, tuple(zip(colors, values, strict=True)))


def sample_spec(rng: random.Random) -> Spec:
    """Draws a picture of any kind: 7 in 10 are scenes."""
    return sample_scene(rng) if rng.random() < 0.7 else sample_chart(rng)


def draw_spec(split: Split, seed: int, kind: str = "any", part: tuple[int, int] = (0, 1)) -> Spec:
    """The spec that belongs to a split's seed.

    Args:
        split: Which split; its specs have hashes that no other split's have.
        seed: Offset in the split's seed range.
        kind: `any`, `scene`, `sign` (a scene with a sign), `many` (a scene of 3 or 4 things),
            `chart`, or a chart kind.
        part: (index, number) of parts of the split, which share no spec either.
    """
    residues, first = _SPLITS[split]
    if not 0 <= seed < SEEDS_PER_SPLIT:
        raise ValueError(f"seed {seed} is outside the split's range of {SEEDS_PER_SPLIT}")
    rng = random.Random(f"{first + seed}/{kind}/{part}")
    while True:
        spec: Spec
        if kind == "any":
            spec = sample_spec(rng)
        elif kind in ("scene", "sign", "many"):
            n = rng.choice((3, 4)) if kind == "many" else None
            spec = sample_scene(rng, sign=True if kind == "sign" else None, n_things=n)
        else:
            spec = sample_chart(rng, kind=None if kind == "chart" else kind)
        if spec_residue(spec) in residues and spec_part(spec, part[1]) == part[0]:
            return spec


# --- drawing -------------------------------------------------------------------------------------


def _star(cx: float, cy: float, r: float) -> list[tuple[float, float]]:
    points = []
    for i in range(10):
        radius = r if i % 2 == 0 else r * 0.42
        angle = -math.pi / 2 + i * math.pi / 5
        points.append((cx + radius * math.cos(angle), cy + radius * math.sin(angle)))
    return points


def _draw_shape(
    d: ImageDraw.ImageDraw, shape: str, cx: float, cy: float, r: float, fill: tuple[int, int, int]
) -> None:
    box = (cx - r, cy - r, cx + r, cy + r)
    if shape == "circle":
        d.ellipse(box, fill=fill)
    elif shape == "square":
        d.rectangle((cx - r * 0.88, cy - r * 0.88, cx + r * 0.88, cy + r * 0.88), fill=fill)
    elif shape == "triangle":
        d.polygon([(cx, cy - r), (cx + r, cy + r * 0.85), (cx - r, cy + r * 0.85)], fill=fill)
    elif shape == "star":
        d.polygon(_star(cx, cy, r * 1.1), fill=fill)
    elif shape == "cross":
        t = r * 0.36
        d.rectangle((cx - r, cy - t, cx + r, cy + t), fill=fill)
        d.rectangle((cx - t, cy - r, cx + t, cy + r), fill=fill)
    elif shape == "ring":
        d.ellipse(box, outline=fill, width=max(2, round(r * 0.38)))
    else:
        raise ValueError(f"unknown shape {shape!r}")


@lru_cache(maxsize=1)
def _font() -> ImageFont.ImageFont:
    # The bitmap font inside Pillow: no font file, no FreeType, the same pixels everywhere.
    return ImageFont.load_default_imagefont()


def _draw_sign(img: Image.Image, word: str, row: int, rng: random.Random) -> None:
    d = ImageDraw.Draw(img)
    top = row * CELL + 3 + rng.randint(-1, 1)
    d.rectangle((3, top, SIZE - 4, top + 17), fill=(250, 250, 245), outline=(60, 60, 60))
    width = d.textlength(word, font=_font())
    x = (SIZE - width) / 2 + rng.randint(-2, 2)
    d.text((round(x), top + 3), word, fill=(20, 20, 20), font=_font())


def _draw_chart(d: ImageDraw.ImageDraw, chart: Chart) -> None:
    unit = 7
    if chart.kind == "pie":
        start = -90.0
        for color, value in chart.values:
            end = start + 36.0 * value
            d.pieslice((6, 6, SIZE - 7, SIZE - 7), start, end, fill=COLORS[color], outline=(255, 255, 255))
            start = end
        return
    for level in range(1, 10, 2):
        y = SIZE - 3 - unit * level
        d.line((0, y, SIZE, y), fill=(226, 226, 226))
    points = []
    for i, (color, value) in enumerate(chart.values):
        cx, y = i * CELL + CELL // 2, SIZE - 3 - unit * value
        if chart.kind == "bar":
            d.rectangle((cx - 8, y, cx + 8, SIZE - 3), fill=COLORS[color])
        points.append((cx, y, COLORS[color]))
    if chart.kind == "line":
        d.line([(x, y) for x, y, _ in points], fill=(90, 90, 90), width=2)
        for x, y, fill in points:
            d.ellipse((x - 4, y - 4, x + 4, y + 4), fill=fill)
    d.line((0, SIZE - 3, SIZE, SIZE - 3), fill=(60, 60, 60))


def draw(spec: Spec, seed: int) -> Image.Image:
    """Draws a spec as a 72 x 72 RGB picture; the seed only moves things by a pixel or two."""
    rng = random.Random(f"jitter/{seed}")
    if isinstance(spec, Chart):
        img = Image.new("RGB", (SIZE, SIZE), (255, 255, 255))
        _draw_chart(ImageDraw.Draw(img), spec)
        return img
    # Drawn at three times the size and scaled down, for smooth edges.
    big = Image.new("RGB", (SIZE * 3, SIZE * 3), SETTINGS[spec.setting])
    d = ImageDraw.Draw(big)
    for thing in spec.things:
        cx = (thing.cell % 3) * CELL + CELL / 2 + rng.uniform(-1.5, 1.5)
        cy = (thing.cell // 3) * CELL + CELL / 2 + rng.uniform(-1.5, 1.5)
        r = rng.uniform(8.8, 10.0) if thing.size == "large" else rng.uniform(4.8, 5.8)
        _draw_shape(d, thing.shape, cx * 3, cy * 3, r * 3, COLORS[thing.color])
    img = big.resize((SIZE, SIZE), Image.Resampling.BOX)
    if spec.sign is not None:
        _draw_sign(img, spec.sign, spec.sign_row, rng)
    return img
