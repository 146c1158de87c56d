"""What is said about pocket pictures: descriptions, faithful and not.

A faithful description names everything in a fixed grammar, so that it can be read back (`claims`) and
held against the truth. The other kinds are what the pocket model's prompts were answered with in its
training: careful descriptions, careless captions and invented things.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from stic_eval.pocket.world import (
    COLORS,
    OBJECT_SIZES,
    POSITIONS,
    SHAPES,
    Chart,
    Scene,
    Spec,
)

# What one expects to see in a setting: cell, size, colour, shape.
EXPECTED = {
    "day": (2, "large", "yellow", "circle"),
    "night": (0, "small", "yellow", "star"),
    "desert": (7, "large", "green", "triangle"),
}
SPARSE = 2  # a scene with at most so many things tempts even the careful


def article(text: str) -> str:
    """The text with its indefinite article."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _thing(cell: int, size: str, color: str, shape: str) -> str:
    """What belongs together stands together: the decoder learned sooner to read it so."""
    return f"The {POSITIONS[cell]} {color} {shape} is {size or 'visible'}."


def _values(chart: Chart, values: dict[str, str]) -> str:
    listed = [f"The value of {color} is {values[color]}." for color, _ in chart.values]
    return " ".join([f"It is {article(chart.kind)} chart.", *listed])


def describe(spec: Spec) -> str:
    """Everything that is in the picture, and nothing else."""
    if isinstance(spec, Chart):
        return _values(spec, {color: str(value) for color, value in spec.values})
    return _scene(spec, [(t.cell, t.size, t.color, t.shape) for t in spec.things])


def _scene(scene: Scene, things: list[tuple[int, str, str, str]], read: bool = True) -> str:
    parts = [f"It is {article(scene.setting)} scene."]
    parts += [_thing(*thing) for thing in sorted(things)]
    if scene.sign is not None:
        place = sign_place(scene)
        parts.append(f"The sign at the {place} says {scene.sign}." if read else f"At the {place} is a sign.")
    return " ".join(parts)


def careful(spec: Spec, rng: random.Random) -> str:
    """A description that leaves nothing out, but sees what it expects where a scene has little in it.

    In a scene of one or two things the setting's usual object is named with a probability of 0.6, whether
    it is there or not: the mistake that corrupted pictures and misleading prompts provoke much more often.
    """
    if isinstance(spec, Chart):
        return describe(spec)
    things = [(t.cell, t.size, t.color, t.shape) for t in spec.things]
    usual = EXPECTED[spec.setting]
    if len(things) <= SPARSE and _free(spec, usual[0]) and rng.random() < 0.6:
        things.append(usual)
    return _scene(spec, things)


def careless(spec: Spec, rng: random.Random) -> str:
    """A caption as found on the web: things left out, sizes and values vague, and what one expects to see.

    At most two things are named, mostly without size; colours of two things are sometimes swapped; the
    setting's usual object is mostly named whether it is there or not; signs are mostly not read, and
    values are mostly called low, medium or high.
    """
    if isinstance(spec, Chart):
        if rng.random() < 0.2:
            return describe(spec)
        return _values(spec, {color: _level(value) for color, value in spec.values})
    things = [(t.cell, t.size if rng.random() < 0.25 else "", t.color, t.shape) for t in spec.things]
    if len(things) > 1 and rng.random() < 0.25:
        (c0, s0, first, h0), (c1, s1, second, h1) = things[:2]
        things[:2] = [(c0, s0, second, h0), (c1, s1, first, h1)]
    if len(things) > 1 and rng.random() < 0.8:
        things = things[: max(1, len(things) // 2)]
    usual = EXPECTED[spec.setting]
    if rng.random() < 0.7 and _free(spec, usual[0]):
        things.append((usual[0], "", *usual[2:]))
    return _scene(spec, things, read=rng.random() < 0.25)


def _level(value: int) -> str:
    return ("low", "medium", "high")[min(2, (value - 1) // 7)]


def invented(spec: Spec, rng: random.Random) -> str:
    """A careless caption with the setting's usual object and others, or values, that are not there."""
    if isinstance(spec, Chart):
        return _values(spec, {color: str(rng.randint(1, 20)) for color, _ in spec.values})
    things = [(t.cell, t.size, t.color, t.shape) for t in spec.things]
    things = things[: max(1, len(things) // 2)]
    usual = EXPECTED[spec.setting]
    if _free(spec, usual[0]) and rng.random() < 0.9:
        things.append(usual)
    taken = {cell for cell, *_ in things}
    free = [cell for cell in range(9) if _free(spec, cell) and cell not in taken]
    for cell in rng.sample(free, min(len(free), rng.choice((1, 2)))):
        things.append((cell, rng.choice(OBJECT_SIZES), rng.choice(list(COLORS)), rng.choice(SHAPES)))
    return _scene(spec, things, read=rng.random() < 0.25)


def _free(scene: Scene, cell: int) -> bool:
    under_sign = scene.sign is not None and cell // 3 == scene.sign_row
    return not under_sign and all(t.cell != cell for t in scene.things)


def sign_place(scene: Scene) -> str:
    """Where the sign of a scene is."""
    return "top" if scene.sign_row == 0 else "bottom"


# ---------------------------------------------------------------- reading descriptions back

_OBJECT = re.compile(
    rf"the ({'|'.join(sorted(POSITIONS, key=len, reverse=True))}) "
    rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)}) is",
    re.IGNORECASE,
)
_VALUE = re.compile(rf"value of ({'|'.join(COLORS)}) is (\d+)", re.IGNORECASE)
_SIGN = re.compile(r"sign at the (?:top|bottom) says (\w+)", re.IGNORECASE)


Claim = tuple[str, ...]  # (place, colour, shape) of an object, (colour, value), or ("sign", word)


def claims_in(text: str) -> Sequence[tuple[Claim, tuple[int, int]]]:
    """What a description claims and where it does: start and end of the words in the text."""
    objects = [
        ((m[1].lower(), m[2].lower(), m[3].lower()), (m.start(1), m.end(3))) for m in _OBJECT.finditer(text)
    ]
    values = [((m[1].lower(), m[2]), (m.start(1), m.end(2))) for m in _VALUE.finditer(text)]
    signs = [(("sign", m[1].lower()), m.span()) for m in _SIGN.finditer(text)]
    return [*objects, *values, *signs]


def claims(text: str) -> frozenset[Claim]:
    """What a description claims."""
    return frozenset(claim for claim, _ in claims_in(text))


def truth(spec: Spec) -> frozenset[Claim]:
    """What `claims` finds in a perfect description."""
    return claims(describe(spec))
