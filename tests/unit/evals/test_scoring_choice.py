"""Reading option letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.evals.scoring.choice import (
    cell_text,
    llava_letter,
    lmms_letter,
    mmbench_letter,
    option_cells,
    option_letter,
    option_text,
)


@pytest.mark.parametrize(
    ("response", "n", "letter"),
    [
        ("B", 4, "B"),
        (" B\n", 4, "B"),
        ("B. a red cube", 4, "B"),
        ("B.", 4, None),
        ("B) a red cube", 4, None),
        ("b", 4, None),
        ("It is round. The answer is C.", 4, "C"),
        ("The answer is C", 4, None),
        ("The answer is C, surely", 4, "C"),
        ("The answer is B. The answer is C.", 4, None),
        ("D", 3, None),
        ("The answer is E.", 5, "E"),
        ("F", 6, None),  # the scripts know five options
        ("The answer is F.", 6, None),
        ("", 4, None),
    ],
)
def test_llava_letter(response: str, n: int, letter: str | None) -> None:
    assert llava_letter(response, n) == letter


@pytest.mark.parametrize(
    ("response", "n", "letter"),
    [
        ("B", 4, "B"),
        (" b\n", 4, "B"),
        ("B.", 4, "B"),
        ("B.5 metres", 4, "B"),
        ("b.", 4, None),
        ("(B)", 4, None),
        ("The answer is B.", 4, None),
        ("D", 3, None),
        ("D. x", 3, None),
        ("F", 6, "F"),
        ("BC", 4, None),
        ("", 4, None),
        (".", 4, None),
    ],
)
def test_lmms_letter(response: str, n: int, letter: str | None) -> None:
    assert lmms_letter(response, n) == letter


def test_cells_of_missing_texts_and_options() -> None:
    assert [cell_text(cell) for cell in (None, float("nan"), "nan", "NaN", "", "banana", 3)] == [
        *[""] * 5,
        "banana",
        3,
    ]
    assert option_cells({"A": "x", "B": 2, "C": "nan", "D": "y"}, "ABCD") == {"A": "x", "B": 2}
    assert option_cells({"A": "x", "B": "y", "C": "z"}, "AB") == {"A": "x", "B": "y"}


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("A", "A"),
        ("A.", "A"),
        ("(C)", "C"),
        ("Answer: D", "D"),
        ("Option B, surely", "B"),
        ("A cat sits there", None),  # an article
        ("A cat sits B", None),  # and nothing bare is trusted beside it
        ("A cat sits there: B.", "B"),
        ("A or B", None),
        ("E", "E"),
        ("abc", None),
        ("", None),
    ],
)
def test_option_letter(response: str, letter: str | None) -> None:
    assert option_letter(response) == letter


def test_option_text_needs_exactly_one() -> None:
    options = {"A": "red", "B": "dark red", "C": "Blue"}
    assert option_text("It is blue.", options) == "C"
    assert option_text("a red one", options) == "A"
    assert option_text("it is dark red", options) is None  # "red" is in it as well
    assert option_text("green", options) is None


def test_missing_options_are_not_found_in_bananas() -> None:
    assert mmbench_letter("a banana", {"A": "apple", "B": "banana"}) == "B"


@given(st.sampled_from("ABCDE"), st.sampled_from(["{}", "{}.", "({})", "{})", "{},", "({}).", "{}:", ":{}"]))
def test_a_dressed_letter_alone_is_read(letter: str, dress: str) -> None:
    assert option_letter(dress.format(letter)) == letter


@given(st.text(max_size=200), st.integers(2, 6))
def test_any_text_gives_an_option_or_nothing(text: str, n: int) -> None:
    assert llava_letter(text, n) in (None, *"ABCDE"[:n])
    assert lmms_letter(text, n) in (None, *"ABCDEF"[:n])
    assert option_letter(text) in (None, *"ABCDE")


@given(st.text(alphabet="ABCDE.()answer isthe:\n", max_size=60))
def test_white_space_around_an_answer_does_not_matter(text: str) -> None:
    assert llava_letter(f"\n {text.strip()} ", 5) == llava_letter(text.strip(), 5)
    assert option_letter(f" {text}\n") == option_letter(text)
