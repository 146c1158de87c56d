"""Reading the chosen option out of a multiple-choice answer, by each protocol's own rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

_STATED = re.compile(r"The answer is ([A-Z]).")

# Affixes around a letter standing alone as a word, in the order they are tried.
_DRESSES = (
    ("", ""), ("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ")."),
    (":", ""), (":", ","), (":", "."), (":", ")"), (":", ")."),
)  # fmt: skip


def letters(n: int) -> str:
    """The first n option letters."""
    return ascii_uppercase[:n]


def cell_text(cell: Any) -> Any:
    """A text cell; empty for what pandas and the hub make of a missing one (None, NaN, `nan`).

    Anything else than text is returned as it is, for the row's schema to judge.
    """
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ""
    return "" if isinstance(cell, str) and cell.lower() == "nan" else cell


def option_cells(row: Mapping[str, Any], among: str) -> dict[str, Any]:
    """Letter -> text of a row that has its options in columns `A`, `B`, ...; the first empty one ends them.

    Args:
        row: A row of MMBench, or of one of VLMEvalKit's TSVs.
    """
    options: dict[str, Any] = {}
    for letter in among:
        text = cell_text(row.get(letter))
        if text == "":
            break
        options[letter] = text
    return options


def llava_letter(response: str, n_options: int) -> str | None:
    """ScienceQA's reader in LLaVA's scripts (`llava/eval/eval_science_qa.py`).

    The response is a letter; or begins with a letter, a full stop and a space; or says exactly once
    `The answer is X` followed by one more character. Letters beyond the options are not read.

    Args:
        n_options: How many options the item has; the scripts know A to E.

    Returns:
        The letter, or None if nothing was read (which counts as wrong).
    """
    text = response.strip()
    if len(text) == 1 or text[1:3] == ". ":
        letter = text[0]
        if letter in "ABCDE":
            return letter if letter in letters(n_options) else None
    stated = _STATED.findall(text)
    return stated[0] if len(stated) == 1 and stated[0] in letters(min(n_options, 5)) else None


def lmms_letter(response: str, n_options: int) -> str | None:
    """ScienceQA's reader in lmms-eval (`tasks/scienceqa/utils.py`).

    The response is a letter in any case; or begins with an upper-case letter and a full stop,
    whatever follows. Nothing else is read, so `The answer is B.` is not.

    Returns:
        The letter in upper case, or None if nothing was read (which counts as wrong).
    """
    text = response.strip()
    dotted = text[:1].isupper() and text[1:2] == "."
    letter = (text[0] if dotted else text).lower()
    return letter.upper() if len(letter) == 1 and letter in letters(n_options).lower() else None


def option_letter(response: str) -> str | None:
    """The one option letter that stands as a word of its own (VLMEvalKit's and lmms-eval's rule).

    Each dress (`A`, `A.`, `(A)`, ...) is tried in turn; it decides if exactly one of A to E wears
    it. A bare `A` in a text of more than three words may be the article and decides nothing, nor
    does any other bare letter beside it.
    """
    words = set(response.split())
    n_words = len(response.split())
    for prefix, suffix in _DRESSES:
        found = [letter for letter in "ABCDE" if prefix + letter + suffix in words]
        bare = not prefix and not suffix
        if len(found) == 1 and not (bare and n_words > 3 and "A" in words):
            return found[0]
    return None


def option_text(response: str, options: Mapping[str, str]) -> str | None:
    """The letter of the only option whose text occurs in the response, ignoring case."""
    text = response.lower()
    found = [letter for letter, option in options.items() if option.lower() in text]
    return found[0] if len(found) == 1 else None


def mmbench_letter(response: str, options: Mapping[str, str]) -> str | None:
    """MMBench's reader without a judge: a letter, else an option's text, else None.

    Args:
        options: Letter -> text of the options that the item has. Missing options must be left out:
            lmms-eval keeps them as the text `nan`, which then is found in a banana.
    """
    return option_letter(response) or option_text(response, options)
