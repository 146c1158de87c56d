"""ChartQA's relaxed accuracy, as published and as a variant that reads numbers as people write them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

TOLERANCE = 0.05  # of the target, ChartQA paper (arXiv 2203.10244), section 5.1


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(prediction: str, target: str, tolerance: float = TOLERANCE) -> bool:
    """Whether a number is within 5 % of the target, or a text equals it ignoring case.

    ChartQA paper (arXiv 2203.10244), section 5.1, as Qwen-VL's `evaluate_vqa.py` and lmms-eval have
    it. Their quirks are part of the published numbers and kept: `45%` is 0.45 while a bare 45 stays
    45, thousands separators are not read, and a target of zero is compared as text.

    Args:
        tolerance: Largest relative difference of numbers.
    """
    given, wanted = _number(prediction), _number(target)
    if given is not None and wanted:
        return abs(given - wanted) / abs(wanted) <= tolerance
    return prediction.lower() == target.lower()


@dataclass(frozen=True)
class Quantity:
    """A number as people write it.

    Attributes:
        value: The number itself: 45 in `45%`, 5.2 in `$5.2 million`.
        units: What is written around it, in lower case and the singular: `{"$", "million"}`.
    """

    value: float
    units: frozenset[str]


_CURRENCY = r"US\$|USD|EUR|GBP|[$€£¥₹]"
_WORD = r"[^\W\d_]+(?:[/.-][^\W\d_]+)*"
_QUANTITY = re.compile(
    rf"""
    (?P<sign>[-+\u2212]?)\s*
    (?P<before>{_CURRENCY})?\s*
    (?P<inner>[-+\u2212]?)
    (?P<digits>[0-9]{{1,3}}(?:(?P<gap>[,\ \u00a0\u202f])[0-9]{{3}})(?:(?P=gap)[0-9]{{3}})*|[0-9]*)
    (?P<decimals>\.[0-9]*)?
    (?P<power>[eE][-+]?[0-9]{{1,3}}(?![^\W_]))?
    \s*
    (?P<unit>
        [%‰$€£¥₹] | per\ ?cent
        | (?:(?:thousand|million|billion|trillion)\s+)? [°º]?{_WORD}
    )?
    \.?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LONGEST = 100  # nobody writes a longer number; answers are untrusted and may be a book
_SAME = {"percent": "%", "usd": "$", "us$": "$", "dollar": "$", "eur": "€", "euro": "€", "gbp": "£"}


def quantity(text: str) -> Quantity | None:
    """Reads a text that is one number and nothing else; None for any other.

    A number may have a sign, a currency before it, thousands separated by commas or spaces in groups of
    three, decimals after a full stop, a power of ten (`1.2e6`), and one unit after it: a sign (`%`, `€`),
    `per cent`, a word (`km/h`), or `thousand` to `trillion` with or without one. Digits are ASCII.
    """
    text = text.strip()
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None or (match["sign"] and match["inner"]):
        return None
    digits = re.sub(r"[^0-9]", "", match["digits"]) + (match["decimals"] or "")
    if not digits.strip("."):
        return None
    value = float(digits + (match["power"] or ""))
    if not math.isfinite(value):
        return None
    negative = (match["sign"] or match["inner"]) in ("-", "\u2212")
    words = [match["before"] or "", *(match["unit"] or "").split()]
    if (match["unit"] or "").lower() == "per cent":
        words[1:] = ["%"]
    units = frozenset(_unit(word) for word in words if word)
    return Quantity(-value if negative else value, units)


def _unit(word: str) -> str:
    word = word.lower()
    word = word.removesuffix("s") if len(word) > 2 else word
    return _SAME.get(word, word)


def strict_match(prediction: str, target: str, tolerance: float = TOLERANCE) -> bool:
    """Whether two numbers agree within 5 % however they are written, or two texts but for case.

    Where both sides are a number (see `quantity`) their values are compared as they stand: `45%` and
    45 are the same, 0.45 is not; `1,000` is 1000; `$5` is 5. Units that only one side has are passed
    over, and units that differ make a difference: `5 km` is 5, but not `5 miles`. A target of zero has no
    percentage to be within: it is met by zero alone, however it is written.

    Args:
        tolerance: Largest relative difference of numbers.
    """
    given, wanted = quantity(prediction), quantity(target)
    if given is None or wanted is None:
        return prediction.strip().lower() == target.strip().lower()
    if not (given.units <= wanted.units or wanted.units <= given.units):
        return False
    if not wanted.value:
        return not given.value
    return abs(given.value - wanted.value) / abs(wanted.value) <= tolerance
