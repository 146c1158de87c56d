"""MathVista: reading an answer out of a response by rule, normalising it, comparing it.

The official protocol (github lupantech/MathVista, `evaluation/extract_answer.py` and
`calculate_score.py`) tries a few quick rules, hands what they leave to a language model, then
normalises the extraction to the problem's answer type and compares strings. `extract` has the
quick rules and a few more that need no judgement: on the authors' five recorded models they agree
with the judge's extraction in the verdict on over 99 % of what they read (a test says so). What no
rule reads is None: a judge's work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_uppercase

from rapidfuzz.distance import Levenshtein

_QUOTED = re.compile(r'The answer is "(.*)"\.')
_NUMBER = r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?!\w*\d)"
_NUMBERS = re.compile(_NUMBER)
_STATED_NUMBER = re.compile(
    rf"(?:answer(?: to the question)? is|answer:)[^\d\n.-]{{0,20}}?({_NUMBER})", re.IGNORECASE
)
_LIST = re.compile(r"\[[^\[\]]*\]")
_PARENTHESISED = re.compile(r"\(([a-zA-Z])\)")
# A choice's text decides only in answers as short as this: longer ones weigh the choices.
_SHORT = 80


def extract(response: str, question_type: str, answer_type: str, choices: Sequence[str] = ()) -> str | None:
    """Reads the answer by rule.

    Args:
        question_type: `multi_choice` or `free_form`.
        answer_type: `text`, `integer`, `float` or `list`.
        choices: The choices' texts of a multiple-choice problem.

    Returns:
        The extraction (a choice's text or letter, a number, a list), or None if no rule applies.
    """
    text = response.strip().removesuffix("</s>").rstrip()
    if not text:
        return None
    if question_type == "multi_choice":
        if text in choices:
            return text
    elif answer_type in ("integer", "float"):
        try:
            return str(int(text)) if answer_type == "integer" else str(float(text))
        except ValueError:
            pass
    quoted = _QUOTED.search(text)
    if quoted:
        return quoted.group(1)
    if question_type == "multi_choice":
        return _choice(text, choices)
    if answer_type in ("integer", "float"):
        return _number(text)
    lists: set[str] = set(_LIST.findall(text))
    return lists.pop() if len(lists) == 1 else None


@lru_cache(maxsize=32)
def _letter_rules(n: int) -> tuple[re.Pattern[str], ...]:
    letter = f"([A-{ascii_uppercase[n - 1]}])"
    return (
        re.compile(rf"^\(?{letter}\)?[.:]?$"),
        re.compile(rf"^\(?{letter}[).:]\s(?!(?s:.*)\([A-Z]\))"),  # `(A) or (B)` says neither
        re.compile(rf"(?i:answer|option|choice)(?: is|:)+ *(?:option )?\**\(?{letter}(?:\)|\.|,|$| *\()"),
        re.compile(rf"\({letter}\)"),
    )


def _choice(text: str, choices: Sequence[str]) -> str | None:
    for rule in _letter_rules(len(choices)) if choices else ():
        found = set(rule.findall(text))
        if len(found) == 1:
            return str(found.pop())
    if len(text) >= _SHORT:
        return None
    lower = text.lower()
    named = [c for c in choices if re.search(rf"(?<!\w){re.escape(c.lower())}(?!\w)", lower)]
    return ascii_uppercase[choices.index(named[0])] if len(named) == 1 else None


def _number(text: str) -> str | None:
    for rule, where in ((_STATED_NUMBER, text), (_NUMBERS, text.rsplit("\n", 1)[-1])):
        found = {str(number).replace(",", "") for number in rule.findall(where)}
        if len(found) == 1:
            return found.pop()
    return None


def normalise(
    extraction: str,
    question_type: str,
    answer_type: str,
    choices: Sequence[str] = (),
    precision: float | None = None,
) -> str | None:
    """Brings an extraction into the form of the annotated answers (official rules).

    Multiple choice: a letter in parentheses, or a letter, becomes its choice's text; anything else
    the choice with the smallest edit distance. Integers are truncated, floats rounded to `precision`.

    Returns:
        The normal form, or None if the extraction is no such number.

    Raises:
        ValueError: A multiple-choice problem without choices.
    """
    if question_type == "multi_choice":
        if not choices:
            raise ValueError("a multiple-choice problem without choices")
        text = extraction.strip()
        lettered = _PARENTHESISED.search(text)
        if lettered:
            text = lettered.group(1).upper()
        if len(text) == 1 and text in ascii_uppercase[: len(choices)]:
            return choices[ascii_uppercase.index(text)]
        return min(choices, key=lambda choice: Levenshtein.distance(text, choice))
    try:
        if answer_type == "integer":
            return str(int(float(extraction)))
        if answer_type == "float":
            # The hub stores the precision as a float, which round() refuses.
            return str(round(float(extraction), None if precision is None else int(precision)))
    except (ValueError, OverflowError):
        return None
    return extraction


def is_correct(
    extraction: str,
    answer: str,
    question_type: str,
    answer_type: str,
    choices: Sequence[str] = (),
    precision: float | None = None,
) -> bool:
    """Whether the normalised extraction equals the annotated answer."""
    normal = normalise(extraction, question_type, answer_type, choices, precision)
    return normal is not None and normal.strip() == answer.strip()
