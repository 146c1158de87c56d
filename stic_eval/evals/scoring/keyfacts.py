"""Grading an open answer by the key facts it has to name: a rule, no judge.

The notation is MM-Vet's: `<AND>` separates facts that must all be named, `<OR>` alternatives of one. Embedded
rows add whose fact it is: `top left<OF>blue star` (see `stic_eval.evals.scoring.subjects`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from stic_eval.evals.scoring.subjects import says_of


class Fact(NamedTuple):
    """What an answer has to name.

    Attributes:
        alternatives: One of these will do.
        subject: What it is a fact of; empty: it counts wherever it is named.
    """

    alternatives: tuple[str, ...]
    subject: str = ""


Facts = tuple[Fact, ...]

# "no", "is not a", "without any": at most two words between the negation and the fact.
_NEGATED = re.compile(
    r"(?:(?<![\w'])(?:no|not|never|without|neither|nor|cannot)(?![\w'])(?!\s+only\b)|n['\u2019]t\b)(?:\s+[\w'-]+){0,2}\s+$",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[.,;:!?\n]")
_WINDOW = 60


def parse_facts(text: str) -> Facts:
    """`a<AND>b<OR>c<OF>d` -> `(Fact(("a",)), Fact(("b", "c"), "d"))`.

    Raises:
        ValueError: There is no fact in it.
    """
    facts = []
    for part in text.split("<AND>"):
        wordings, _, subject = part.partition("<OF>")
        alternatives = tuple(a.strip() for a in wordings.split("<OR>") if a.strip())
        if alternatives:
            facts.append(Fact(alternatives, subject.strip()))
    if not facts:
        raise ValueError(f"no key fact in {text!r}")
    return tuple(facts)


@lru_cache(maxsize=4096)
def _pattern(fact: str) -> re.Pattern[str]:
    words = r"\s+".join(re.escape(word) for word in fact.split())
    # Whole words; a number must not be part of another one: 5 is not in -5, 2.5, 5.1 or 5,000.
    before = r"(?<!\w)(?<!\d[.,])(?<!(?<![\w)])-)" if fact[:1].isdigit() else r"(?<!\w)"
    after = r"(?!\w)(?![.,]\d)" if fact[-1:].isdigit() else r"(?!\w)"
    return re.compile(before + words + after, re.IGNORECASE)


def names(answer: str, fact: str) -> bool:
    """Whether the answer names the fact as a whole word or phrase, ignoring case, and does not negate it."""
    for match in _pattern(fact).finditer(answer):
        clause = _CLAUSE_END.split(answer[max(0, match.start() - _WINDOW) : match.start()])[-1]
        if not _NEGATED.search(clause):
            return True
    return False


def named_facts(answer: str, facts: Facts) -> tuple[str, ...]:
    """Of each fact the first alternative that the answer names; facts not named are left out."""
    found = (next((a for a in fact.alternatives if _says(answer, a, fact.subject)), None) for fact in facts)
    return tuple(fact for fact in found if fact is not None)


def _says(answer: str, fact: str, subject: str) -> bool:
    return says_of(answer, fact, subject, names) if subject else names(answer, fact)
