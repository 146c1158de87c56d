"""The pocket world: small pictures drawn from a description that is known exactly.

A picture is either a *scene* (up to four coloured shapes on a 3 x 3 grid, sometimes a sign with a
made-up word, in one of three settings) or a *chart* (bars, a line or a pie with three coloured values).
Pictures are 72 x 72 px, so that one CLIP patch of 24 px covers one grid cell, and two letters of a sign.

Splits never share a picture: the content hash of a spec (everything but pixel jitter) decides
which split it may appear in, and every split draws from its own range of seeds as well. They share no
word on a sign either: a word's hash decides in the same way.

Signs are hard to read on purpose: letters are 5 px high (as x is) and, of 255 grey levels, CONTRAST darker
than their board, both under even grain of +-GRAIN. A person reads them at three times their size.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFont

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
MAX_VALUE = 20
SLOTS = 6  # places for letters across a sign, two to a patch
CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
LETTERS = CONSONANTS + VOWELS
# How made-up words are built (c: consonant, v: vowel), and how often: the shortest are few.
_PATTERNS = {"cvc": 0.2, "cvcv": 0.4, "cvcvc": 0.4}
# Real words of these patterns that text about pictures may hold. They are read as words, made-up ones
# letter by letter.
_REAL = frozenset(
    (  # noqa: SIM905
        "bad bar base bed big bus but data date did dig digit dog dot far file fit five for fun game gas get "
        "give given gun kid lake late later led let level line lines live log made make male man map mat men "
        "metal meter min mine minus mode model more move name names nan net never nine none nor not "
        "note novel nut page pages pale pan paper pen per pet pin pole pot put rare rate rated red rid rise "
        "river robot roles rose rule rules run sad safe sale same sat save saved set seven side sides sit "
        "site size sizes solid some son sum sun sure tag take taken ten tiger time timer times tin tip token "
        "tone top total tube val vase visit vote zero zip zone"
    ).split()
)

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

# How signs look, in grey levels of 0 to 255.
BOARD, CONTRAST, GRAIN = 200, 70, 22
_GRAIN = [round(2 * GRAIN * level / 255) for level in range(256)]


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
    """Three coloured values from 1 to 20 (a pie's add up to 20), left to right or clockwise from the top."""

    kind: str
    values: tuple[tuple[str, int], ...]


Spec = Scene | Chart


def spec_residue(spec: Spec) -> int:
    """The residue (0 to 15) of a spec's content hash, which decides the split it belongs to."""
    return hashlib.sha256(repr(spec).encode()).digest()[0] % 16


def spec_part(spec: Spec, parts: int) -> int:
    """Which of a split's `parts` (0 and up) a spec belongs to, by another byte of its hash."""
    return hashlib.sha256(repr(spec).encode()).digest()[1] % parts


def word_residue(word: str) -> int:
    """The residue (0 to 15) of a made-up word's hash, which decides the split it belongs to."""
    return hashlib.sha256(word.encode()).digest()[0] % 16


def made_up_word(rng: random.Random, split: Split = "train") -> str:
    """Draws a pronounceable word of 3 to 5 letters that only this split's signs carry."""
    residues = _SPLITS[split][0]
    (pattern,) = rng.choices(list(_PATTERNS), list(_PATTERNS.values()))
    while True:
        word = "".join(rng.choice(CONSONANTS if kind == "c" else VOWELS) for kind in pattern)
        if word not in _REAL and word_residue(word) in residues:
            return word


def split_seeds(split: Split) -> range:
    """The seeds a split may use."""
    first = _SPLITS[split][1]
    return range(first, first + SEEDS_PER_SPLIT)


def sample_scene(
    rng: random.Random, *, sign: bool | None = None, n_things: int | None = None, split: Split = "train"
) -> Scene:
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
    word = made_up_word(rng, split) if has_sign else None
    return Scene(rng.choice(list(SETTINGS)), things, word, sign_row if has_sign else 2)


def sample_chart(rng: random.Random, *, kind: str | None = None) -> Chart:
    """Draws a chart whose three values differ, so that highest and lowest are unique."""
    kind = kind or rng.choice(CHARTS)
    colors = rng.sample(list(COLORS), 3)
    while True:
        values = [rng.randint(1, MAX_VALUE) for _ in range(3)]
        if len(set(values)) == 3 and (kind != "pie" or sum(values) == MAX_VALUE):
            return Chart(kind, tuple(zip(colors, values, strict=True)))


def sample_spec(rng: random.Random, split: Split = "train") -> Spec:
    """Draws a picture of any kind: 7 in 10 are scenes."""
    return sample_scene(rng, split=split) if rng.random() < 0.7 else sample_chart(rng)


def draw_spec(split: Split, seed: int, kind: str = "any", part: tuple[int, int] = (0, 1)) -> Spec:
    """The spec that belongs to a split's seed.

    Args:
        split: Which split; its specs have hashes that no other split's have.
        seed: Offset in the split's seed range.
        kind: `any`, `scene`, `sign` (a scene with a sign), `many` (a scene of 3 or 4 things),
            `chart`, `benchmark-like` (a scene with a sign, or as often a chart), or a chart kind.
        part: (index, number) of parts of the split, which share no spec either.
    """
    residues, first = _SPLITS[split]
    if not 0 <= seed < SEEDS_PER_SPLIT:
        raise ValueError(f"seed {seed} is outside the split's range of {SEEDS_PER_SPLIT}")
    rng = random.Random(f"{first + seed}/{kind}/{part}")
    while True:
        spec: Spec
        if kind == "any":
            spec = sample_spec(rng, split)
        elif kind in ("scene", "sign", "many") or (kind == "benchmark-like" and rng.random() < 0.5):
            n = rng.choice((3, 4)) if kind == "many" else None
            sign = True if kind in ("sign", "benchmark-like") else None
            spec = sample_scene(rng, sign=sign, n_things=n, split=split)
        elif kind == "benchmark-like":
            spec = sample_chart(rng)
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


@lru_cache(maxsize=len(LETTERS))
def _glyph(letter: str) -> Image.Image:
    """A letter as a mask of 6 x 11 px, 255 where it is inked."""
    mask = Image.new("L", (6, 11), 0)
    ImageDraw.Draw(mask).text((0, 0), letter, fill=255, font=_font())
    return mask


def first_slot(word: str) -> int:
    """Which of the sign's slots a word begins at."""
    return (SLOTS - len(word)) // 2


def _draw_sign(img: Image.Image, word: str, row: int, rng: random.Random) -> None:
    board = Image.new("L", (SIZE - 2, 18), BOARD)
    dx, dy = rng.randint(-1, 1), rng.randint(-1, 1)
    for slot, letter in enumerate(word, start=first_slot(word)):
        # In the middle of its slot of 12 x 18 px, on a board that begins 1 px from the left edge.
        board.paste(BOARD - CONTRAST, (slot * SIZE // SLOTS + 2 + dx, 3 + dy), _glyph(letter))
    grain = Image.frombytes("L", board.size, rng.randbytes(board.width * board.height)).point(_GRAIN)
    img.paste(ImageChops.add(board, grain, offset=-GRAIN), (1, row * CELL + 3))


def _draw_chart(d: ImageDraw.ImageDraw, chart: Chart) -> None:
    """Draws a chart at three times its size."""
    side = 3 * SIZE
    if chart.kind == "pie":
        start = -90.0
        for color, value in chart.values:
            end = start + 360 / MAX_VALUE * value
            d.pieslice((12, 12, side - 13, side - 13), start, end, fill=COLORS[color])
            start = end
        return
    unit, floor = 10, side - 9
    for level in range(5, MAX_VALUE + 1, 5):
        y = floor - unit * level
        d.rectangle((0, y - 1, side, y + 1), fill=(214, 214, 214))
    points = []
    for i, (color, value) in enumerate(chart.values):
        cx, y = 3 * (i * CELL + CELL // 2), floor - unit * value
        if chart.kind == "bar":
            d.rectangle((cx - 24, y, cx + 24, floor), fill=COLORS[color])
        points.append((cx, y, COLORS[color]))
    if chart.kind == "line":
        d.line([(x, y) for x, y, _ in points], fill=(90, 90, 90), width=5)
        for x, y, fill in points:
            d.ellipse((x - 12, y - 12, x + 12, y + 12), fill=fill)
    d.rectangle((0, floor - 1, side, floor + 1), fill=(60, 60, 60))


def draw(spec: Spec, seed: int) -> Image.Image:
    """Draws a spec as a 72 x 72 RGB picture; the seed moves things by a pixel or two, and grains signs."""
    rng = random.Random(f"jitter/{seed}")
    # Drawn at three times the size and scaled down, for smooth edges.
    ground = (255, 255, 255) if isinstance(spec, Chart) else SETTINGS[spec.setting]
    big = Image.new("RGB", (SIZE * 3, SIZE * 3), ground)
    d = ImageDraw.Draw(big)
    if isinstance(spec, Chart):
        _draw_chart(d, spec)
        return big.resize((SIZE, SIZE), Image.Resampling.BOX)
    for thing in spec.things:
        cx = (thing.cell % 3) * CELL + CELL / 2 + rng.uniform(-1.5, 1.5)
        cy = (thing.cell // 3) * CELL + CELL / 2 + rng.uniform(-1.5, 1.5)
        r = rng.uniform(8.8, 10.0) if thing.size == "large" else rng.uniform(4.8, 5.8)
        _draw_shape(d, thing.shape, cx * 3, cy * 3, r * 3, COLORS[thing.color])
    img = big.resize((SIZE, SIZE), Image.Resampling.BOX)
    if spec.sign is not None:
        _draw_sign(img, spec.sign, spec.sign_row, rng)
    return img
