"""MathVista: extraction by rule, normal form, verdict."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.evals.scoring.mathvista import extract, is_correct, normalise

CHOICES = ("30°", "40°", "145°")


@pytest.mark.parametrize(
    ("response", "extraction"),
    [
        ("40°", "40°"),
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("(B) 40°", "B"),
        ("B: 40°", "B"),
        ("The correct answer is (C) 145°.", "C"),
        ("Answer: C", "C"),
        ("We rule out 30° and 40°, so it must be (C).", "C"),
        ("It is 145° wide.", "C"),
        ('The answer is "40°".', "40°"),
        ("D", None),
        ("(A) or (B)", None),
        ("It is 30° or 40°.", None),
        ("I cannot tell.", None),
        ("", None),
    ],
)
def test_extract_a_choice(response: str, extraction: str | None) -> None:
    assert extract(response, "multi_choice", "text", CHOICES) == extraction


@pytest.mark.parametrize(
    ("response", "kind", "extraction"),
    [
        ("12", "integer", "12"),
        (" -7\n", "integer", "-7"),
        ("12.0", "integer", "12.0"),
        ("1.20", "float", "1.2"),
        ("There are 12 cubes.", "integer", "12"),
        ("There are 1,234 cubes.", "integer", "1234"),
        ("3 + 4 = 7\nThe answer is 7.", "integer", "7"),
        ("3 and 4\nso 7 in all", "integer", "7"),
        ("between 3 and 4", "integer", None),
        ("none", "integer", None),
        ("It costs $1.25.", "float", "1.25"),
        ("[1, 2]", "list", "[1, 2]"),
        ("The list is [1, 2].", "list", "[1, 2]"),
        ("[1] or [2]", "list", None),
        ("It is H2O", "integer", None),
        ("2.</s>", "integer", "2"),
    ],
)
def test_extract_a_number_or_list(response: str, kind: str, extraction: str | None) -> None:
    assert extract(response, "free_form", kind) == extraction


@pytest.mark.parametrize(
    ("extraction", "normal"),
    [("B", "40°"), ("(b) something", "40°"), ("b", "30°"), ("145", "145°"), ("  C ", "145°"), ("D", "30°")],
)
def test_normalise_a_choice(extraction: str, normal: str) -> None:
    assert normalise(extraction, "multi_choice", "text", CHOICES) == normal


@pytest.mark.parametrize(
    ("extraction", "kind", "precision", "normal"),
    [
        ("12.9", "integer", None, "12"),
        ("1e3", "integer", None, "1000"),
        ("1.25", "float", 1, "1.2"),
        ("1.25", "float", 1.0, "1.2"),  # the hub stores it so
        ("1", "float", 2, "1.0"),
        ("about 12", "integer", None, None),
        ("inf", "integer", None, None),
        ("nan", "integer", None, None),
        ("", "float", 1, None),
        ("[1, 2]", "list", None, "[1, 2]"),
    ],
)
def test_normalise_numbers(extraction: str, kind: str, precision: float | None, normal: str | None) -> None:
    assert normalise(extraction, "free_form", kind, (), precision) == normal


def test_a_choice_needs_choices() -> None:
    with pytest.raises(ValueError, match="without choices"):
        normalise("A", "multi_choice", "text")


def test_what_is_no_number_is_wrong_even_if_the_answer_is_called_none() -> None:
    assert not is_correct("many", "None", "free_form", "integer")


@given(st.integers(-(10**12), 10**12))
def test_any_integer_answer_is_read_and_right(value: int) -> None:
    for response in (str(value), f"The answer is {value}.", f"It is {value} cm"):
        extraction = extract(response, "free_form", "integer")
        assert extraction is not None
        assert is_correct(extraction, str(value), "free_form", "integer")


@given(st.text(max_size=200), st.sampled_from(["text", "integer", "float", "list"]))
def test_nothing_raises_and_a_choice_always_normalises_to_a_choice(text: str, kind: str) -> None:
    free = extract(text, "free_form", kind)
    if free is not None:
        assert is_correct(free, "x", "free_form", kind) in (True, False)
    chosen = extract(text, "multi_choice", "text", CHOICES)
    if chosen is not None:
        assert normalise(chosen, "multi_choice", "text", CHOICES) in CHOICES
