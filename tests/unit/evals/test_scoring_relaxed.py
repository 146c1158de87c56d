"""ChartQA's relaxed accuracy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.evals.scoring.relaxed import quantity, relaxed_match, strict_match


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


# ---------------------------------------------------------------- strict


@pytest.mark.parametrize(
    ("text", "value", "units"),
    [
        ("45", 45, ""),
        (" 45. ", 45, ""),
        ("+.5", 0.5, ""),
        ("-3.25", -3.25, ""),
        ("\u22123", -3, ""),
        ("1.2e6", 1.2e6, ""),
        ("1,234,567.5", 1234567.5, ""),
        ("12\u00a0345", 12345, ""),
        ("12 345 people", 12345, "people"),
        ("45%", 45, "%"),
        ("45 per cent", 45, "%"),
        ("45 percent", 45, "%"),
        ("$5.2 million", 5.2, "$ million"),
        ("-$5", -5, "$"),
        ("US$ 5", 5, "$"),
        ("5 dollars", 5, "$"),
        ("5\u20ac", 5, "\u20ac"),
        ("5 million Years", 5, "million year"),
        ("90 km/h", 90, "km/h"),
        ("21\u00b0C", 21, "\u00b0c"),
        ("3 m\u00b2", 3, "m\u00b2"),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, value: float, units: str) -> None:
    found = quantity(text)
    assert found is not None
    assert (found.value, found.units) == (pytest.approx(value), frozenset(units.split()))


@pytest.mark.parametrize(
    "text",
    ["", ".", "%", "$", "five", "1,00", "1,0000", "1,000 000", "1_000", "nan", "inf", "1e400", "\u0663",
     "18-24", "2014 2015", "5 of the 7", "about 5", "5 or so then", "--5", "-$-5", "45%%", "1.2.3", "x5",
     "1" * 101],
)  # fmt: skip
def test_everything_else_is_text(text: str) -> None:
    assert quantity(text) is None


@pytest.mark.parametrize(
    ("prediction", "target", "right"),
    [
        ("105", "100", True),
        ("105.1", "100", False),
        ("45%", "45", True),
        ("45", "45%", True),
        ("45%", "0.45", False),
        ("1,000", "1000", True),
        ("$5", "5 million", False),  # each has a unit that the other lacks
        ("$5", "$5 million", True),
        ("5 years", "5 Year", True),
        ("5 km", "5 miles", False),
        ("0.0", "0", True),
        ("-0", "0%", True),
        ("0.001", "0", False),
        ("0", "0.001", False),
        (" Yes", "yes ", True),
        ("Yes.", "yes", False),
        ("five", "5", False),
        ("", "0", False),
    ],
)
def test_strict_match(prediction: str, target: str, right: bool) -> None:
    assert strict_match(prediction, target) is right


@given(
    numbers, st.floats(min_value=-0.0499, max_value=0.0499), st.sampled_from(["{}", "${}", "{} kg", "{}%"])
)
def test_strict_numbers_within_the_tolerance_are_right(value: float, error: float, dress: str) -> None:
    assert strict_match(dress.format(f"{value * (1 + error):,.9f}"), f"{value:.9f}")


@given(st.text(max_size=50), st.text(max_size=50))
def test_strict_never_raises_and_equal_texts_are_right(a: str, b: str) -> None:
    assert strict_match(a, b) in (True, False)
    assert strict_match(a, a)
