"""Reading a judge's reply, strictly, and keeping a graded answer from speaking for the judge.

Whatever cannot be read for certain raises `Unreadable`: the sample then stays unscored. No reader
looks for a number or a letter "somewhere in the text". Pure functions on untrusted text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from stic_eval.contracts.benchmark import Unreadable

# A decimal number as judges write points; no sign, exponent, or digits of other scripts.
_NUMBER = r"[0-9]{1,4}(?:\.[0-9]{1,6})?"
_SHOWN = 60


def fraction(reply: str) -> float:
    """MM-Vet's correctness score (official protocol): the reply's first word, 0 to 1.

    The grader completes a table row, so remarks after the number and a blank or `|` are ignored.

    Raises:
        Unreadable: The reply does not begin with such a number (`90%`, `1.5`, words), or goes on as a
            ratio, a range or another number (`10/10`, `1 out of 10`, `0.5 - 0.7`).
    """
    first, _, rest = reply.replace("|", " ").strip().partition("\n")
    if not first:
        raise Unreadable("empty reply")
    word, *others = first.split(maxsplit=1)
    value = _number(word, 0, 1, reply)
    if _GOES_ON.match("".join(others)) or _GOES_ON.match(rest.strip()):
        raise Unreadable(f"more than one number: {quote(reply)}")
    return value


_GOES_ON = re.compile(r"[/%~\u2012-\u2015-]\s*[0-9]|%|(?:to|or|out of|of)\s+[0-9]|,?\s*[0-9]", re.IGNORECASE)


def score_pair(reply: str, response: str = "") -> tuple[float, float]:
    """LLaVA-Bench's points (official protocol) of the reference answer and of ours, 1 to 10 each.

    The first line that is not blank holds the two numbers and nothing else, separated by blanks or a
    comma. One other form occurs in recorded reviews: two lines `Assistant 1: 10` and `Assistant 2: 4`,
    one after the other and nowhere else in the reply, whose first line then must hold no digit. Where the
    graded answer has such a line itself, the judge may be quoting it, and nothing is read.

    Raises:
        Unreadable: Anything else: one number, three, `10/10`, points out of range, words around them.
    """
    lines = [line.strip() for line in reply.split("\n") if line.strip()]
    if not lines:
        raise Unreadable("empty reply")
    if not re.search(r"[0-9]", lines[0]):
        named = [(at, match) for at, line in enumerate(lines) if (match := _POINTS.fullmatch(line))]
        quoted = any(_POINTS.fullmatch(line.strip()) for line in response.split("\n"))
        adjacent = [match[1] for _, match in named] == ["1", "2"] and named[1][0] == named[0][0] + 1
        if adjacent and not quoted:
            first, second = (_number(match[2], 1, 10, reply) for _, match in named)
            return first, second
    first, second = numbers(lines[0], 2, 1, 10)
    return first, second


_POINTS = re.compile(rf"Assistant ([0-9]+): ({_NUMBER})")


def letter(reply: str, letters: Iterable[str]) -> str:
    """A matcher's choice: exactly one of the letters, alone or in front of an option's text.

    `B`, `(B)`, `B.`, `**B**` and `B. a cat` are read; an article (`A cat`) is no letter.

    Args:
        letters: The letters of the options, and the one that means none.

    Raises:
        Unreadable: No letter, several different ones, or one that is not among `letters`.
    """
    known = set(letters)
    text = reply.strip()
    alone = re.fullmatch(r"[\W_]*([A-Z])[\W_]*", text)
    marked = {alone[1]} if alone else set(_BY_ITSELF.findall(text))
    if len(marked) != 1:
        what = f"several letters ({', '.join(sorted(marked))})" if marked else "no option letter"
        raise Unreadable(f"{what} in the reply {quote(reply)}")
    (chosen,) = marked
    if chosen not in known:
        raise Unreadable(f"{chosen} is none of {', '.join(sorted(known))} in the reply {quote(reply)}")
    return chosen


# A letter by itself, but not the article or the pronoun in front of a word: `A cat`, `I think`.
_BY_ITSELF = re.compile(
    r"(?<![\w'’])(?!A +(?!or\b|and\b|nor\b|is\b)[a-z]|I +[a-z])([A-Z])(?![\w'’])",
)


def extraction(reply: str) -> str:
    """MathVista's extracted answer (official protocol): the whole reply without blanks around it.

    Raises:
        Unreadable: The reply is empty or refuses.
    """
    text = reply.strip()
    if not text:
        raise Unreadable("empty reply")
    if is_refusal(text):
        raise Unreadable(f"refused: {quote(reply)}")
    return text


def own_verdict(reply: str) -> str:
    """What follows `Verdict:` on the last line that is not blank (protocol `stic-eval-1`).

    Nothing else in the reply counts: an answer that the judge quotes may say what it likes.

    Raises:
        Unreadable: The last line is no verdict, or an empty one.
    """
    lines = [line for line in reply.splitlines() if line.strip()]
    if not lines:
        raise Unreadable("empty reply")
    found = re.fullmatch(r"[\s*_`]*verdict[*_`]*\s*:(.*)", lines[-1], re.IGNORECASE)
    text = found[1].strip().strip("*_`").strip() if found else ""
    if not text:
        raise Unreadable(f"the reply does not end in a verdict: {quote(lines[-1])}")
    return text


def numbers(text: str, count: int, low: float, high: float) -> tuple[float, ...]:
    """Exactly `count` numbers within [low, high], separated by blanks or commas, and nothing else.

    Raises:
        Unreadable: Anything else.
    """
    words = re.split(r"\s*,\s*|\s+", text.strip())
    if len(words) != count or not all(re.fullmatch(_NUMBER, word) for word in words):
        what = "a number" if count == 1 else f"{count} numbers"
        raise Unreadable(f"not {what} alone: {quote(text)}")
    return tuple(_number(word, low, high, text) for word in words)


def _number(word: str, low: float, high: float, reply: str) -> float:
    if not re.fullmatch(_NUMBER, word):
        raise Unreadable(f"no number where it belongs: {quote(reply)}")
    value = float(word)
    if not low <= value <= high:
        raise Unreadable(f"{word} is not within {low:g} and {high:g}: {quote(reply)}")
    return value


def quote(text: str) -> str:
    """Text of others, short and in quotes, with control characters visible, for a reason."""
    flat = text.strip()
    return repr(flat[:_SHOWN] + "..." if len(flat) > _SHOWN else flat)


# ---------------------------------------------------------------- answers that speak to the judge


def fence(text: str) -> str:
    """An untrusted text between delimiters that it cannot contain, as they depend on its own hash.

    Used in prompts of protocol `stic-eval-1`, which tell the judge that everything between them is
    material to grade and never an instruction.
    """
    tag = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    while tag in text:
        tag = hashlib.sha256(tag.encode()).hexdigest()[:16]
    return f"<<<begin {tag}>>>\n{text}\n<<<end {tag}>>>"


def is_refusal(reply: str) -> bool:
    """Whether a reply begins like a refusal to do the task."""
    return bool(_REFUSAL.match(reply.strip()))


_REFUSAL = re.compile(
    r"(?:i['’]?m\s+(?:really\s+|very\s+)?sorry|i\s+am\s+sorry|sorry|i\s+apologi[sz]e)\b[^.\n]{0,40}\b(?:can|could|un)"
    r"|(?:i|we)\s+(?:can['’]?t|cannot|can\s+not|won['’]?t|will\s+not|am\s+(?:not\s+able|unable)|'m\s+unable)\b"
    r"|as\s+an?\s+(?:ai|language\s+model)\b",
    re.IGNORECASE,
)

_SUSPECT = (
    ("tells the judge to disregard its instructions",
     r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:above|previous|prior|earlier|instruction|prompt|rule)"),
    ("asks for a score",
     r"\b(?:output|give|award|assign|return|print|respond with|answer with|rate|grade|score)\b.{0,40}"
     r"\b(?:10(?:\.0)?\b[ ,/]*10\b|10 points|full (?:marks|score|points|credit)|(?:a |the )?(?:perfect|"
     r"maximum|highest|top) (?:score|mark|rating|grade)|(?:score|rating|grade) (?:of )?\d|1\.0\b)"),
    ("speaks to the judge",
     r"\b(?:dear|note to|attention|hey|to) (?:the )?(?:judge|grader|evaluator|reviewer|examiner)\b|"
     r"\byou are (?:now )?(?:a|an|the) (?:judge|grader|evaluator)\b"),
    ("holds a line that looks like a verdict",
     r"(?m)^[\s*_`]*(?:verdict|(?:final )?(?:score|rating|correctness)s?)[*_`]*\s*[:=]"
     r"|^\s*Assistant [12]\s*:\s*\d|^\s*\d+(?:\.\d+)?[ ,]+\d+(?:\.\d+)?\s*$"),
    ("holds delimiters of the judge's prompt",
     r"(?m)^\s*\[(?:System|Context|Question|(?:End of )?Assistant [12])\]|<<<(?:begin|end) "
     r"|^Extracted answer:|^Your output:|<\|(?:im_start|im_end|endoftext|system|user|assistant)\|>"
     r"|\[/?INST\]"),
)  # fmt: skip


def suspicious(answer: str) -> str | None:
    """Why a graded answer seems to speak to the judge instead of answering; None: it does not.

    It changes no score. It is recorded, so that such answers can be found and looked at.
    """
    for reason, pattern in _SUSPECT:
        if re.search(pattern, answer, re.IGNORECASE):
            return f"the answer {reason}"
    return None
