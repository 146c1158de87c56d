"""TextVQA's answer processor and accuracy."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.evals.scoring.vqa import evalai, vqa_accuracy


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Dog", "dog"),
        ("two", "2"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),  # only one apostrophe may be missing
        ("somebody'd", "somebodyd"),  # the published table has it so
        ("she's", "she 's"),
        ("Coca-Cola!", "coca cola"),
        ("a - b", "b"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("end.", "end"),
        ("U.S.A.", "usa"),
        ("$5.00", "$5.00"),
        ("new\nline\ttab", "new line tab"),
        ("a/b", "b"),
        ("", ""),
        ("." * 40 + "x", "." * 8 + "x"),  # the published code stops after 32 full stops
    ],
)
def test_evalai(text: str, normal: str) -> None:
    assert evalai(text) == normal


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_leaves_one_out(matches: int, accuracy: float) -> None:
    answers = ["Nokia."] * matches + [f"other {i}" for i in range(10 - matches)]
    assert vqa_accuracy("the nokia", answers) == pytest.approx(accuracy)


def test_no_answers_is_an_error() -> None:
    with pytest.raises(ValueError, match="no annotated answers"):
        vqa_accuracy("x", [])


@given(st.text(max_size=100))
def test_evalai_leaves_no_upper_case_articles_or_outer_space(text: str) -> None:
    normal = evalai(text)
    assert normal == " ".join(normal.split())
    assert not {"a", "an", "the"} & set(normal.split())
    assert normal == normal.lower()


WORDS = st.sampled_from(["yes", "no", "2", "two", "the cat", "cat", ""])


@given(WORDS, st.lists(WORDS, min_size=1, max_size=12))
def test_vqa_accuracy_is_the_mean_of_its_definition(response: str, answers: list[str]) -> None:
    normal = [evalai(answer) for answer in answers]
    by_definition = statistics.mean(
        min(1, sum(other == evalai(response) for j, other in enumerate(normal) if j != i) / 3)
        for i in range(len(normal))
    )
    assert vqa_accuracy(response, answers) == pytest.approx(by_definition)


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_accuracy_is_the_mean_over_leave_one_out_to_the_last_digit(matches: list[bool]) -> None:
    answers = ["yes" if match else "no" for match in matches]
    total = sum(matches)
    expected = sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)
    assert vqa_accuracy("yes", answers) == expected
