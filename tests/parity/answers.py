"""Answers as models write them, for comparing our scorers with lmms-eval's own functions.

Everything is drawn by hypothesis: letters in every dress, option texts, numbers with units, per cent
signs and thousands separators, words, Unicode, Markdown, LaTeX, negations, several letters, nothing
at all, and very long texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

T = TypeVar("T")

PER_EXAMPLE = 20
EXAMPLES = 500
WANTED = 5_000  # different answers a test, at least; each benchmark has two that draw them

# Derandomised: the same answers on every machine. No shrinking: a failing batch names its answer.
PARITY = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)

_DRESSES = (
    "{}", "{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).",
    " {} ", "\n{}\n", "{}\n", "[{}]", "<{}>", "'{}'", '"{}"', "**{}**", "**{}.**", "`{}`", "*{}*", "__{}__",
    "{};", "{}!", "{}?", "{}...", "{}\u3002", "\uff08{}\uff09", "\\boxed{{{}}}", "$\\boxed{{{}}}$",
    "\\text{{{}}}",
    "\\(\\text{{{}}}\\)", "# {}", "- {}", "> {}", "1. {}", "```\n{}\n```", "<answer>{}</answer>", "{}</s>",
    "Option {}", "option {}.", "Answer: {}", "answer: {}.", "Answer:{}", "The answer is {}",
    "The answer is {}.",
    "The answer is {}, surely.", "the answer is {}.", "The answer is ({}).", "The answer is: {}",
    "THE ANSWER IS {}.",
    "The answer is **{}**.", 'The answer is "{}".', 'The answer is "{}"', "The correct answer is {}.",
    "The correct option is ({}).", "I choose {}.", "I would say {}", "So it must be {}!", "A: {}",
    "It is {} I think",
    "Not {}.", "It is not {}", "It can't be {}.", "Neither {}", "All but {}", "None of them, not even {}.",
    "A good guess is {}.", "A cat. {}.", "{} is right", "{} and that is all there is to say about it",
    "Final answer: {}", "### Answer\n\n{}", "<think>A or B?</think>{}", "\u7b54\u6848\u662f{}",
    "{} (see above)", "{}. because",
)  # fmt: skip
_JOINED = (
    "{} or {}", "{} and {}", "{}, {}", "({}) or ({})", "{}. {}.", "{}/{}", "Not {}, but {}.", "{} -> {}",
    "The answer is {}. The answer is {}.", "First I thought {}, now {}.", "Either {} or {}.",
    "A. {}\nB. {}",
    "The answer is {}. It is not {}.", "Both {} and {} fit", "{}:{}", "{}\n{}", "**{}** rather than *{}*",
)  # fmt: skip
_UNITS = (
    "",
    "",
    "",
    "%",
    " %",
    " cm",
    "cm",
    "\u00b0",
    " kg",
    " km/h",
    " million",
    "k",
    " USD",
    "\u20ac",
    "e3",
    "e-2",
    " m\u00b2",
)
_BEFORE = (
    "",
    "",
    "",
    "$",
    "-",
    "+",
    "\u2212",
    "~",
    "about ",
    "\u20ac",
    "x = ",
    "$x = ",
    "is ",
    "\\frac{1}{",
    "(",
    "=",
)
_AFTER = ("", "", "", ".", ",", "!", ")", "}", "$", "\n", " in all", " or so")
_WORDS = (
    "a", "an", "the", "A", "The", "is", "not", "no", "none", "None", "nan", "N/A", "yes", "two", "Ten",
    "zero",
    "red", "banana", "Nancy", "dog's", "don't", "dont", "its", "it's", "isnt", "o'clock", "New-York",
    "U.S.A.",
    "caf\u00e9", "\u0130", "\u00df", "\u4f60\u597d", "\ud55c\uad6d", "\U0001f600", "\u00bd", "\u0663",
    "\u2460", "\u00a0", "\u2028", "\u200b", "\t", "inf",
    "-inf", "NaN", "1e400", "1_000", "0x10", "I", "cannot", "tell", "from", "image", "left", "right",
    "both",
    "answer", "option", "choice", "?", ";", "/", "[", "]", "{", "}", "@", "&", "|", "\\", "^", "~", "<",
    ">",
)  # fmt: skip


def lettered(letters: str) -> st.SearchStrategy[str]:
    """One letter in some dress, or two of them."""
    letter = st.sampled_from([*letters, *letters, *letters.lower()])
    one = st.builds(str.format, st.sampled_from(_DRESSES), letter)
    two = st.builds(str.format, st.sampled_from(_JOINED), letter, letter)
    return st.one_of(one, one, two)


def texts(options: Sequence[str]) -> st.SearchStrategy[str]:
    """An option's text, or two, in some dress, in some case."""
    text = st.sampled_from(list(options) or ["nothing"])
    cased = st.builds(_apply, st.sampled_from((str, str, str.lower, str.upper, str.title)), text)
    one = st.builds(str.format, st.sampled_from(_DRESSES), cased)
    two = st.builds(str.format, st.sampled_from(_JOINED), cased, cased)
    return st.one_of(cased, one, two)


def numbers() -> st.SearchStrategy[str]:
    """A number with or without sign, unit, per cent, thousands separators, digits of any script."""
    integer = st.integers(-(10**7), 10**7)
    small = st.integers(0, 120)
    decimal = st.floats(-1e6, 1e6, allow_nan=False, allow_infinity=False)
    shapes = st.one_of(
        small.map(str), integer.map(str), integer.map("{:,}".format), small.map("{}.0".format),
        decimal.map("{:.1f}".format), decimal.map("{:,.2f}".format), decimal.map("{:.0e}".format),
        decimal.map(str), small.map("{}/7".format), small.map("[{}, 2]".format), small.map(".{}".format),
    )  # fmt: skip
    return st.builds(
        "{}{}{}{}".format, st.sampled_from(_BEFORE), shapes, st.sampled_from(_UNITS), st.sampled_from(_AFTER)
    )


def words() -> st.SearchStrategy[str]:
    """A few words, some of them troublesome, joined by all kinds of white space."""
    some = st.lists(st.sampled_from(_WORDS), min_size=0, max_size=6)
    return st.builds(_join, st.sampled_from((" ", " ", " ", "  ", "\n", ", ", ". ", "")), some)


@st.composite
def answers(draw: st.DrawFn, letters: str = "ABCDE", options: Sequence[str] = ()) -> str:
    """Any answer to an item with the given option letters and texts (or to one without options)."""
    return draw(_answers(letters, tuple(options)))


@cache  # and a composite above, as hypothesis writes out all of a strategy's parts otherwise
def _answers(letters: str, options: tuple[str, ...]) -> st.SearchStrategy[str]:
    core = st.one_of(lettered(letters), lettered(letters), texts(options), numbers(), words())
    return st.one_of(
        core,
        core,
        core,
        st.builds(
            _join, st.sampled_from((" ", "\n", ". ", "\n\n", "")), st.lists(core, min_size=2, max_size=3)
        ),
        st.text(max_size=20),
        st.text(alphabet="ABCDE.():, \nabte", max_size=16),
        st.builds(_long, core, st.sampled_from(("", " so ", "A ", "\n", "1", "no ")), st.integers(50, 2000)),
    )


def batches(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[list[T]]:
    """`PER_EXAMPLE` different draws at once: hypothesis' own cost is per example."""
    return st.lists(strategy, min_size=PER_EXAMPLE, max_size=PER_EXAMPLE, unique_by=repr)


def _apply(function: Callable[[str], str], text: str) -> str:
    return function(text)


def _join(separator: str, parts: Sequence[str]) -> str:
    return separator.join(parts)


def _long(core: str, filler: str, times: int) -> str:
    return filler * times + core
