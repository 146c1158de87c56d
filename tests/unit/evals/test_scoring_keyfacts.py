"""Grading by key facts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.evals.rule_grading import open_score, rule_score
from stic_eval.evals.scoring.keyfacts import Fact, named_facts, names, parse_facts
from stic_eval.pocket.questions import questions
from stic_eval.pocket.tasks import _CAPABILITIES, _OPEN
from stic_eval.pocket.world import sample_spec


def test_parse_facts() -> None:
    assert parse_facts("red cube") == (Fact(("red cube",)),)
    assert parse_facts("a<AND>b<OR>c <AND> d") == (Fact(("a",)), Fact(("b", "c")), Fact(("d",)))
    assert parse_facts("top left <OF> blue star<AND>b") == (Fact(("top left",), "blue star"), Fact(("b",)))
    with pytest.raises(ValueError, match="no key fact"):
        parse_facts(" <AND> ")


@pytest.mark.parametrize(
    ("answer", "fact", "named"),
    [
        ("There is a Red  Cube.", "red cube", True),
        ("two red cubes", "red cube", False),
        ("a scarred cube", "red cube", False),
        ("There is no red cube.", "red cube", False),
        ("It isn't a red cube", "red cube", False),
        ("without any big red cube", "red cube", False),
        ("not only a red cube", "red cube", True),
        ("No, it is a red cube", "red cube", True),
        ("There is no ball. A red cube is left.", "red cube", True),
        ("no red cube here, but a red cube there", "red cube", True),
        ("no", "no", True),
        ("x = 5", "5", True),
        ("x = -5", "5", False),
        ("x = -5", "-5", True),
        ("from 3-5", "5", True),
        ("2.5", "5", False),
        ("5.5", "5", False),
        ("5,000", "5", False),
        ("15", "5", False),
        ("5.", "5", True),
        ("$5", "5", True),
        ("The sign says *STOP*", "stop", True),
        ("a (b", "(b", True),
    ],
)
def test_names(answer: str, fact: str, named: bool) -> None:
    assert names(answer, fact) is named


def test_the_share_of_facts_counts_and_any_alternative_does() -> None:
    facts = parse_facts("red<AND>ball<OR>sphere<AND>3")
    assert named_facts("A red sphere.", facts) == ("red", "sphere")
    score = rule_score("A red sphere.", facts)
    assert score.value == pytest.approx(2 / 3)
    assert (score.answer, score.why, score.weight) == ("red, sphere", "rule: 2 of 3 key facts named", 1.0)
    assert rule_score("", facts).value == 0


@pytest.mark.parametrize(
    ("answer", "fact", "said"),
    [
        # The place of a thing, not of another one.
        ("The blue star is at the top left.", "top left<OF>blue star", True),
        ("The green star is at the top left.", "top left<OF>blue star", False),
        ("The blue ring is at the top left.", "top left<OF>blue star", False),
        ("The sign is at the top left.", "top left<OF>blue star", False),
        ("The star is at the top left.", "top left<OF>blue star", True),
        ("It is at the top left.", "top left<OF>blue star", True),
        ("at the top left", "top left<OF>blue star", True),
        ("Top Left", "top left<OF>blue star", True),
        ("A day scene. Top left: a large blue star.", "top left<OF>blue star", True),
        ("A day scene. Top left: a large red ring.", "top left<OF>blue star", False),
        ("It is not at the top left.", "top left<OF>blue star", False),
        # A place is a whole one, and only one.
        ("It is at the top left.", "top<OF>blue star", False),
        ("It is at the top or at the left.", "top<OF>blue star", False),
        ("The blue star is at the top.", "top left<OF>blue star", False),
        ("The blue star is to the left of the red ring.", "left<OF>blue star", False),
        # Two questions in one: each is held against its own sentence.
        ("The blue star is at the left. The red ring is at the top.", "top<OF>blue star", False),
        ("The red ring is at the top. The blue star is at the top.", "top<OF>blue star", True),
        ("The blue star is at the left. The blue star is at the top.", "top<OF>blue star", False),
        ("The purple ring is at the right.", "purple ring<OF>right", True),
        (
            "The purple ring is at the right. There is a green ring at the right.",
            "purple ring<OF>right",
            False,
        ),
        (
            "There is a purple ring at the right. The green ring is at the right.",
            "purple ring<OF>right",
            True,
        ),
        ("There is a purple ring at the top right.", "purple ring<OF>right", False),
        ("a purple ring", "purple ring<OF>right", True),
        # Colour and shape.
        ("The star is green.", "green<OF>star", True),
        ("The ring is green.", "green<OF>star", False),
        ("a green star", "green<OF>star", True),
        ("The star is green or red.", "green<OF>star", False),
        ("The star is yellow. The green object is a star.", "green<OF>star", False),
        ("green", "green<OF>star", True),
        ("The purple object is a cross.", "cross<OF>purple object", True),
        ("The yellow object is a cross.", "cross<OF>purple object", False),
        ("The purple object is a cross. The star is purple.", "cross<OF>purple object", True),
        # What lies left of something is named first.
        ("The red ring is to the left of the blue star.", "red ring<OF>left of the blue star", True),
        ("The blue star is to the left of the red ring.", "red ring<OF>left of the blue star", False),
        ("The red ring is to the left of the green star.", "red ring<OF>left of the blue star", False),
        # Values of a chart.
        ("The value of red is 5.", "5<OF>value of red", True),
        ("The value of blue is 5.", "5<OF>value of red", False),
        ("The sum of red and blue is 5.", "5<OF>value of red", False),
        ("Red is 5, blue is 3.", "5<OF>value of red", True),
        ("Red is 3, blue is 5.", "5<OF>value of red", False),
        ("It is 5.", "5<OF>value of red", True),
        ("The sum of blue and red is 9.", "9<OF>sum of red and blue", True),
        ("The sum of green and red is 9.", "9<OF>sum of red and blue", False),
        ("The sum of green and red is 9.", "9<OF>sum", False),
        ("The difference is 9.", "9<OF>sum of red and blue", False),
        ("Purple is 8 higher than green.", "8<OF>difference of purple and green", True),
        ("The highest is orange with 5.", "orange<OF>highest", True),
        ("Orange has the highest value.", "orange<OF>highest", True),
        ("The lowest is orange with 5.", "orange<OF>highest", False),
        ("The sum of orange and green is 4. The highest is red.", "orange<OF>highest", False),
        ("The value of orange is 8. The highest is orange with 8.", "orange<OF>highest", True),
        # Counts and signs.
        ("There are 2 objects.", "2<OF>objects", True),
        ("There are 2 red objects.", "2<OF>objects", False),
        ("There are 2 objects left if all red objects are gone.", "2<OF>red objects", True),
        ("The sign is at the top.", "top<OF>sign", True),
        ("The red ring is at the top.", "top<OF>sign", False),
        ("The sign is at the top or at the bottom.", "top<OF>sign", False),
        # What is counted has its size, too.
        ("There are 2 large objects.", "2<OF>small objects", False),
        ("There are 2 small objects.", "2<OF>small objects", True),
        ("There are 2 large objects.", "2<OF>objects", False),
        ("There are 3 blue objects, 2 of them small.", "2<OF>blue objects", False),
        ("There are 3 blue objects, 2 of them small.", "3<OF>blue objects", True),
        ("There are 3 blue objects, 2 of them are at the left.", "2<OF>blue objects", False),
        ("There are 5 objects, 3 of them at the left.", "3<OF>objects", False),
        ("There are 3 red objects and 2 blue objects.", "2<OF>blue objects", True),
        ("There are 3 red objects and 2 blue objects.", "3<OF>blue objects", False),
        ("There are 3 red and 2 blue objects.", "2<OF>blue objects", True),
        ("There are 3 red and 2 blue objects.", "3<OF>red objects", True),
        ("There are 3 red objects and 2 blue objects.", "2<OF>objects", False),
        ("There are 2 blue objects. 3 objects are left.", "3<OF>blue objects", True),
        ("There are 2 blue objects. 3 objects are left.", "2<OF>blue objects", False),
        ("There are 5 objects, 2 of them blue, so 3 are left.", "3<OF>blue objects", True),
        ("There are 5 objects, 2 of them blue, so 3 are left.", "5<OF>blue objects", False),
        # A size is a fact of a thing, and no stranger where something else is asked.
        ("The blue star is small.", "small<OF>blue star", True),
        ("The red ring is small.", "small<OF>blue star", False),
        ("The blue star is small or large.", "small<OF>blue star", False),
        ("The small blue star is at the left. The blue star is at the top.", "top<OF>blue star", False),
        # A pronoun stands for what was named before it.
        ("The red circle is there. It is at the top left.", "top left<OF>blue star", False),
        ("The blue star is there. It is at the top left.", "top left<OF>blue star", True),
        ("A day scene. It is at the top left.", "top left<OF>blue star", True),
        ("The sign is large, and is at the top left.", "top left<OF>blue star", False),
        ("There is a ring. It is green.", "green<OF>star", False),
        ("There is a star at the top. It is green.", "green<OF>star", True),
        ("It is at the top and it is at the left.", "top<OF>blue star", False),
        # What is next to a place does not hold the place.
        ("The blue star is at the top left, next to the red square.", "top left<OF>blue star", True),
        ("The blue star is at the top left above the sign.", "top left<OF>blue star", True),
        ("The red square is at the top left, next to the blue star.", "top left<OF>blue star", False),
        ("The red square is next to the blue star, at the top left.", "top left<OF>blue star", False),
        ("The blue star is next to the red square at the top left.", "top left<OF>blue star", False),
        ("The blue star is left of the red ring, at the top.", "top<OF>blue star", True),
        ("The blue star is to the left of the large red ring.", "left<OF>blue star", False),
        ("The blue star is at the left of the picture.", "left<OF>blue star", True),
        # One statement after another.
        ("The red ring is at the top and the blue star is at the left.", "left<OF>blue star", True),
        ("The red ring is at the top and the blue star is at the left.", "top<OF>blue star", False),
        ("There is a red ring at the top and a blue star at the left.", "left<OF>blue star", True),
        ("There is a red ring and a blue star at the top.", "red ring<OF>top", False),
        ("The star is green and red.", "green<OF>star", False),
        ("The star is green and the ring is red.", "green<OF>star", True),
        ("The star is green and the ring is red.", "red<OF>star", False),
        ("The value of red is 5 and the value of blue is 7.", "5<OF>value of red", True),
        ("The value of red is 5 and the value of blue is 7.", "7<OF>value of red", False),
        ("Red is 5 and blue is 7, so the sum is 12.", "12<OF>sum of red and blue", True),
        ("Red is 5 while blue is 7.", "7<OF>value of red", False),
        ("The value of red and blue is 5 and 7.", "5<OF>value of red", False),
        ("The highest is orange with 5 and the lowest is red with 2.", "orange<OF>highest", True),
        ("The highest is orange with 5 and the lowest is red with 2.", "red<OF>highest", False),
        # The relation that was asked for.
        ("The red ring is to the right of the blue star.", "red ring<OF>left of the blue star", False),
        ("The red ring is above the blue star.", "red ring<OF>left of the blue star", False),
        ("The red ring is to the left of it.", "red ring<OF>left of the blue star", True),
        (
            "The red ring is left of the blue star. The green ring is left of the blue star.",
            "red ring<OF>left of the blue star",
            False,
        ),
    ],
)
def test_a_fact_is_one_of_its_subject(answer: str, fact: str, said: bool) -> None:
    assert bool(named_facts(answer, parse_facts(fact))) is said


def test_every_kind_of_question_has_right_and_wrong_answers() -> None:
    seen = set()
    for seed in range(400):
        spec = sample_spec(random.Random(seed))
        for question in questions(spec, random.Random(seed)):
            if not question.subject:
                continue
            seen.add(question.kind)
            facts = parse_facts(f"{question.answer}<OF>{question.subject}")
            assert named_facts(question.sentence, facts), question
            assert named_facts(question.answer, facts), question
            for wrong in question.wrong:
                # The last one is what is said: "The value of red is 5", "There are 5 objects".
                head, _, tail = question.sentence.rpartition(question.answer)
                if question.kind in ("highest", "lowest", "at", "left", "count", "remain"):
                    head, _, tail = question.sentence.partition(question.answer)
                assert not named_facts(f"{head}{wrong}{tail}", facts), (question, wrong)
    assert seen >= {*_OPEN, *_CAPABILITIES} - {"sign", "setting"}


def test_what_only_a_judge_can_grade_is_unscored() -> None:
    assert open_score().value is None


words = st.text(alphabet="abcdefgh", min_size=1, max_size=8)


@given(st.lists(words, min_size=1, max_size=5, unique=True), st.text(max_size=50))
def test_listing_every_fact_gets_full_marks_and_nothing_raises(facts: list[str], noise: str) -> None:
    parsed = parse_facts("<AND>".join(facts))
    assert rule_score(", ".join(facts), parsed).value == 1
    value = rule_score(noise, parsed).value
    assert value is not None
    assert 0 <= value <= 1
