"""Exercises in words alone, for what a pretrained decoder would bring: looking up options, facts, sums.

Each is a conversation of short turns over one text, so that most of what is read is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stic_eval.pocket.language import describe
from stic_eval.pocket.questions import GROUPS, WORDINGS, questions
from stic_eval.pocket.tasks import FEELINGS, FEELS, MADE_OF, MATERIALS, RULES
from stic_eval.pocket.world import CHARTS, COLORS, POSITIONS, SETTINGS, SHAPES, draw_spec

PASSAGE_SKILLS = tuple(f"passage, {kind}" for kind in WORDINGS)
NUMBERS = tuple(str(n) for n in range(61))
NAMES = tuple(f"{color} {shape}" for color in COLORS for shape in SHAPES)
POOLS: tuple[tuple[str, ...], ...] = (
    tuple(COLORS), SHAPES, POSITIONS, NAMES, NAMES, MATERIALS, FEELINGS, NUMBERS, NUMBERS,
    (*SETTINGS, "forest"), (*CHARTS, "area"),
)  # fmt: skip
LETTER = "Answer with the option's letter from the given choices directly."
WORD = "Answer the question using a single word or phrase."
PASSAGES = ("Image description:\n{}\n\n", "Image description:\n{}\n", "Context: {}\n", "{}\n")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: The user's words.
        answer: The assistant's.
        weight: Of the answer's tokens in the loss.
        skill: What it exercises.
        key: Words for what has to be looked for.
        clue: Words for what has to be found before the answer can be given: what a letter stands for, the
            numbers of a sum.
    """

    question: str
    answer: str
    weight: float
    skill: str
    key: str = ""
    clue: str = ""


def _listed(options: Sequence[str], rng: random.Random) -> str:
    """Options as the benchmarks write them."""
    pattern = rng.choice(("{}. {}", "({}) {}"))
    return "\n".join(pattern.format(a, text) for a, text in zip("ABCD", options, strict=False))


def _sample(pool: tuple[str, ...], rng: random.Random) -> list[str]:
    """Four different texts of a pool; numbers lie close together, as wrong answers do."""
    if pool is NUMBERS:
        low = rng.randint(0, 52)
        return rng.sample(pool[low : low + 8], 4)
    return rng.sample(pool, min(4, len(pool)))


def options(rng: random.Random, n: int = 6) -> list[Turn]:
    """Lettered options, and the letter of each that is asked for; or the text of a letter."""
    found = _sample(rng.choice(POOLS), rng)
    listed, turns = _listed(found, rng), []
    for number in range(n):
        i = rng.randrange(len(found))
        back = number > 0 and rng.random() < 0.2
        question = f"Which option is {'ABCD'[i] if back else found[i]}?"
        answer = found[i] if back else "ABCD"[i]
        asked = question if number else f"{listed}\n{question}"
        turns.append(Turn(asked, answer, 1.0, "option", clue="" if back else found[i]))
    return turns


def rotations(rng: random.Random, n: int = 4) -> list[Turn]:
    """One question under all rotations of its options, as a circular evaluation asks it."""
    found = _sample(rng.choice(POOLS), rng)
    right, turns = found[0], []
    rng.shuffle(found)
    for turn in range(n):
        turned = found[turn % len(found) :] + found[: turn % len(found)]
        asked = f"Which option is {right}?\n{_listed(turned, rng)}\n{LETTER}"
        turns.append(Turn(asked, "ABCD"[turned.index(right)], 1.0, "rotation", clue=right))
    return turns


def facts(rng: random.Random, n: int = 5) -> list[Turn]:
    """What shapes are made of and colours feel like; in a word, or by the letter of an option."""
    by_shape = rng.random() < 0.5
    every = MADE_OF if by_shape else FEELS
    keys = rng.sample(list(every), 4)
    says = RULES[0 if by_shape else 1]
    asks = "What is the {} made of?" if by_shape else "How does the {} object feel?"
    hint = "Context: " + " ".join(says.format(key, every[key]) for key in keys) + "\n"
    start = hint if rng.random() < 0.5 else ""
    lettered, turns = rng.random() < 0.8, []
    if lettered and rng.random() < 0.5:  # one list of options for all that is asked
        choices = rng.sample([every[key] for key in keys], 4)
        for number in range(n + 1):
            key = rng.choice(keys)
            listed = "" if number else f"{start}{_listed(choices, rng)}\n"
            asked = f"{listed}{asks.format(key)}"
            turns.append(Turn(asked, "ABCD"[choices.index(every[key])], 1.0, "two hops", key, every[key]))
        return turns
    for number in range(n - 1 if lettered else n):
        key = rng.choice(keys)
        asked = f"{'' if number else start}{asks.format(key)}"
        if not lettered:
            turns.append(Turn(asked, every[key], 1.0, "fact", key, every[key]))
            continue
        choices = rng.sample([every[key] for key in keys], 4)
        letter = "ABCD"[choices.index(every[key])]
        asked = f"{asked}\n{_listed(choices, rng)}\n{LETTER}"
        turns.append(Turn(asked, letter, 1.0, "two hops", key, every[key]))
    return turns


def passages(rng: random.Random, n: int = 7) -> list[Turn]:
    """A picture in words, and what can be asked of it: in a sentence, in a word, by an option's letter.

    Questions about two words that stand apart (what is at a place, where something is) are learned last and
    stand here more often than the benchmarks ask them.
    """
    spec = draw_spec("train", rng.randrange(1_000_000_000), rng.choice(("any", "many", "many", "chart")))
    found = questions(spec, rng, rng.choice(GROUPS))
    turns = []
    for number in range(n):
        kind = rng.choice(sorted({question.kind for question in found}))
        about = rng.choice([question for question in found if question.kind == kind])
        asked, answer, key, clue = about.text, about.sentence, "", ""
        form = rng.random()
        if form < 0.4 and len(about.wrong) >= 3:
            choices = [about.answer, *rng.sample(about.wrong, 3)]
            rng.shuffle(choices)
            asked = f"{asked}\n{_listed(choices, rng)}\n{LETTER}"
            answer, clue = "ABCD"[choices.index(about.answer)], about.answer
            key = " ".join(about.about)
        elif form < 0.7 or kind == "higher":
            asked, answer, clue = f"{asked}\n{WORD}", about.answer, about.clue
            key = " ".join(about.about)
        start = "" if number else f"{rng.choice(PASSAGES).format(describe(spec))}"
        turns.append(Turn(f"{start}{asked}", answer, 1.0, f"passage, {kind}", key, clue))
    return turns


def sums(rng: random.Random, n: int = 6) -> list[Turn]:
    """Small sums, differences and means of values from 1 to 20."""
    turns = []
    for _ in range(n):
        a, b = rng.randint(1, 20), rng.randint(1, 20)
        low, high = sorted((a, b))
        question, answer = rng.choice(
            (
                (f"What is the sum of {a} and {b}?", str(a + b)),
                (f"How much higher is {high} than {low}?", str(high - low)),
                (f"What is the average of {a} and {b}?", f"{(a + b) / 2:.1f}"),
                (f"Is {a} higher than {b}?", "yes" if a > b else "no"),
            )
        )
        turns.append(Turn(question, answer, 1.0, "sum", clue=f"{a} {b}"))
    return turns


DRILLS: tuple[tuple[Callable[[random.Random], list[Turn]], float], ...] = (
    (options, 0.15), (rotations, 0.15), (facts, 0.2), (sums, 0.1), (passages, 0.4),
)  # fmt: skip


def drill(rng: random.Random) -> list[Turn]:
    """A conversation of one kind."""
    kinds, weights = zip(*DRILLS, strict=True)
    chosen: Callable[[random.Random], list[Turn]] = rng.choices(kinds, weights)[0]
    return chosen(rng)
