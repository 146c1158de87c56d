"""What is counted in SeVa's pairs, and in the answers of rows that count."""

from __future__ import annotations

import json

import pytest

from bench import counting, methods_md


@pytest.mark.parametrize(
    ("answer", "wanted"), [("3", 3), ("There are 12 objects.", 12), ("none", None), ("", None), ("2 of 5", 2)]
)
def test_the_first_whole_number_is_the_answers(answer: str, wanted: int | None) -> None:
    assert counting.number(answer) == wanted


def test_pairs_count_if_asked_for_a_number_and_both_answers_have_another() -> None:
    pairs = [
        ("How many are left?", "2", "3"),
        ("How many are left?", "There are 4 objects.", "1"),
        ("How many are left?", "2", "2 objects"),  # the same number
        ("How many are left?", "2", "none"),
        ("What is the sum?", "2", "9"),
    ]
    assert counting.compare(pairs) == {"pairs": 5, "counting": 2, "larger": 1, "three_or_four": 1}


def test_only_rows_that_count_are_looked_at() -> None:
    rows = [
        {"question": question, "score": score, "response": response, "target": "3"}
        for question, score, response in [
            ("How many?", 1.0, "3"), ("How many?", 0.0, "2"), ("How many?", 0.0, "5"),
            ("How many?", 0.0, "B"), ("Which?", 1.0, "3"), ("Which?", 0.0, "1"),
        ]
    ]  # fmt: skip
    assert counting.right(rows) == (1, 1, 4)


def test_what_the_page_says_of_counting_is_what_was_measured() -> None:
    """Most dispreferred numbers are larger, and with much noise rows that count lose by it."""
    found = {row["step"]: row for row in json.loads(counting.OUT.read_text(encoding="utf-8"))}
    assert tuple(found) == counting.STEPS
    for row in found.values():
        assert row["larger"] > row["counting"] / 2
    noisiest = found[800]
    assert noisiest["after"] < noisiest["before"]
    assert noisiest["low_after"] > noisiest["low_before"]
    assert "learns to give smaller numbers" in " ".join(methods_md.PAGE.read_text(encoding="utf-8").split())
