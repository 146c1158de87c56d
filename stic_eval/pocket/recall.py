"""The first thing that the pocket decoder learns: looking things up in what it has just read.

Rows of random words in which most tokens can be told from what came before: a row said again, the word
after a word, the word before it, and lettered words that are asked for by word. Nothing here can be
answered by knowing; a decoder that is shown language alone finds this only after hours, and every
question with options needs it. Dense rows over few words come first, more words follow.
"""

from __future__ import annotations

import numpy as np

LENGTH = 48
KINDS = ("copy", "after", "before", "arrow", "pair", "letter", "option")
LETTERS = tuple("ABCDEFGH")
MARKS = (
    ".", ",", ":", ";", "?", "(",  # after, before, lettered; the end of an entry, a query, its arrow
    "(", ".", "\n", "USER", ":", "Which", "option", "is", "?", "ASSISTANT", ":",  # of options
)  # fmt: skip


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
    if kind == "option":
        return _options(words, letters, marks, batch, rng)
    if kind == "arrow":
        n = entries or int(rng.integers(3, 13))
        row = draw(words, n)
        i = rng.integers(1, n, (batch, LENGTH // 4))
        query, answer = np.take_along_axis(row, i, 1), np.take_along_axis(row, i - 1, 1)
    else:
        n = entries or int(rng.choice((2, 3, 4, 6, 8)))
        both = draw(words if kind == "pair" else np.setdiff1d(words, letters), 2 * n)
        first = draw(letters, n) if kind == "letter" else both[:, n:]
        entry = [first, both[:, :n], mark(3, n)][: 3 if kind == "letter" or rng.random() < 0.5 else 2]
        row = np.stack(entry, 2).reshape(batch, -1)
        i = rng.integers(0, n, (batch, LENGTH // 4))
        query, answer = np.take_along_axis(both, i, 1), np.take_along_axis(first, i, 1)
    marked = kind == "letter" or rng.random() < 0.5
    asked = np.stack([mark(4, i.shape[1]), query, mark(5, i.shape[1]), answer][not marked :], 2)
    border = mark(2 if kind == "letter" else int(rng.integers(1, 3)))
    each = asked.shape[2]
    asked = asked.reshape(batch, -1)[:, : (LENGTH - row.shape[1] - 1) // each * each]
    ids = np.concatenate([row, border, asked], 1)
    return ids, row.shape[1] + each + each * np.arange(asked.shape[1] // each)


def _options(
    words: np.ndarray, letters: np.ndarray, marks: np.ndarray, batch: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Lettered words with more and more of what stands around options and questions in a conversation."""
    n, (before, point, line, asked, arrow) = 4, np.split(marks[6:], np.cumsum((1, 1, 1, 5)))
    single = np.setdiff1d(words, letters)
    letter = (
        letters[rng.random((batch, len(letters))).argsort(1)]
        if rng.random() < 0.5
        else np.tile(letters[:4], (batch, 1))
    )
    word = single[rng.random((batch, len(single))).argsort(1)[:, :n]]
    queries = 6
    i = rng.integers(0, n, (batch, queries))

    def fixed(ids: np.ndarray, columns: int) -> list[np.ndarray]:
        return [np.full((batch, columns), token) for token in ids]

    head, tail = int(rng.integers(0, len(asked) + 1)), int(rng.integers(1, len(arrow) + 1))
    entry = [
        *fixed(before[: rng.integers(0, 2)], n),
        letter[:, :n],
        *fixed(point[: rng.integers(0, 2)], n),
        word,
    ]
    listed = np.stack([*entry, *fixed(line, n)], 2).reshape(batch, -1)
    query = [*fixed(asked[len(asked) - head :], queries), np.take_along_axis(word, i, 1)]
    query += [*fixed(arrow[len(arrow) - tail :], queries), np.take_along_axis(letter, i, 1)]
    each = len(query)
    ids = np.concatenate([listed, np.stack(query, 2).reshape(batch, -1)], 1)
    return ids, listed.shape[1] + each - 1 + each * np.arange(queries)
