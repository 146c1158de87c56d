"""What can be asked about a pocket picture: questions with one right answer, and wrong ones of its kind."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stic_eval.pocket.language import article, sign_place
from stic_eval.pocket.world import (
    CHARTS,
    COLORS,
    OBJECT_SIZES,
    POSITIONS,
    SETTINGS,
    SHAPES,
    Chart,
    Scene,
    Spec,
    Thing,
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a picture.

    Attributes:
        kind: What it is about: `color`, `place`, `count`, `sum`, ...
        text: The question.
        answer: In a word or a short phrase.
        sentence: The answer as a sentence, for questions that ask for no particular form.
        wrong: Answers of the same kind that are wrong.
        subject: What the answer is a fact of; empty where the picture has only one such.
    """

    kind: str
    text: str
    answer: str
    sentence: str
    wrong: tuple[str, ...]
    subject: str = ""


def questions(spec: Spec, rng: random.Random) -> list[Question]:
    """All that the grammar can ask about a picture with one right answer, in random order."""
    asked = _chart_questions(spec) if isinstance(spec, Chart) else _scene_questions(spec, rng)
    found = list(asked)
    rng.shuffle(found)
    return found


def _others(answer: str, every: Sequence[str]) -> tuple[str, ...]:
    return tuple(x for x in every if x != answer)


def _number(
    kind: str, text: str, answer: int, sentence: str, low: int, high: int, subject: str = "objects"
) -> Question:
    near = sorted(range(low, high + 1), key=lambda n: (abs(n - answer), n))
    wrong = tuple(str(n) for n in near[1:7])
    return Question(kind, text, str(answer), sentence.format(answer), wrong, subject)


def _yes(kind: str, text: str, yes: str, no: str, right: bool) -> Question:
    answer = "yes" if right else "no"
    return Question(
        kind, text, answer, f"{answer.capitalize()}, {yes if right else no}.", _others(answer, ["yes", "no"])
    )


def _scene_questions(scene: Scene, rng: random.Random) -> Iterator[Question]:
    things, colors = scene.things, list(COLORS)
    hues = [t.color for t in things]
    for thing in things:
        yield from _thing_questions(scene, thing, rng)
    names = [f"{c} {s}" for c in colors for s in SHAPES if all(t.name != f"{c} {s}" for t in things)]
    absent = rng.choice(names)
    yield _yes("exists", f"Is there {article(absent)}?", "", f"there is no {absent}", False)
    n = len(things)
    yield _number("count", "How many objects are there?", n, "There are {} objects.", 0, 6)
    for color in rng.sample(sorted(set(hues)), 1) + rng.sample(colors, 1):
        k = hues.count(color)
        sentence = f"There are {{}} {color} objects."
        yield _number(
            "count_color", f"How many {color} objects are there?", k, sentence, 0, 5, f"{color} objects"
        )
        text = f"How many objects are left if all {color} objects are removed?"
        yield _number("remain", text, n - k, "{} objects are left.", 0, 5, f"{color} objects")
    for size in OBJECT_SIZES:
        k = sum(t.size == size for t in things)
        sentence = f"There are {{}} {size} objects."
        yield _number(
            "count_size", f"How many {size} objects are there?", k, sentence, 0, 5, f"{size} objects"
        )
    sentence = f"It is {article(scene.setting)} scene."
    wrong = _others(scene.setting, [*SETTINGS, "forest"])
    yield Question("setting", "What is the setting of the picture?", scene.setting, sentence, wrong)
    if scene.sign is not None:
        place = sign_place(scene)
        text = rng.choice(
            ("What does the sign say?", "What word is on the sign?", f"What is written at the {place}?")
        )
        yield Question("sign", text, scene.sign, f"The sign says {scene.sign}.", ())
        text, wrong = "Is the sign at the top or at the bottom?", _others(place, ["top", "bottom"])
        yield Question("sign_place", text, place, f"The sign is at the {place}.", wrong, "sign")


def _thing_questions(scene: Scene, t: Thing, rng: random.Random) -> Iterator[Question]:
    things, place = scene.things, POSITIONS[t.cell]
    names = sorted({u.name for u in things if u != t})
    names += [f"{c} {s}" for c, s in rng.sample([(c, s) for c in COLORS for s in SHAPES], 6)]
    wrong_names = tuple(dict.fromkeys(n for n in names if n != t.name))
    if sum(u.shape == t.shape for u in things) == 1:
        sentence, wrong = f"The {t.shape} is {t.color}.", _others(t.color, list(COLORS))
        yield Question("color", f"What color is the {t.shape}?", t.color, sentence, wrong, t.shape)
    if sum(u.color == t.color for u in things) == 1:
        sentence, wrong = f"The {t.color} object is {article(t.shape)}.", _others(t.shape, SHAPES)
        yield Question(
            "shape", f"What shape is the {t.color} object?", t.shape, sentence, wrong, f"{t.color} object"
        )
    sentence = f"The {t.name} is at the {place}."
    yield Question("place", f"Where is the {t.name}?", place, sentence, _others(place, POSITIONS), t.name)
    sentence = f"There is {article(t.name)} at the {place}."
    yield Question("at", f"What is at the {place}?", t.name, sentence, wrong_names, place)
    sentence = f"The {t.name} is {t.size}."
    yield Question(
        "size", f"How large is the {t.name}?", t.size, sentence, _others(t.size, OBJECT_SIZES), t.name
    )
    yield _yes("exists", f"Is there {article(t.name)}?", f"there is {article(t.name)}", "", True)
    left = [u for u in things if u.cell % 3 < t.cell % 3]
    if len(left) == 1:
        name = left[0].name
        sentence, wrong = f"The {name} is to the left of the {t.name}.", _others(name, (*wrong_names, t.name))
        yield Question(
            "left", f"What is to the left of the {t.name}?", name, sentence, wrong, f"left of the {t.name}"
        )
    for u in things:
        if u.cell // 3 != t.cell // 3:
            above, text = u.cell // 3 < t.cell // 3, f"Is the {u.name} above the {t.name}?"
            yes, no = (f"the {u.name} is {where} the {t.name}" for where in ("above", "below"))
            yield _yes("above", text, yes, no, above)


def _chart_questions(chart: Chart) -> Iterator[Question]:
    values = dict(chart.values)
    colors = list(values)
    for kind, choose in (("highest", max), ("lowest", min)):
        color = choose(values, key=values.__getitem__)
        sentence = f"The {kind} is {color} with {values[color]}."
        wrong = _others(color, [*colors, next(c for c in COLORS if c not in values)])
        yield Question(kind, f"Which color has the {kind} value?", color, sentence, wrong, kind)
    total = sum(values.values())
    yield _number(
        "total", "What is the sum of all values?", total, "The sum of all values is {}.", 3, 27, "sum"
    )
    wrong = _others(chart.kind, [*CHARTS, "area"])
    yield Question(
        "chart", "What kind of chart is this?", chart.kind, f"It is {article(chart.kind)} chart.", wrong
    )
    for color in colors:
        sentence = f"The value of {color} is {{}}."
        yield _number(
            "value", f"What is the value of {color}?", values[color], sentence, 1, 9, f"value of {color}"
        )
    for a in colors:
        for b in colors:
            if values[a] > values[b]:
                d, s, both = values[a] - values[b], values[a] + values[b], f"{a} and {b}"
                yield _number(
                    "difference",
                    f"How much higher is {a} than {b}?",
                    d,
                    "The difference is {}.",
                    0,
                    9,
                    f"difference of {both}",
                )
                yield _number(
                    "sum",
                    f"What is the sum of {both}?",
                    s,
                    f"The sum of {both} is {{}}.",
                    2,
                    18,
                    f"sum of {both}",
                )
                mean = f"{s / 2:.1f}"
                text = f"What is the average of {both}?"
                yield Question("average", text, mean, f"The average is {mean}.", ())
                yield _yes("higher", f"Is {a} higher than {b}?", f"{a} is higher", "", True)
                yield _yes("higher", f"Is {b} higher than {a}?", "", f"{b} is lower", False)
