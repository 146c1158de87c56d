"""Exercises in words alone, for what a pretrained decoder would bring: options, rules, small sums."""

from __future__ import annotations

import random
from collections.abc import Callable

from stic_eval.pocket.language import describe
from stic_eval.pocket.tasks import FEELINGS, MATERIALS
from stic_eval.pocket.world import COLORS, POSITIONS, SHAPES, made_up_word, sample_scene

_LETTER = "Answer with the option's letter from the given choices directly."
WORDS = tuple(made_up_word(random.Random(n)) for n in range(32))
_NUMBERS = tuple(str(n) for n in range(28))


def _options(rng: random.Random, right: str, pool: tuple[str, ...]) -> tuple[str, str]:
    """Lettered options as the benchmarks write them, and the letter of the right one."""
    wrong = [x for x in pool if x != right]
    found = [right, *rng.sample(wrong, min(3, len(wrong)))]
    rng.shuffle(found)
    lines = [f"{letter}. {text}" for letter, text in zip("ABCD", found, strict=False)]
    return "\n".join([*lines, _LETTER]), "ABCD"[found.index(right)]


def _pick(rng: random.Random) -> tuple[str, str]:
    names = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
    pool = rng.choice((tuple(COLORS), SHAPES, POSITIONS, names, MATERIALS, FEELINGS, _NUMBERS))
    right = rng.choice(pool)
    options, letter = _options(rng, right, pool)
    return f"Which option is {right}?\n{options}", letter


def _rule(rng: random.Random) -> tuple[str, str]:
    by_shape = rng.random() < 0.5
    keys = rng.sample(SHAPES if by_shape else list(COLORS), rng.choice((3, 4)))
    values = rng.sample(MATERIALS if by_shape else FEELINGS, len(keys))
    says = "Each {} is made of {}." if by_shape else "All {} objects are {}."
    hint = " ".join(says.format(key, value) for key, value in zip(keys, values, strict=True))
    key, value = rng.choice(list(zip(keys, values, strict=True)))
    ask = f"What is the {key} made of?" if by_shape else f"How does the {key} object feel?"
    if rng.random() < 0.4:
        return f"Context: {hint}\n{ask}", value
    options, letter = _options(rng, value, MATERIALS if by_shape else FEELINGS)
    return f"Context: {hint}\n{ask}\n{options}", letter


def _sum(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    low, high = sorted((a, b))
    return rng.choice(
        (
            (f"What is the sum of {a} and {b}?", str(a + b)),
            (f"How much higher is {high} than {low}?", str(high - low)),
            (f"What is the average of {a} and {b}?", f"{(a + b) / 2:.1f}"),
        )
    )


# ---------------------------------------------------------------- dense ones: many answers in one turn


def _copy(rng: random.Random) -> tuple[str, str]:
    words = rng.sample(WORDS + MATERIALS + FEELINGS + SHAPES + tuple(COLORS), rng.randint(4, 14))
    return f"Repeat: {' '.join(words)}", " ".join(words)


def _values(rng: random.Random) -> tuple[str, str]:
    keys = rng.sample(rng.choice((list(COLORS), SHAPES, WORDS)), rng.randint(3, 6))
    values = {key: str(rng.randint(1, 9)) for key in keys}
    listed = ", ".join(f"{key} is {value}" for key, value in values.items())
    answer = ", ".join(f"{key} is {values[key]}" for key in rng.choices(keys, k=14))
    return f"Context: {listed}.\nSay values.", f"{answer}."


def _letters(rng: random.Random) -> tuple[str, str]:
    names = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
    pool = rng.choice((tuple(COLORS), SHAPES, POSITIONS, names, MATERIALS, FEELINGS, _NUMBERS))
    found = rng.sample(pool, 4)
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", found, strict=True))
    asked = dict(zip(found, "ABCD", strict=True))
    answer = ", ".join(f"{text} is {asked[text]}" for text in rng.choices(found, k=10))
    return f"Say letters.\n{lines}", f"{answer}."


def _places(rng: random.Random) -> tuple[str, str]:
    spec = sample_scene(rng, sign=False, n_things=rng.choice((3, 4)))
    things = rng.choices(spec.things, k=7)
    by = rng.randrange(3)
    if by == 0:
        ask = "Say where objects are."
        answer = ", ".join(f"the {t.name} is at the {POSITIONS[t.cell]}" for t in things)
    elif by == 1:
        ask = "Say what is at places."
        answer = ", ".join(f"at the {POSITIONS[t.cell]} is a {t.size} {t.name}" for t in things)
    else:
        ask = "Say sizes."
        answer = ", ".join(f"the {t.name} is {t.size}" for t in things)
    return f"{describe(spec)}\n{ask}", f"{answer[:1].upper()}{answer[1:]}."


_DENSE: tuple[Callable[[random.Random], tuple[str, str]], ...] = (_copy, _values, _letters, _places)
_DRILLS: tuple[Callable[[random.Random], tuple[str, str]], ...] = (_pick, _pick, _rule, _rule, _sum)


def drills(rng: random.Random, n: int) -> list[tuple[str, str]]:
    """Exercises with their answers, n of them."""
    return [rng.choice(_DRILLS)(rng) for _ in range(n)]


def dense_drills(rng: random.Random, n: int) -> list[tuple[str, str]]:
    """The same with many answers in each: looking things up is learned from these."""
    return [rng.choice(_DENSE)(rng) for _ in range(n)]
