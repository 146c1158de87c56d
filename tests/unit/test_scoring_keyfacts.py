"""Grading by key facts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.evals.judge import rule_score, unjudged
from stic_eval.evals.scoring.keyfacts import named_facts, names, parse_facts


def test_parse_facts() -> None:
    assert parse_facts("red cube") == (("red cube",),)
    assert parse_facts("a<AND>b<OR>c <AND> d") == (("a",), ("b", "c"), ("d",))
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


def test_what_only_a_judge_can_grade_is_unscored() -> None:
    assert unjudged().value is None


words = st.text(alphabet="abcdefgh", min_size=1, max_size=8)


@given(st.lists(words, min_size=1, max_size=5, unique=True), st.text(max_size=50))
def test_listing_every_fact_gets_full_marks_and_nothing_raises(facts: list[str], noise: str) -> None:
    parsed = parse_facts("<AND>".join(facts))
    assert rule_score(", ".join(facts), parsed).value == 1
    value = rule_score(noise, parsed).value
    assert value is not None
    assert 0 <= value <= 1
