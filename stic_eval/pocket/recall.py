"""The first thing that the pocket decoder learns: looking things up in what it has just read.

Rows of random words in which most tokens can be told from what came before: a row said again, the word
after a word, the word before it, and lettered words that are asked for by word. Nothing here can be
answered by knowing; a decoder that is shown language alone finds this only after hours, and every
question with options needs it. Dense rows over few words come first, more words follow.
"""

from __future__ import annotations

import numpy as np

LENGTH = 48
KINDS = ("copy", "after", "before", "letter")
LETTERS = tuple("ABCDEFGH")
MARKS = (".", ",", ":", ";", "?", "(")  # after, before, lettered; the end of an entry, a query, its arrow


def rows(
    kind: str,
    words: np.ndarray,
    letters: np.ndarray,
    marks: np.ndarray,
    batch: int,
    rng: np.random.Generator,
    entries: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A batch of one kind.

    Args:
        kind: One of `KINDS`.
        words: Token ids that entries are drawn from.
        letters: Token ids of `LETTERS`.
        marks: Token ids of `MARKS`.
        batch: Rows.
        rng: Where everything is drawn from.
        entries: Words in a row, or lettered pairs; drawn if not given.

    Returns:
        Token ids (batch, length), and the columns that can be told from the ones before them.
    """  # fmt: skip

    def draw(pool: np.ndarray, n: int) -> np.ndarray:
        return pool[rng.random((batch, len(pool))).argsort(1)[:, :n]]

    def mark(number: int, n: int = 1) -> np.ndarray:
        return np.full((batch, n), marks[number])

    if kind == "copy":
        n = entries or int(rng.integers(3, 13))
        times = LENGTH // n
        return np.tile(draw(words, n), (1, times)), np.arange(n + 1, n * times)
    if kind in ("after", "before"):
        n = entries or int(rng.integers(3, 13))
        asked = (LENGTH - n - 1) // 2
        row = draw(words, n)
        first = rng.integers(0, n - 1, (batch, asked))
        query, answer = (first, first + 1) if kind == "after" else (first + 1, first)
        pairs = np.stack([np.take_along_axis(row, i, 1) for i in (query, answer)], 2).reshape(batch, -1)
        ids = np.concatenate([row, mark(0 if kind == "after" else 1), pairs], 1)
        return ids, n + 2 + 2 * np.arange(asked)
    n = entries or int(rng.choice((2, 3, 4, 6, 8)))
    asked = (LENGTH - 3 * n - 1) // 4
    letter, row = draw(letters, n), draw(words, n)
    listed = np.stack([letter, row, mark(3, n)], 2).reshape(batch, -1)
    i = rng.integers(0, n, (batch, asked))
    queries = np.stack(
        [
            mark(4, asked), np.take_along_axis(row, i, 1),
            mark(5, asked), np.take_along_axis(letter, i, 1),
        ], 2,
    )  # fmt: skip
    ids = np.concatenate([listed, mark(2), queries.reshape(batch, -1)], 1)
    return ids, 3 * n + 4 + 4 * np.arange(asked)
