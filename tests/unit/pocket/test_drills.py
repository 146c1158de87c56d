"""Exercises in words: every answer is right, found again by reading the question."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from statistics import mean

import pytest

from stic_eval.pocket import drills
from stic_eval.pocket.drills import Turn
from stic_eval.pocket.recipe import SKILLS
from stic_eval.pocket.tasks import FEELS, MADE_OF

OPTION = re.compile(r"^\(?([A-D])(?:\.|\)) (.+)$", re.MULTILINE)
SAID = (
    "color",
    "shape",
    "at",
    "place",
    "left",
    "setting",
    "sign",
    "chart",
    "highest",
    "value",
)  # in so many words
WORKED_OUT = ("sum", "difference", "average", "total", "higher")
SUMS = {
    r"What is the sum of (\d+) and (\d+)\?": lambda a, b: str(a + b),
    r"How much higher is (\d+) than (\d+)\?": lambda a, b: str(a - b),
    r"What is the average of (\d+) and (\d+)\?": lambda a, b: f"{mean((a, b)):.1f}",
    r"Is (\d+) higher than (\d+)\?": lambda a, b: "yes" if a > b else "no",
}


def talks(make: object, n: int = 300) -> list[list[Turn]]:
    assert callable(make)
    return [make(random.Random(seed)) for seed in range(n)]


def listed(text: str) -> dict[str, str]:
    found = dict(OPTION.findall(text))
    assert len(set(found.values())) == len(found)
    return found


def test_an_options_letter_and_a_letters_option_are_right() -> None:
    backwards = 0
    for talk in talks(drills.options):
        options = listed(talk[0].question)
        assert 3 <= len(options) <= 4
        letters = {text: letter for letter, text in options.items()}
        for turn in talk:
            asked = turn.question.rpartition("\n")[2].removeprefix("Which option is ").removesuffix("?")
            assert turn.answer == (options | letters)[asked]
            backwards += asked in options
    assert backwards > 100


def test_a_question_has_its_letter_under_every_rotation() -> None:
    letters = Counter[str]()
    for talk in talks(drills.rotations):
        for turn in talk:
            asked, _, rest = turn.question.partition("\n")
            assert listed(rest)[turn.answer] == asked.removeprefix("Which option is ").removesuffix("?")
            assert turn.question.endswith(drills.LETTER)
        if len(listed(talk[0].question)) == 4:
            assert sorted(turn.answer for turn in talk) == list("ABCD")
        letters[talk[0].answer] += 1
    assert all(letters[letter] > 40 for letter in "ABCD")


def test_a_facts_value_is_right_and_so_is_its_letter() -> None:
    skills, hints = Counter[str](), 0
    for talk in talks(drills.facts):
        hint = talk[0].question.partition("\n")[0] if "Context" in talk[0].question else ""
        for key, _, value in re.findall(r"Each (\w+)( object)? is (\w+)\.", hint):
            assert {**MADE_OF, **FEELS}[key] == value
        hints += bool(hint)
        options: dict[str, str] = {}
        for turn in talk:
            question = turn.question[turn.question.startswith("Context") and turn.question.index("\n") + 1 :]
            key = re.search(r"(\w+)(?: object)? (?:made of|feel)\?", question)
            assert key
            options = listed(question) or options
            assert (options[turn.answer] if options else turn.answer) == {**MADE_OF, **FEELS}[key[1]]
            assert turn.skill == ("two hops" if options else "fact")
            skills[turn.skill] += 1
    assert min(skills["fact"], skills["two hops"]) > 200 and hints > 50


def test_sums_are_right() -> None:
    kinds = Counter[str]()
    for turn in (turn for talk in talks(drills.sums) for turn in talk):
        (pattern, match), = [(p, m) for p in SUMS if (m := re.fullmatch(p, turn.question))]  # fmt: skip
        a, b = map(int, match.groups())
        assert {a, b} <= set(range(1, 21))
        assert turn.answer == SUMS[pattern](a, b)
        kinds[pattern] += 1
    assert all(kinds[pattern] > 200 for pattern in SUMS)


def test_a_passage_says_what_is_asked_of_it() -> None:
    forms, kinds = Counter[str](), Counter[str]()
    for talk in talks(drills.passages, 200):
        passage, _, first = talk[0].question.rpartition(".\n")
        assert passage
        for turn in (replace(talk[0], question=first.strip()), *talk[1:]):
            kind, options = turn.skill.removeprefix("passage, "), listed(turn.question)
            kinds[kind] += 1
            forms["letter" if options else "word" if drills.WORD in turn.question else "sentence"] += 1
            said = options.get(turn.answer, turn.answer)
            assert not options or turn.clue == said
            if kind in SAID:
                words = re.findall(r"[a-z]+|\d+", said.lower())
                spoken = re.findall(r"[a-z]+|\d+", f"{passage} {turn.question}".lower())
                assert set(words) - {"it", "the", "a", "an", "to", "of", "at"} <= set(spoken), turn
            if turn.clue and kind in WORKED_OUT:
                assert turn.clue == said or set(turn.clue.split()) <= set(re.findall(r"\d+", passage))
            assert set(turn.key.split()) <= set(re.findall(r"\w+", turn.question))
    assert min(forms.values()) > 200 and len(forms) == 3
    assert min(kinds.values()) > 10
    assert kinds.keys() == drills.WORDINGS.keys() - {"detail", "material", "feeling"}


@pytest.mark.parametrize("seed", range(40))
def test_every_turn_is_counted_as_a_skill_that_is_logged(seed: int) -> None:
    for turn in drills.drill(random.Random(seed)):
        assert turn.skill in SKILLS
        assert turn.weight > 0 and turn.question and turn.answer
