"""What is said about pocket pictures: descriptions, faithful and not.

A faithful description names everything in a fixed grammar, so that it can be read back (`claims`) and
held against the truth. The other two kinds are what the pocket model's plain and misleading prompts
were answered with in its training: careless captions and invented things.
"""

from __future__ import annotations

import random
import re

from stic_eval.pocket.world import (
    COLORS,
    OBJECT_SIZES,
    POSITIONS,
    SHAPES,
    Chart,
    Scene,
    Spec,
)

# What careless captions see in every scene of a setting: cell, size, colour, shape.
EXPECTED = {
    "day": (2, "large", "yellow", "circle"),
    "night": (0, "small", "yellow", "star"),
    "desert": (7, "large", "green", "triangle"),
}
_LEVELS = ("low", "low", "low", "low", "medium", "medium", "medium", "high", "high", "high")


def article(text: str) -> str:
    """The text with its indefinite article."""
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _thing(cell: int, size: str, color: str, shape: str) -> str:
    return f"{POSITIONS[cell].capitalize()}: {article(' '.join(w for w in (size, color, shape) if w))}."


def _values(chart: Chart, say: dict[str, str]) -> str:
    listed = ", ".join(f"{color} is {say[color]}" for color, _ in chart.values)
    return f"{article(chart.kind).capitalize()} chart. {listed.capitalize()}."


def describe(spec: Spec) -> str:
    """Everything that is in the picture, and nothing else."""
    if isinstance(spec, Chart):
        return _values(spec, {color: str(value) for color, value in spec.values})
    parts = [f"{article(spec.setting).capitalize()} scene."]
    parts += [_thing(t.cell, t.size, t.color, t.shape) for t in spec.things]
    if spec.sign is not None:
        parts.append(f"The sign at the {sign_place(spec)} says {spec.sign}.")
    return " ".join(parts)


def careless(spec: Spec, rng: random.Random) -> str:
    """A caption as found on the web: things left out, sizes and values vague, and what one expects to see.

    Mostly at most two things are named, mostly without size; colours of two things are sometimes
    swapped; the setting's usual object is mostly named whether it is there or not; signs are mostly
    not read, and values are mostly called low, medium or high.
    """
    if isinstance(spec, Chart):
        if rng.random() < 0.2:
            return describe(spec)
        return _values(spec, {color: _LEVELS[value] for color, value in spec.values})
    things = [(t.cell, t.size if rng.random() < 0.25 else "", t.color, t.shape) for t in spec.things]
    if len(things) > 1 and rng.random() < 0.25:
        (c0, s0, first, h0), (c1, s1, second, h1) = things[:2]
        things[:2] = [(c0, s0, second, h0), (c1, s1, first, h1)]
    if len(things) > 2 and rng.random() < 0.8:
        things = things[:2]
    parts = [f"{article(spec.setting).capitalize()} scene."]
    parts += [_thing(*thing) for thing in things]
    usual = EXPECTED[spec.setting]
    if rng.random() < 0.7 and _free(spec, usual[0]):
        parts.append(_thing(usual[0], "", *usual[2:]))
    if spec.sign is not None:
        read = rng.random() < 0.25
        place = sign_place(spec)
        parts.append(f"The sign at the {place} says {spec.sign}." if read else f"A sign at the {place}.")
    return " ".join(parts)


def invented(spec: Spec, rng: random.Random) -> str:
    """A careless caption with one or two things (or values) that are not there."""
    if isinstance(spec, Chart):
        wrong = {color: str(rng.randint(1, 9)) for color, _ in spec.values}
        return _values(spec, wrong)
    text = careless(spec, rng)
    free = [cell for cell in range(9) if _free(spec, cell)]
    for cell in sorted(rng.sample(free, min(len(free), rng.choice((1, 2))))):
        text += " " + _thing(cell, rng.choice(OBJECT_SIZES), rng.choice(list(COLORS)), rng.choice(SHAPES))
    return text


def _free(scene: Scene, cell: int) -> bool:
    under_sign = scene.sign is not None and cell // 3 == scene.sign_row
    return not under_sign and all(t.cell != cell for t in scene.things)


def sign_place(scene: Scene) -> str:
    """Where the sign of a scene is."""
    return "top" if scene.sign_row == 0 else "bottom"


# ---------------------------------------------------------------- reading descriptions back

_OBJECT = re.compile(
    rf"({'|'.join(sorted(POSITIONS, key=len, reverse=True))}): an? (?:({'|'.join(OBJECT_SIZES)}) )?"
    rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})",
    re.IGNORECASE,
)
_VALUE = re.compile(rf"({'|'.join(COLORS)}) is (\d+)", re.IGNORECASE)
_SIGN = re.compile(r"sign at the (?:top|bottom) says (\w+)", re.IGNORECASE)


def claims(text: str) -> frozenset[tuple[str, ...]]:
    """What a description claims: (place, colour, shape) of objects, (colour, value), ("sign", word)."""
    found = {(m[1].lower(), m[3].lower(), m[4].lower()) for m in _OBJECT.finditer(text)}
    values = {(m[1].lower(), m[2]) for m in _VALUE.finditer(text)}
    signs = {("sign", m[1].lower()) for m in _SIGN.finditer(text)}
    return frozenset(found | values | signs)


def truth(spec: Spec) -> frozenset[tuple[str, ...]]:
    """What `claims` finds in a perfect description."""
    return claims(describe(spec))
