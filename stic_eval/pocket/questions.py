"""What can be asked about a pocket picture: questions with one right answer, and wrong ones of its kind.

Each kind of question has wordings of two groups. Test rows and the pocket model's own training use both,
instruction items the shared ones alone, so that results can be told apart by whether fine-tuning has seen
a row's wording.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stic_eval.pocket.language import article, sign_place
from stic_eval.pocket.world import (
    CHARTS,
    COLORS,
    MAX_VALUE,
    OBJECT_SIZES,
    POSITIONS,
    SETTINGS,
    SHAPES,
    Chart,
    Scene,
    Spec,
    Thing,
)

Group = Literal["shared", "held_out"]
GROUPS: tuple[Group, ...] = ("shared", "held_out")


@dataclass(frozen=True, slots=True)
class Wordings:
    """How a kind of question is asked; `{}` stands for what it is asked about.

    Attributes:
        shared: Used wherever questions are asked.
        held_out: Never used by instruction items.
    """

    shared: tuple[str, ...]
    held_out: tuple[str, ...]


# Few words that recur: each of them is an embedding of the pocket model.
WORDINGS: Mapping[str, Wordings] = {
    "color": Wordings(("What color is the {}?",), ("Which color does the {} have?",)),
    "shape": Wordings(("What shape is the {} object?",), ("Which shape does the {} object have?",)),
    "place": Wordings(("Where is the {}?",), ("At which place is the {}?",)),
    "at": Wordings(("What is at the {}?",), ("Which object is at the {}?",)),
    "left": Wordings(("What is to the left of the {}?",), ("Which object is left of the {}?",)),
    "count": Wordings(("How many objects are there?",), ("What is the number of objects?",)),
    "count_color": Wordings(("How many {} objects are there?",), ("What is the number of {} objects?",)),
    "count_size": Wordings(("How many {} objects are there?",), ("What is the number of {} objects?",)),
    "remain": Wordings(
        ("How many objects are left without the {} objects?",),
        ("What is the number of objects without the {} objects?",),
    ),
    "setting": Wordings(("What kind of scene is this?",), ("Which scene does the picture show?",)),
    "sign": Wordings(
        ("What does the sign say?", "What word is on the sign?"), ("Which word does the sign show?",)
    ),
    "sign_place": Wordings(("Where is the sign?",), ("At which place is the sign?",)),
    "chart": Wordings(("What kind of chart is this?",), ("Which chart does the picture show?",)),
    "value": Wordings(("What is the value of {}?",), ("Which value does {} have?",)),
    "highest": Wordings(
        ("Which color has the highest value?",), ("What is the color with the highest value?",)
    ),
    "lowest": Wordings(("Which color has the lowest value?",), ("What is the color with the lowest value?",)),
    "highest_value": Wordings(("What is the highest value?",), ("How much is the highest value?",)),
    "lowest_value": Wordings(("What is the lowest value?",), ("How much is the lowest value?",)),
    "higher": Wordings(("Is {0} higher than {1}?",), ("Is {1} lower than {0}?",)),
    "sum": Wordings(("What is the sum of {} and {}?",), ("How much are {} and {} together?",)),
    "difference": Wordings(("How much higher is {} than {}?",), ("What is the difference of {} and {}?",)),
    "total": Wordings(("What is the sum of all values?",), ("How much are all values together?",)),
    "average": Wordings(("What is the average of {} and {}?",), ("What is the mean of {} and {}?",)),
    "material": Wordings(
        ("What is the object at the {} made of?",), ("Which material is the object at the {} made of?",)
    ),
    "feeling": Wordings(
        ("How does the object at the {} feel?",), ("What does the object at the {} feel like?",)
    ),
    # A full description is asked for in words that no prompt of a training has.
    "detail": Wordings(
        ("Describe everything that is there.", "Give a full description."),
        ("Say all that can be seen in the picture.",),
    ),
}


def worded(kind: str, group: Group, rng: random.Random, *about: str) -> str:
    """A question of a kind in one of a group's wordings."""
    wordings = WORDINGS[kind]
    return rng.choice(wordings.shared if group == "shared" else wordings.held_out).format(*about)


def _pattern(wording: str) -> str:
    return r"[\w ]+".join(re.escape(part) for part in re.split(r"\{\d?\}", wording))


_HELD_OUT = re.compile(
    rf"(?<!\w)(?:{'|'.join(_pattern(text) for ways in WORDINGS.values() for text in ways.held_out)})",
    re.IGNORECASE,
)


def held_out(question: str) -> bool:
    """Whether a row's question, alone or with context and options, has a wording that is held out."""
    return _HELD_OUT.search(question) is not None


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a picture.

    Attributes:
        kind: What it is about: `color`, `place`, `count`, `sum`, ...
        text: The question.
        answer: In a word or a short phrase.
        sentence: The answer as a sentence, for questions that ask for no particular form.
        wrong: Answers of the same kind that are wrong; numbers by how near they are.
        subject: What the answer is a fact of; empty where the picture has only one such.
        values: Numbers in the picture that the answer is worked out from, if it is.
        about: What the wording names: a thing, a place, colours.
    """

    kind: str
    text: str
    answer: str
    sentence: str
    wrong: tuple[str, ...]
    subject: str = ""
    values: tuple[int, ...] = ()
    about: tuple[str, ...] = ()

    @property
    def clue(self) -> str:
        """The words for what has to be found in the picture before the question can be answered."""
        return " ".join(map(str, self.values)) or self.answer


def questions(spec: Spec, rng: random.Random, group: Group = "shared") -> list[Question]:
    """All that the grammar can ask about a picture with one right answer, in random order.

    Args:
        spec: The picture.
        rng: Draws wordings, some wrong answers, and the order.
        group: Whose wordings are used.
    """
    words = _Words(rng, group)
    found = list(_chart_questions(spec, words) if isinstance(spec, Chart) else _scene_questions(spec, words))
    rng.shuffle(found)
    return found


@dataclass(frozen=True, slots=True)
class _Words:
    rng: random.Random
    group: Group

    def ask(
        self, kind: str, about: Sequence[str], answer: str, sentence: str, wrong: Sequence[str],
        subject: str = "", values: Sequence[int] = (),
    ) -> Question:  # fmt: skip
        """A question whose answer is a text."""
        text = worded(kind, self.group, self.rng, *about)
        others = tuple(dict.fromkeys(one for one in wrong if one != answer))
        return Question(kind, text, answer, sentence, others, subject, tuple(values), tuple(about))

    def count(
        self, kind: str, about: Sequence[str], answer: int, sentence: str, bounds: tuple[int, int],
        subject: str = "objects", values: Sequence[int] = (),
    ) -> Question:  # fmt: skip
        """A question whose answer is a number; wrong ones are the nearest within bounds."""
        near = sorted(range(bounds[0], bounds[1] + 1), key=lambda n: (abs(n - answer), n))
        wrong = [str(n) for n in near[1:7]]
        return self.ask(kind, about, str(answer), sentence.format(answer), wrong, subject, values)


def _scene_questions(scene: Scene, words: _Words) -> Iterator[Question]:
    things, colors, rng = scene.things, list(COLORS), words.rng
    hues = [t.color for t in things]
    for thing in things:
        yield from _thing_questions(scene, thing, words)
    n = len(things)
    yield words.count("count", (), n, "There are {} objects.", (0, 6))
    for color in rng.sample(sorted(set(hues)), 1) + rng.sample(colors, 1):
        k, named = hues.count(color), f"{color} objects"
        yield words.count("count_color", (color,), k, f"There are {{}} {named}.", (0, 5), named)
        yield words.count("remain", (color,), n - k, "{} objects are left.", (0, 5), named)
    for size in OBJECT_SIZES:
        k, named = sum(t.size == size for t in things), f"{size} objects"
        yield words.count("count_size", (size,), k, f"There are {{}} {named}.", (0, 5), named)
    sentence = f"It is {article(scene.setting)} scene."
    yield words.ask("setting", (), scene.setting, sentence, [*SETTINGS, "forest"])
    if scene.sign is not None:
        yield words.ask("sign", (), scene.sign, f"The sign says {scene.sign}.", ())
        place = sign_place(scene)
        sentence = f"The sign is at the {place}."
        yield words.ask("sign_place", (), place, sentence, ("top", "bottom"), "sign")


def _thing_questions(scene: Scene, t: Thing, words: _Words) -> Iterator[Question]:
    things, place = scene.things, POSITIONS[t.cell]
    names = sorted({u.name for u in things})
    names += [f"{c} {s}" for c, s in words.rng.sample([(c, s) for c in COLORS for s in SHAPES], 6)]
    if sum(u.shape == t.shape for u in things) == 1:
        yield words.ask("color", (t.shape,), t.color, f"The {t.shape} is {t.color}.", list(COLORS), t.shape)
    if sum(u.color == t.color for u in things) == 1:
        sentence, subject = f"The {t.color} object is {article(t.shape)}.", f"{t.color} object"
        yield words.ask("shape", (t.color,), t.shape, sentence, SHAPES, subject)
    yield words.ask("place", (t.name,), place, f"The {t.name} is at the {place}.", POSITIONS, t.name)
    yield words.ask("at", (place,), t.name, f"At the {place} is {article(t.name)}.", names, place)
    left = [u for u in things if u.cell % 3 < t.cell % 3]
    if len(left) == 1:
        sentence, subject = f"The {left[0].name} is to the left of the {t.name}.", f"left of the {t.name}"
        yield words.ask("left", (t.name,), left[0].name, sentence, names, subject)


def _chart_questions(chart: Chart, words: _Words) -> Iterator[Question]:
    values = dict(chart.values)
    colors, top = list(values), MAX_VALUE
    absent = next(c for c in COLORS if c not in values)
    for kind, choose in (("highest", max), ("lowest", min)):
        color = choose(values, key=values.__getitem__)
        yield words.ask(kind, (), color, f"The {kind} is {color}.", [*colors, absent], kind)
        sentence = f"The {kind} value is {{}}."
        yield words.count(f"{kind}_value", (), values[color], sentence, (1, top), kind)
    total = sum(values.values())
    every = tuple(values.values())
    yield words.count("total", (), total, "The sum of all values is {}.", (3, 3 * top), "sum", every)
    sentence = f"It is {article(chart.kind)} chart."
    yield words.ask("chart", (), chart.kind, sentence, [*CHARTS, "area"])
    for color in colors:
        sentence, subject = f"The value of {color} is {{}}.", f"value of {color}"
        yield words.count("value", (color,), values[color], sentence, (1, top), subject)
    for a, b in ((a, b) for a in colors for b in colors if values[a] > values[b]):
        both = f"{a} and {b}"
        d, s = values[a] - values[b], values[a] + values[b]
        pair, subject = (values[a], values[b]), f"difference of {both}"
        yield words.count("difference", (a, b), d, "The difference is {}.", (0, top), subject, pair)
        sentence = f"The sum of {both} is {{}}."
        yield words.count("sum", (a, b), s, sentence, (2, 2 * top), f"sum of {both}", pair)
        mean = f"{s / 2:.1f}"
        yield words.ask("average", (a, b), mean, f"The average is {mean}.", (), values=pair)
        yield words.ask("higher", (a, b), "yes", f"Yes, {a} is higher.", ("yes", "no"), values=pair)
        yield words.ask("higher", (b, a), "no", f"No, {b} is lower.", ("yes", "no"), values=pair)
