"""Whose fact it is: "The green star is at the top left." says nothing about the blue star.

Exact, in the words of the embedded world. A sentence says a fact of a subject if it names the fact, and no
colour, shape, sign or measure but those of the two; where one of the two is a place, no other place either.
A sentence that names none of these ("It is at the top left.", "top left") is about what was asked. Where
another sentence says something else of the same subject, the answer does not say the fact.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from stic_eval.pocket.world import COLORS, POSITIONS, SHAPES

# Of the embedded world's words: a kind of word, and the word.
Word = tuple[Literal["place", "color", "shape", "measure", "sign", "number"], str]

_COLOR, _SHAPE = "|".join(COLORS), "|".join(SHAPES)
_PLACE = "|".join(place.replace(" ", r"\s+") for place in sorted(POSITIONS, key=len, reverse=True))
_SENTENCE_END = re.compile(r"[.;!?](?!\d)|\n")
_LISTED = re.compile(rf",\s*(?:and\s+)?(?=(?:{_COLOR})\s+is\b)", re.IGNORECASE)
_WORD = re.compile(
    rf"\b(?:(?P<place>{_PLACE})(?!\s+of\s+(?:the|an?)\s+(?:{_COLOR}|{_SHAPE}))|(?P<color>{_COLOR})"
    rf"|(?P<shape>{_SHAPE})(?:e?s)?|(?P<measure>highest|lowest)(?:\s+value)?|(?P<amount>sum|difference|value)"
    r"|(?P<sign>sign))\b|(?<![\w.,-])(?P<number>-?\d+(?:[.,]\d+)*)(?!\w)",
    re.IGNORECASE,
)
_THING = re.compile(rf"\b(?:{_COLOR})\s+(?:{_SHAPE})(?:e?s)?\b", re.IGNORECASE)
# "The star ..." tells of the star; "There is a star at the top." tells what is at the top.
_TOPIC = re.compile(
    rf"\bthe\s+(?:(?:small|large)\s+)?(?:(?:{_COLOR})\s+)?(?:{_SHAPE}|object|sign)\b", re.IGNORECASE
)


def said_of(answer: str, fact: str, subject: str, names: Callable[[str, str], bool]) -> bool:
    """Whether an answer says a fact of its subject, and nothing else of its kind.

    Args:
        answer: The model's answer, untrusted.
        fact: Such as `top left`, `5`, `purple triangle`.
        subject: What it is a fact of, such as `blue star`.
        names: Whether a text names a fact, without negating it.
    """
    wanted, asked = _words(fact), _words(subject)
    sentences = _SENTENCE_END.split(_LISTED.sub("\n", answer))
    if any(_says_otherwise(sentence, wanted, asked) for sentence in sentences):
        return False
    return any(
        names(_without_landmark(sentence, fact), fact) and not _strangers(sentence, wanted, asked)
        for sentence in sentences
    )


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[Word]:
    found: set[Word] = set()
    for match in _WORD.finditer(text):
        kind = match.lastgroup
        text_of = " ".join(match[str(kind)].lower().split())
        found.add(("measure" if kind == "amount" else kind, text_of))  # type: ignore[arg-type]
    return frozenset(found)


def _strangers(sentence: str, wanted: frozenset[Word], asked: frozenset[Word]) -> set[Word]:
    """What a sentence names beside a fact and its subject. Numbers are no strangers."""
    free = {"number"} if any(kind == "place" for kind, _ in wanted | asked) else {"number", "place"}
    # Fact and subject may be one thing ("a green star"); two things lend each other no words.
    known = [wanted, asked] if len(wanted) > 1 and len(asked) > 1 else [wanted | asked]
    crossed = [
        words
        for thing in _THING.findall(sentence)
        if not any((words := _words(thing)) <= whole for whole in known)
    ]
    found = (_words(sentence) - wanted - asked).union(*crossed)
    return {word for word in found if word[0] not in free}


def _says_otherwise(sentence: str, wanted: frozenset[Word], asked: frozenset[Word]) -> bool:
    """Whether a sentence tells of the subject, and something else of the fact's kind instead of it."""
    found, kinds = _words(sentence), {kind for kind, _ in asked}
    topic = _words(named[0]) if (named := _TOPIC.search(sentence)) else frozenset()
    about = "measure" in kinds or (not topic if "place" in kinds else topic == asked)
    if not about or not asked or not asked <= found or wanted <= found:
        return False
    instead = {word for word in found - asked if word[0] in {kind for kind, _ in wanted}}
    return bool(instead) and _strangers(sentence, wanted, asked) <= instead


def _without_landmark(sentence: str, fact: str) -> str:
    """Without the fact where it only says where something else is: left of the red square."""
    return re.sub(rf"\bof\s+(?:the|an?)\s+{re.escape(fact)}\b", "", sentence, flags=re.IGNORECASE)
