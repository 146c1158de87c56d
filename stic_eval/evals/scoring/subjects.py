"""Whose fact it is: "The green star is at the top left." says nothing about the blue star.

Exact, in the words of the embedded world. An answer is read clause by clause. A clause says a fact of a
subject if it names the fact, and no colour, shape, sign, measure or relation but those of the two; where one
of the two is a place, no other place either, and where objects are counted, no other size. What a place is
next to may be named behind it. A clause that names none of these ("It is at the top left.", "top left") is
about what was asked, unless its pronoun stands for something named before. Where another clause says
something else of the same subject, the answer does not say the fact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from stic_eval.pocket.world import COLORS, OBJECT_SIZES, POSITIONS, SHAPES

Kind = Literal["place", "relation", "color", "shape", "size", "measure", "sign", "number"]
# Of the embedded world's words: a kind of word, and the word.
Word = tuple[Kind, str]

_COLOR, _SHAPE, _SIZE = "|".join(COLORS), "|".join(SHAPES), "|".join(OBJECT_SIZES)
_PLACE = "|".join(place.replace(" ", r"\s+") for place in sorted(POSITIONS, key=len, reverse=True))
_NEAR = r"above|below|under|over|behind|beside|near|between|next\s+to|close\s+to|in\s+front\s+of"
# What something can be next to: the large red ring, the sign, it.
_OBJECT = (
    rf"(?:it|them|(?:the|an?)\s+(?:(?:{_SIZE})\s+)?(?:(?:{_COLOR})\s+(?:{_SHAPE}|object)|{_COLOR}|{_SHAPE}|object|sign)"
    r"(?:e?s)?)\b"
)
_LANDMARK = re.compile(
    rf"(?:\b(?:to|at|on)\s+the\s+)?\b(?:(?:left|right|top|bottom)\s+of|{_NEAR})\s+{_OBJECT}(?:\s+and\s+{_OBJECT})?",
    re.IGNORECASE,
)
_WORD = re.compile(
    rf"\b(?:(?P<place>{_PLACE})(?!\s+of\s+{_OBJECT})|(?P<relation>left|right|top|bottom|{_NEAR})|(?P<color>{_COLOR})"
    rf"|(?P<shape>{_SHAPE})(?:e?s)?|(?P<size>{_SIZE})|(?P<measure>highest|lowest)(?:\s+value)?"
    r"|(?P<amount>sum|difference|value)|(?P<sign>sign))\b|(?<![\w.,-])(?P<number>-?\d+(?:[.,]\d+)*)(?!\w)",
    re.IGNORECASE,
)
_THING = re.compile(rf"\b(?:{_COLOR})\s+(?:{_SHAPE})(?:e?s)?\b", re.IGNORECASE)
# What a clause is about: the first of these that it names.
_HEAD = re.compile(
    rf"\b(?:(?:{_COLOR})\s+(?:{_SHAPE}|object)|{_COLOR}|{_SHAPE}|sign)(?:e?s)?\b", re.IGNORECASE
)
# "The star ..." tells of the star; "There is a star at the top." tells what is at the top.
_TOPIC = re.compile(
    rf"\bthe\s+(?:(?:{_SIZE})\s+)?(?:(?:{_COLOR})\s+)?(?:{_SHAPE}|object|sign)\b", re.IGNORECASE
)

_SENTENCE_END = re.compile(r"[.;!?](?!\d)|\n")
_JOINT = re.compile(
    r"(\s*,\s+(?:(?:and|but|so|while|whereas)\s+)?|\s+(?:and|but|so|while|whereas)\s+)", re.IGNORECASE
)
_VERB = re.compile(r"\b(?:is|are|was|were|has|have|says|lies|remains?)\b", re.IGNORECASE)
_COUNTED = re.compile(rf"\b(?:objects?|of\s+them|{_SIZE}|{_COLOR})\b", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(?:it|they|them)\b", re.IGNORECASE)
_REMAINING = re.compile(r"\b(?:(?:are|is|objects?)\s+left|remain\w*)\b", re.IGNORECASE)
_OBJECTS = re.compile(r"\bobjects?\b", re.IGNORECASE)


class _Clause(NamedTuple):
    """A clause, and what its pronoun or its missing subject stands for (None: it has neither)."""

    text: str
    about: frozenset[Word] | None


def says_of(answer: str, fact: str, subject: str, names: Callable[[str, str], bool]) -> bool:
    """Whether an answer says a fact of its subject, and nothing else of its kind.

    Args:
        fact: Such as `top left`, `5`, `purple triangle`.
        subject: What it is a fact of, such as `blue star`.
        names: Whether a text names a fact, without negating it.
    """
    wanted, asked = _words(fact), _words(subject)
    clauses = list(_clauses(answer))
    if _counts(wanted, asked):
        # "There are 5 objects, 2 of them blue, so 3 are left."
        clauses = [clause for clause in clauses if _REMAINING.search(clause.text)] or clauses
    if any(_says_otherwise(clause, wanted, asked, names(clause.text, subject)) for clause in clauses):
        return False
    return any(
        wanted <= _words(clause.text)
        and names(_without_landmark(clause.text, fact), fact)
        and not _strangers(clause, wanted, asked)
        for clause in clauses
    )


# ---------------------------------------------------------------- clauses


def _clauses(answer: str) -> Iterator[_Clause]:
    head: frozenset[Word] = frozenset()
    for sentence in _SENTENCE_END.split(answer):
        for number, text in enumerate(_statements(sentence)):
            bare = number > 0 and _VERB.match(text.lstrip())
            refers = bare or _PRONOUN.search(_LANDMARK.sub("", text))
            yield _Clause(text, head if refers else None)
            if not refers and (named := _HEAD.search(text)):
                head = _words(named[0])


def _statements(sentence: str) -> list[str]:
    """The statements that commas and conjunctions join: in "The sum of red and blue is 9" there is one."""
    first, *rest = _JOINT.split(sentence)
    found = [first]
    for joint, piece in zip(rest[::2], rest[1::2], strict=True):
        if _is_statement(found[-1]) and _is_statement(piece):
            found.append(piece)
        else:
            found[-1] += joint + piece
    return found


def _is_statement(text: str) -> bool:
    kinds = {kind for kind, _ in _words(text)}
    counted = "number" in kinds and _COUNTED.search(text)
    return bool(_VERB.search(text) or counted or ("place" in kinds and kinds & {"color", "shape", "sign"}))


# ---------------------------------------------------------------- words


@lru_cache(maxsize=4096)
def _words(text: str) -> frozenset[Word]:
    found: set[Word] = set()
    for match in _WORD.finditer(text):
        kind = match.lastgroup
        text_of = " ".join(match[str(kind)].lower().split())
        found.add(("measure" if kind == "amount" else kind, text_of))  # type: ignore[arg-type]
    return frozenset(found)


def _kinds(words: frozenset[Word]) -> set[Kind]:
    return {kind for kind, _ in words}


def _counts(wanted: frozenset[Word], asked: frozenset[Word]) -> bool:
    """Whether objects are counted, rather than a value read."""
    return _kinds(wanted) == {"number"} and "measure" not in _kinds(asked)


def _strangers(clause: _Clause, wanted: frozenset[Word], asked: frozenset[Word]) -> set[Word]:
    """What a clause names, or stands for, beside a fact and its subject. Numbers are no strangers."""
    named, free = _kinds(wanted | asked), {"number"}
    free |= {kind for kind in ("place", "relation", "size") if kind not in named}
    if _counts(wanted, asked):
        free.discard("size")
    text = _without_neighbours(clause.text) if _kinds(wanted) == {"place"} else clause.text
    # Fact and subject may be one thing ("a green star"); two things lend each other no words.
    known = [wanted, asked] if len(wanted) > 1 and len(asked) > 1 else [wanted | asked]
    crossed = [
        words
        for thing in _THING.findall(text)
        if not any((words := _words(thing)) <= whole for whole in known)
    ]
    found = ((_words(text) | (clause.about or frozenset())) - wanted - asked).union(*crossed)
    return {word for word in found if word[0] not in free}


def _says_otherwise(clause: _Clause, wanted: frozenset[Word], asked: frozenset[Word], literal: bool) -> bool:
    """Whether a clause tells of the subject, and something else of the fact's kind instead of it.

    Args:
        literal: Whether the clause names the subject as it is written.
    """
    kinds, found = _kinds(asked), _words(clause.text)
    if clause.about is not None and "number" not in _kinds(wanted):
        # "It", where nothing was named before, is what was asked about.
        found |= clause.about or asked
    if _counts(wanted, asked):
        about = bool(asked) or bool(_OBJECTS.search(clause.text))
    elif "relation" in kinds:
        about = literal
    elif "measure" in kinds:
        about = True
    else:
        topic = _topic(clause, asked)
        about = not topic if "place" in kinds else topic == asked
    if not about or not asked <= found or wanted <= found:
        return False
    instead = {word for word in found - asked if word[0] in _kinds(wanted)}
    return bool(instead) and _strangers(clause, wanted, asked) <= instead


def _topic(clause: _Clause, asked: frozenset[Word]) -> frozenset[Word]:
    if clause.about is not None:
        return clause.about or (frozenset() if "place" in _kinds(asked) else asked)
    named = _TOPIC.search(clause.text)
    return frozenset(word for word in _words(named[0]) if word[0] != "size") if named else frozenset()


# ---------------------------------------------------------------- where something else is


def _without_landmark(clause: str, fact: str) -> str:
    """Without the fact where it only says where something else is: left of the red square."""
    return re.sub(rf"\bof\s+(?:the|an?)\s+{re.escape(fact)}\b", "", clause, flags=re.IGNORECASE)


def _without_neighbours(clause: str) -> str:
    """Without what a place is next to: "at the top, next to the ring", "left of the ring, at the top"."""
    place = next((match for match in _WORD.finditer(clause) if match.lastgroup == "place"), None)
    if place is None:
        return clause
    before = re.sub(rf"(?:{_LANDMARK.pattern})\s*,", "", clause[: place.start()], flags=re.IGNORECASE)
    return before + place[0] + _LANDMARK.sub("", clause[place.end() :])
