"""How each of the seven benchmarks asks about pocket pictures, in the schema of its real data set."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stic_eval.pocket.language import describe, truth
from stic_eval.pocket.questions import Group, Question, questions, worded
from stic_eval.pocket.world import COLORS, POSITIONS, SHAPES, SIZE, Chart, Spec

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A row without its picture.

    Attributes:
        row: In the data set's schema.
        answer: In full.
        key: What has to be looked for.
        clue: What has to be found before the answer can be given; each empty where there is nothing such.
    """

    row: Row
    answer: str
    key: str = ""
    clue: str = ""


@dataclass(frozen=True, slots=True)
class Draw:
    """What a row is made by, beside its picture.

    Attributes:
        rng: Draws what is asked.
        group: Whose wordings are used.
        position: Where the right one of four options stands, from 0.
    """

    rng: random.Random
    group: Group
    position: int


Maker = Callable[[Spec, Draw], DrawnRow | None]

MATERIALS = ("iron", "wood", "glass", "ice", "paper", "gold")
FEELINGS = ("hot", "cold", "wet", "soft", "rough", "sticky")
# ScienceQA's facts: of shapes and materials, of colours and feelings.
MADE_OF = dict(zip(SHAPES, MATERIALS, strict=True))
FEELS = dict(zip(COLORS, FEELINGS, strict=True))
RULES = ("Each {} is {}.", "Each {} object is {}.")


def _asked(spec: Spec, draw: Draw, kinds: Sequence[str], wrong: int = 0) -> Question | None:
    """A question of one of the kinds: each is as likely as it is listed often, however many it has."""
    found = [q for q in questions(spec, draw.rng, draw.group) if q.kind in kinds and len(q.wrong) >= wrong]
    if not found:
        return None
    there = {q.kind for q in found}
    kind = draw.rng.choice([kind for kind in kinds if kind in there])
    return next(q for q in found if q.kind == kind)


def _options(question: Question, draw: Draw) -> list[str]:
    """Four options; a number has as often none, one, two or three wrong ones below it."""
    rng, wrong = draw.rng, question.wrong
    if question.answer.isdecimal():
        below = [one for one in wrong if int(one) < int(question.answer)]
        above = [one for one in wrong if one not in below]
        k = rng.randint(max(0, 3 - len(above)), min(3, len(below)))
        found = rng.sample(below, k) + rng.sample(above, 3 - k)
        rng.shuffle(found)
    else:
        found = rng.sample(wrong, 3)
    return [*found[: draw.position], question.answer, *found[draw.position :]]


_TEXTVQA = ("sign",) * 6 + ("sign_place",)


def _textvqa(spec: Spec, draw: Draw) -> DrawnRow | None:
    found = _asked(spec, draw, _TEXTVQA)
    if found is None:
        return None
    # Two annotators write more than is asked for, or less; a word that all rows have would earn points.
    others = [f"the word {found.answer}", found.answer[:-1]]
    answers = [found.answer] * 8 + (others if found.kind == "sign" else [f"at the {found.answer}"] * 2)
    draw.rng.shuffle(answers)
    text = found.text.lower()
    row = {
        "image_id": f"{draw.rng.getrandbits(64):016x}", "question": text,
        "question_tokens": text.rstrip("?").split(), "image_width": SIZE, "image_height": SIZE,
        "flickr_original_url": "", "flickr_300k_url": "", "answers": answers, "image_classes": ["Sign"],
        "set_name": "val", "ocr_tokens": [],
    }  # fmt: skip
    return DrawnRow(row, found.answer)


def _clues(question: Question) -> tuple[str, str]:
    """What has to be looked for, and what is found there."""
    return " ".join(question.about), question.clue


_HUMAN = ("difference", "sum", "total", "highest", "lowest", "higher")
_AUGMENTED = ("value", "value", "value", "chart")


def _chartqa(spec: Spec, draw: Draw) -> DrawnRow | None:
    human = draw.rng.random() < 0.5
    found = _asked(spec, draw, _HUMAN if human else _AUGMENTED)
    if found is None:
        return None
    row = {
        "type": "human_test" if human else "augmented_test", "question": found.text, "answer": found.answer
    }  # fmt: skip
    return DrawnRow(row, found.answer, *_clues(found))


def _scienceqa(spec: Spec, draw: Draw) -> DrawnRow | None:
    """From a place to its object, from that to what is true of all such, and to its letter.

    What circles are made of is the same in every row, as in the real data set: what is true of iron is known,
    and the hint says it again. Rules that were drawn anew for each row would be one look-up more, which the
    decoder did not learn.
    """
    if isinstance(spec, Chart):
        return None
    rng = draw.rng
    thing = rng.choice(spec.things)
    by_shape = rng.random() < 0.5
    own, every = (thing.shape, SHAPES) if by_shape else (thing.color, tuple(COLORS))
    present = {t.shape if by_shape else t.color for t in spec.things}
    others = [key for key in rng.sample(every, len(every)) if key != own]
    others = sorted(others, key=lambda key: key not in present)[:3]
    keys = [own, *others]
    properties = MADE_OF if by_shape else FEELS
    rng.shuffle(keys)
    says = RULES[0 if by_shape else 1]
    hint = " ".join(says.format(key, properties[key]) for key in keys)
    kind = "material" if by_shape else "feeling"
    choices = [properties[key] for key in rng.sample(others, 3)]
    choices.insert(draw.position, properties[own])
    row = {
        "question": worded(kind, draw.group, rng, POSITIONS[thing.cell]), "choices": choices,
        "answer": draw.position, "hint": hint, "task": "closed choice",
        "grade": rng.choice(("grade2", "grade5", "grade8")), "subject": "natural science", "topic": "physics",
        "category": "Materials" if by_shape else "Properties", "skill": "Identify properties of an object",
        "lecture": "", "solution": "",
    }  # fmt: skip
    return DrawnRow(row, "ABCD"[draw.position], POSITIONS[thing.cell], properties[own])


# Kind of question -> (category, second level of the taxonomy).
_ABILITIES = {
    "color": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "shape": ("attribute_recognition", "finegrained_perception (instance-level)"),
    "place": ("object_localization", "finegrained_perception (instance-level)"),
    "at": ("object_localization", "finegrained_perception (instance-level)"),
    "left": ("spatial_relationship", "finegrained_perception (cross-instance)"),
    "count_color": ("attribute_comparison", "finegrained_perception (cross-instance)"),
    "setting": ("image_scene", "coarse_perception"),
    "chart": ("image_style", "coarse_perception"),
    "highest": ("structuralized_imagetext_understanding", "logic_reasoning"),
    "lowest": ("structuralized_imagetext_understanding", "logic_reasoning"),
    "remain": ("future_prediction", "logic_reasoning"),
    "difference": ("physical_relation", "relation_reasoning"),
    "value": ("identity_reasoning", "attribute_reasoning"),
}


def _mmbench(spec: Spec, draw: Draw) -> DrawnRow | None:
    found = _asked(spec, draw, tuple(_ABILITIES), wrong=3)
    if found is None:
        return None
    category, level2 = _ABILITIES[found.kind]
    letter = "ABCD"[draw.position]
    row = {
        "index": 0, "question": found.text, "hint": "nan", "answer": letter,
        **dict(zip("ABCD", _options(found, draw), strict=True)), "category": category,
        "source": "pocket", "L2-category": level2, "comment": "nan", "split": "dev",
    }  # fmt: skip
    return DrawnRow(row, letter, _clues(found)[0], found.answer)


_OPEN = (
    "color", "shape", "place", "at", "count", "left", "sign", "setting", "value", "highest", "lowest", "sum",
)  # fmt: skip


def _fact(question: Question) -> str:
    """What an open answer has to name, and of what: the blue star's place, the value of red."""
    return f"{question.answer}<OF>{question.subject}" if question.subject else question.answer


def _detail(spec: Spec, draw: Draw) -> tuple[str, str, list[str]]:
    facts = [
        f"{c[1]} {c[2]}" if len(c) == 3 else " is ".join(c) if c[0] != "sign" else c[1]
        for c in sorted(truth(spec))
    ]
    return worded("detail", draw.group, draw.rng), describe(spec), facts


def _apart(one: Question, other: Question) -> bool:
    """Whether two questions are of different kinds, and neither tells the other's answer."""
    told = one.answer in other.text or other.answer in one.text
    return one.kind != other.kind and not told


def _llava_bench(spec: Spec, draw: Draw) -> DrawnRow | None:
    category = draw.rng.choice(("conv", "conv", "detail", "complex"))
    if category == "detail":
        question, answer, facts = _detail(spec, draw)
    else:
        first, *rest = [q for q in questions(spec, draw.rng, draw.group) if q.kind in _OPEN]
        two = [first] if category == "conv" else [first, next(q for q in rest if _apart(first, q))]
        question = " ".join(q.text for q in two)
        answer, facts = " ".join(q.sentence for q in two), [_fact(q) for q in two]
    row = {
        "question": question, "caption": "key facts: " + "<AND>".join(facts), "gpt_answer": answer,
        "category": f"llava_bench_{category}", "image_id": "",
    }  # fmt: skip
    return DrawnRow(row, answer)


# Kind of question -> MM-Vet's capabilities.
_CAPABILITIES = {
    "color": "rec", "shape": "rec", "setting": "rec,know", "at": "rec,spat", "place": "rec,spat",
    "left": "rec,spat", "sign": "ocr", "sign_place": "ocr,spat", "count": "rec,math", "remain": "rec,math",
    "value": "ocr,math", "total": "ocr,math", "difference": "ocr,math", "highest": "ocr,know",
}  # fmt: skip


def _mmvet(spec: Spec, draw: Draw) -> DrawnRow | None:
    if draw.rng.random() < 0.15:
        question, answer, facts = _detail(spec, draw)
        capability = "gen,ocr" if isinstance(spec, Chart) else "rec,gen"
    else:
        found = _asked(spec, draw, tuple(_CAPABILITIES))
        if found is None:
            return None
        question, answer, facts = found.text, found.sentence, [_fact(found)]
        capability = _CAPABILITIES[found.kind]
    row = {
        "question": question, "image_source": "pocket", "answer": "<AND>".join(facts),
        "capability": capability,
    }  # fmt: skip
    return DrawnRow(row, answer)


_PROBLEMS = (
    "sum", "difference", "total", "average", "highest_value", "lowest_value", "highest", "lowest",
    "remain", "count_size", "count_color",
)  # fmt: skip
# Asked with options always, or as often as not.
_COLOR_OPTIONS = ("highest", "lowest")
_NUMBER_OPTIONS = ("sum", "difference", "total", "highest_value", "lowest_value")
_HINTS = {
    "multi_choice": "and provide the correct option letter, e.g., A, B, C, D",
    "integer": "requiring an integer answer and provide the final value, e.g., 1, 2, 3",
    "float": (
        "requiring a floating-point number with one decimal place and provide the final value, "
        "e.g., 1.2, 1.3, 1.4"
    ),
}


def _mathvista(spec: Spec, draw: Draw) -> DrawnRow | None:
    found = _asked(spec, draw, _PROBLEMS)
    if found is None:
        return None
    choices: list[str] | None = None
    kind, answer_type, answer = "free_form", "integer", found.answer
    hint = _HINTS["integer"]
    if found.kind in _COLOR_OPTIONS or (found.kind in _NUMBER_OPTIONS and draw.rng.random() < 0.5):
        kind, answer_type = "multi_choice", "text"
        choices = _options(found, draw)
        hint, answer = _HINTS["multi_choice"], "ABCD"[draw.position]
    elif found.kind == "average":
        answer_type, hint = "float", _HINTS["float"]
    lines = [f"Hint: Please answer the question {hint}, at the end.", f"Question: {found.text}"]
    if choices:
        lines += ["Choices:", *(f"({a}) {c}" for a, c in zip("ABCD", choices, strict=True))]
    chart = isinstance(spec, Chart)
    context = f"{spec.kind} chart" if isinstance(spec, Chart) else "synthetic scene"
    skills = ["statistical reasoning"] if chart else []
    row = {
        "question": found.text, "image": "", "choices": choices, "unit": None,
        "precision": 1.0 if answer_type == "float" else None, "answer": found.answer,
        "question_type": kind, "answer_type": answer_type,
        "metadata": {
            "category": "math-targeted-vqa", "context": context,
            "grade": "elementary school", "img_height": SIZE, "img_width": SIZE, "language": "english",
            "skills": [*skills, "arithmetic reasoning"], "source": "pocket", "split": "testmini",
            "task": "figure question answering" if chart else "visual question answering",
        },
        "query": "\n".join(lines),
    }  # fmt: skip
    return DrawnRow(row, answer, _clues(found)[0], found.answer if choices else found.clue)


# Benchmark -> (maker, kinds of picture in turn).
MAKERS: Mapping[str, tuple[Maker, tuple[str, ...]]] = {
    "scienceqa": (_scienceqa, ("scene",)),
    "textvqa": (_textvqa, ("sign",)),
    "chartqa": (_chartqa, ("chart",)),
    "llava_bench": (_llava_bench, ("any",)),
    "mmbench": (_mmbench, ("any",)),
    "mmvet": (_mmvet, ("any",)),
    "mathvista": (_mathvista, ("chart", "many", "chart")),
}
