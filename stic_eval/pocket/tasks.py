"""How each of the seven benchmarks asks about pocket pictures, in the schema of its real data set."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stic_eval.pocket.language import describe, truth
from stic_eval.pocket.questions import Question, questions
from stic_eval.pocket.world import SIZE, Chart, Spec

Row = dict[str, Any]
Made = tuple[Row, str]  # a row without its picture, and the answer in full
Maker = Callable[[Spec, random.Random, Sequence[str]], Made | None]

# How a full description is asked for where the model is taught to give one. The test rows of LLaVA-Bench
# and MM-Vet ask by the plain prompts instead, as the real ones do ("Describe this photo in detail").
DETAIL = ("Describe everything that can be seen.", "Write a detailed description of the picture.")

MATERIALS = ("iron", "wood", "glass", "ice", "paper", "gold")
FEELINGS = ("hot", "cold", "wet", "soft", "rough", "sticky")


def _asked(spec: Spec, rng: random.Random, kinds: Sequence[str], wrong: int = 0) -> Question | None:
    """A question of one of the kinds: each kind is as likely, however many questions it has."""
    found = [q for q in questions(spec, rng) if q.kind in kinds and len(q.wrong) >= wrong]
    if not found:
        return None
    kind = rng.choice(sorted({q.kind for q in found}))
    return next(q for q in found if q.kind == kind)


def _textvqa(spec: Spec, rng: random.Random, detail: Sequence[str]) -> Made | None:
    found = _asked(spec, rng, ("sign",))
    if found is None:
        return None
    answers = [found.answer] * 8 + [f"the word {found.answer}", "unanswerable"]
    rng.shuffle(answers)
    text = found.text.lower()
    row = {
        "image_id": f"{rng.getrandbits(64):016x}", "question": text,
        "question_tokens": text.rstrip("?").split(), "image_width": SIZE, "image_height": SIZE,
        "flickr_original_url": "", "flickr_300k_url": "", "answers": answers, "image_classes": ["Sign"],
        "set_name": "val", "ocr_tokens": [],
    }  # fmt: skip
    return row, found.answer


_HUMAN = ("difference", "sum", "total", "highest", "lowest", "higher")


def _chartqa(spec: Spec, rng: random.Random, detail: Sequence[str]) -> Made | None:
    human = rng.random() < 0.5
    found = _asked(spec, rng, _HUMAN if human else ("value", "chart"))
    if found is None or not isinstance(spec, Chart):
        return None
    row = {
        "type": "human_test" if human else "augmented_test", "question": found.text, "answer": found.answer
    }  # fmt: skip
    return row, found.answer


def _scienceqa(spec: Spec, rng: random.Random, detail: Sequence[str]) -> Made | None:
    if isinstance(spec, Chart):
        return None
    thing = rng.choice(spec.things)
    by_shape = rng.random() < 0.5
    own = thing.shape if by_shape else thing.color
    present = sorted({t.shape if by_shape else t.color for t in spec.things})
    properties = rng.sample(MATERIALS if by_shape else FEELINGS, 4)
    keys = [own, *[key for key in present if key != own]][:4]
    rest = ("circle", "square", "triangle", "star", "cross", "ring") if by_shape else ("red", "green", "blue")
    keys += [key for key in rest if key not in keys][: max(0, 3 - len(keys))]
    rng.shuffle(keys)
    pairs = dict(zip(keys, properties, strict=False))
    says = "Each {} is made of {}." if by_shape else "All {} objects are {}."
    hint = " ".join(says.format(key, value) for key, value in pairs.items())
    place = next(q.text for q in questions(spec, rng) if q.kind == "at" and q.answer == thing.name)
    place = place.removeprefix("What is ").removesuffix("?")
    question = f"What is the object {place} made of?" if by_shape else f"How does the object {place} feel?"
    choices = list(properties)[: rng.choice((3, 4)) if len(pairs) < 4 else 4]
    if pairs[own] not in choices:
        choices[0] = pairs[own]
    rng.shuffle(choices)
    answer = choices.index(pairs[own])
    row = {
        "question": question, "choices": choices, "answer": answer, "hint": hint, "task": "closed choice",
        "grade": rng.choice(("grade2", "grade5", "grade8")), "subject": "natural science", "topic": "physics",
        "category": "Materials" if by_shape else "Properties", "skill": "Identify properties of an object",
        "lecture": "", "solution": "",
    }  # fmt: skip
    return row, "ABCD"[answer]


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


def _mmbench(spec: Spec, rng: random.Random, detail: Sequence[str]) -> Made | None:
    found = _asked(spec, rng, tuple(_ABILITIES), wrong=3)
    if found is None:
        return None
    options = [found.answer, *rng.sample(found.wrong, 3)]
    rng.shuffle(options)
    category, level2 = _ABILITIES[found.kind]
    texts = dict(zip("ABCD", options, strict=True))
    letter = "ABCD"[options.index(found.answer)]
    row = {
        "index": 0, "question": found.text, "hint": "nan", "answer": letter, **texts, "category": category,
        "source": "pocket", "L2-category": level2, "comment": "nan", "split": "dev",
    }  # fmt: skip
    return row, letter


_OPEN = (
    "color", "shape", "place", "at", "count", "left", "sign", "setting", "value", "highest", "lowest", "sum",
)  # fmt: skip


def _fact(question: Question) -> str:
    """What an open answer has to name, and of what: the blue star's place, the value of red."""
    return f"{question.answer}<OF>{question.subject}" if question.subject else question.answer


def _detail(spec: Spec, rng: random.Random, wordings: Sequence[str]) -> tuple[str, str, list[str]]:
    question = rng.choice(wordings)
    facts = [
        f"{c[1]} {c[2]}" if len(c) == 3 else " is ".join(c) if c[0] != "sign" else c[1]
        for c in sorted(truth(spec))
    ]
    return question, describe(spec), facts


def _llava_bench(spec: Spec, rng: random.Random, detail: Sequence[str]) -> Made | None:
    category = rng.choice(("conv", "conv", "detail", "complex"))
    if category == "detail":
        question, answer, facts = _detail(spec, rng, detail)
    else:
        found = [q for q in questions(spec, rng) if q.kind in _OPEN]
        two = (
            found[:1] if category == "conv" else [found[0], next(q for q in found if q.kind != found[0].kind)]
        )
        question = " ".join(q.text for q in two)
        answer, facts = " ".join(q.sentence for q in two), [_fact(q) for q in two]
    row = {
        "question": question, "caption": "key facts: " + "<AND>".join(facts), "gpt_answer": answer,
        "category": f"llava_bench_{category}", "image_id": "",
    }  # fmt: skip
    return row, answer


# Kind of question -> MM-Vet's capabilities.
_CAPABILITIES = {
    "color": "rec", "shape": "rec", "setting": "rec,know", "at": "rec,spat", "place": "rec,spat",
    "left": "rec,spat", "sign": "ocr", "sign_place": "ocr,spat", "count": "rec,math", "remain": "rec,math",
    "value": "ocr,math", "total": "ocr,math", "difference": "ocr,math", "highest": "ocr,know",
}  # fmt: skip


def _mmvet(spec: Spec, rng: random.Random, detail: Sequence[str]) -> Made | None:
    if rng.random() < 0.15:
        question, answer, facts = _detail(spec, rng, detail)
        capability = "gen,ocr" if isinstance(spec, Chart) else "rec,gen"
    else:
        found = _asked(spec, rng, tuple(_CAPABILITIES))
        if found is None:
            return None
        question, answer, facts = found.text, found.sentence, [_fact(found)]
        capability = _CAPABILITIES[found.kind]
    row = {
        "question": question, "image_source": "pocket", "answer": "<AND>".join(facts),
        "capability": capability,
    }  # fmt: skip
    return row, answer


_PROBLEMS = (
    "sum", "difference", "total", "average", "highest", "lowest", "remain", "count_size", "count",
    "count_color",
)  # fmt: skip
_HINTS = {
    "multi_choice": "and provide the correct option letter, e.g., A, B, C, D",
    "integer": "requiring an integer answer and provide the final value, e.g., 1, 2, 3",
    "float": (
        "requiring a floating-point number with one decimal place and provide the final value, "
        "e.g., 1.2, 1.3, 1.4"
    ),
}


def _mathvista(spec: Spec, rng: random.Random, detail: Sequence[str]) -> Made | None:
    found = _asked(spec, rng, _PROBLEMS)
    if found is None:
        return None
    choices: list[str] | None = None
    kind, answer_type, answer = "free_form", "integer", found.answer
    hint = _HINTS["float" if found.kind == "average" else "integer"]
    if found.kind in ("highest", "lowest") or (found.kind in ("sum", "total") and rng.random() < 0.5):
        kind, answer_type = "multi_choice", "text"
        choices = [found.answer, *found.wrong[:3]]
        rng.shuffle(choices)
        hint, answer = _HINTS["multi_choice"], "ABCD"[choices.index(found.answer)]
    elif found.kind == "average":
        answer_type = "float"
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
    return row, answer


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
