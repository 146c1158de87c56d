"""ChartQA's relaxed accuracy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.evals.scoring.relaxed import relaxed_match


@pytest.mark.parametrize(
    ("prediction", "target", "right"),
    [
        ("105", "100", True),
        ("105.1", "100", False),
        ("95", "100", True),
        ("-95", "-100", True),
        ("100.0", "100", True),
        ("45%", "0.45", True),
        ("45%", "45", False),  # the published metric's quirk
        ("45%", "45%", True),
        ("1,000", "1000", False),
        ("0", "0", True),
        ("0.0", "0", False),  # a target of zero is text
        ("Yes", "yes", True),
        ("Yes.", "yes", False),
        ("", "5", False),
        ("five", "5", False),
    ],
)
def test_relaxed_match(prediction: str, target: str, right: bool) -> None:
    assert relaxed_match(prediction, target) is right


numbers = st.floats(min_value=-1e9, max_value=1e9).filter(lambda x: abs(x) > 1e-6)


@given(numbers, st.floats(min_value=-0.0499, max_value=0.0499))
def test_numbers_within_the_tolerance_are_right(value: float, error: float) -> None:
    assert relaxed_match(repr(value * (1 + error)), repr(value))


@given(numbers, st.floats(min_value=0.0501, max_value=10), st.sampled_from([-1, 1]))
def test_numbers_beyond_the_tolerance_are_wrong(value: float, error: float, sign: int) -> None:
    assert not relaxed_match(repr(value * (1 + sign * error)), repr(value))


@given(st.text(max_size=50), st.text(max_size=50))
def test_texts_never_raise_and_equal_ones_are_right_unless_not_a_number(a: str, b: str) -> None:
    assert relaxed_match(a, b) in (True, False)
    assert relaxed_match(a, a) or a.strip().lower().strip("+-%") in ("nan", "inf", "infinity")
