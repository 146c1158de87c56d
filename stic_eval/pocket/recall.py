"""The first thing that the pocket decoder learns: looking things up in what it has just read.

Rows of random words in which most tokens can be told from what came before: a row said again, the word
after a word, the word before it, and lettered words that are asked for by word. Nothing here can be
answered by knowing; a decoder that is shown language alone finds this only after hours, and every
question with options needs it. Dense rows over few words come first, more words follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

LENGTH = 48
DENSE = ("copy", "after", "before", "arrow", "pair", "letter")
WORDED = ("choice", "question", "entry", "statement", "figures")  # with words of conversations around them
KINDS = DENSE + WORDED
LETTERS = tuple("ABCDEFGH")
MARKS = (
    ".", ",", ":", ";", "?", "(",  # after, before, lettered; the end of an entry, a query, its arrow
    "(", ".", "\n", "USER", ":", "Which", "option", "is", "?", "ASSISTANT", ":",  # of options
    "Each", "is", ".",  # of rules
)  # fmt: skip


def rows(
    kind: str,
    words: np.ndarray,
    letters: np.ndarray,
    marks: np.ndarray,
    batch: int,
    rng: np.random.Generator,
    entries: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
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
        Token ids (batch, length), the columns that can be told from the ones before them, and of a question
        that stands before its options, for each of these columns the one with the word that is asked for.
    """  # fmt: skip

    def draw(pool: np.ndarray, n: int) -> np.ndarray:
        return pool[rng.random((batch, len(pool))).argsort(1)[:, :n]]

    def mark(number: int, n: int = 1) -> np.ndarray:
        return np.full((batch, n), marks[number])

    if kind == "copy":
        n = entries or int(rng.integers(3, 13))
        times = LENGTH // n
        return np.tile(draw(words, n), (1, times)), np.arange(n + 1, n * times), None
    if kind in ("after", "before"):
        n = entries or int(rng.integers(3, 13))
        queries = (LENGTH - n - 1) // 2
        row = draw(words, n)
        first = rng.integers(0, n - 1, (batch, queries))
        query, answer = (first, first + 1) if kind == "after" else (first + 1, first)
        pairs = np.stack([np.take_along_axis(row, i, 1) for i in (query, answer)], 2).reshape(batch, -1)
        ids = np.concatenate([row, mark(0 if kind == "after" else 1), pairs], 1)
        return ids, n + 2 + 2 * np.arange(queries), None
    if kind in ("choice", "question", "entry"):
        return _choices(kind, words, letters, marks, batch, rng)
    if kind not in KINDS:
        raise ValueError(f"unknown kind of rows {kind!r}")
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
    return ids, row.shape[1] + each + each * np.arange(asked.shape[1] // each), None


def _choices(
    kind: str, words: np.ndarray, letters: np.ndarray, marks: np.ndarray, batch: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Lettered words, with more or less of what stands around options and questions in a conversation.

    Of the kind `choice` one list is asked for six times, of the kind `question` three lists are asked for
    once, and the question comes before its list. An `entry` has a word for a letter, and asks for the second.
    """
    before, point, line, asked, arrow, each, verb, stop = np.split(
        marks[6:], np.cumsum((1, 1, 1, 5, 3, 1, 1))
    )
    if kind == "entry":
        before, point, line = each, verb, stop
    single = np.setdiff1d(words, letters)
    head, tail = asked[rng.integers(0, 6) :], arrow[-rng.integers(1, 4) :]
    opening, closing = before[: rng.integers(0, 2)], point[: rng.integers(0, 2)]
    n = int(rng.integers(2, 5)) if kind == "question" else 4
    in_order = rng.random() < 0.5

    def fixed(ids: np.ndarray) -> list[np.ndarray]:
        return [np.full((batch, 1), token) for token in ids]

    def options() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        word = single[rng.random((batch, len(single))).argsort(1)[:, : 2 * n]]
        letter = np.tile(letters[:n], (batch, 1))
        if kind == "entry":
            word, letter = word[:, :n], word[:, n:]
        elif not in_order:
            letter = letters[rng.random((batch, len(letters))).argsort(1)[:, :n]]
        listed: list[np.ndarray] = []
        for i in range(n):
            one, two = letter[:, i : i + 1], word[:, i : i + 1]
            listed += [*fixed(opening), one, *fixed(closing), two, *fixed(line)]
        return word, letter, listed

    row: list[np.ndarray] = []
    columns, keys = [], []
    for number in range(3 if kind == "question" else 6):
        if kind == "question" or number == 0:
            word, letter, listed = options()
            row += [] if kind == "question" else listed
        i = rng.integers(0, n, (batch, 1))
        query, answer = (letter, word) if kind == "entry" else (word, letter)
        row += [*fixed(head), np.take_along_axis(query, i, 1)]
        keys.append(len(row) - 1)
        row += [*fixed(tail[:1]), *fixed(line), *listed] if kind == "question" else []
        row += fixed(tail)
        columns.append(len(row))
        row.append(np.take_along_axis(answer, i, 1))
    return np.concatenate(row, 1), np.array(columns), np.array(keys) if kind == "question" else None


_BRIEFLY = "Answer the question using a single word or phrase ."
_SENTENCES = f"The value of is . At the a What at Where color shape object ? USER : {_BRIEFLY} ASSISTANT"


def statements(
    words: Mapping[str, int], pool: np.ndarray, batch: int, rng: np.random.Generator, asked: int = 7
) -> tuple[np.ndarray, np.ndarray]:
    """Sentences as descriptions have them, of random words, and questions whose answer is far from its key.

    Args:
        words: Word -> token id.
        pool: Token ids that the words are drawn from, but for those of the sentences themselves.
        batch: Rows.
        rng: Where everything is drawn from.
        asked: Answers in a row.

    Returns:
        Token ids (batch, length), and the columns of the answers.
    """
    Part = list[np.ndarray]

    def fixed(text: str) -> Part:
        return [np.full(batch, words[word]) for word in text.split()]

    pool = np.setdiff1d(pool, [words[word] for word in _SENTENCES.split()])
    values = rng.random() < 0.4
    n = 3 if values else int(rng.integers(2, 5))
    drawn = list(pool[rng.random((batch, len(pool))).argsort(1)[:, : 4 * n]].T)
    row: Part = []
    questions: list[tuple[Part, Part]] = []
    for place, color, shape, size in zip(*[iter(drawn)] * 4, strict=True):
        if values:
            row += [*fixed("The value of"), color, *fixed("is"), size, *fixed(".")]
            questions.append(([*fixed("What is the value of"), color], [size]))
            continue
        row += [*fixed("The"), place, color, shape, *fixed("is"), size, *fixed(".")]
        questions += [
            ([*fixed("What is at the"), place], [color, shape]),
            ([*fixed("Where is the"), color, shape], [place]),
            ([*fixed("What color is the"), shape], [color]),
            ([*fixed("What shape is the"), color, *fixed("object")], [shape]),
        ]
    columns: list[int] = []
    for number in rng.integers(0, len(questions), asked):
        question, answer = questions[number]
        row += [*fixed("USER :"), *question, *fixed("?"), *fixed(_BRIEFLY if rng.random() < 0.5 else "")]
        row += fixed("ASSISTANT :")
        columns += range(len(row), len(row) + len(answer))
        row += answer
    return np.stack(row, 1), np.array(columns)


def figures(
    words: Mapping[str, int], batch: int, rng: np.random.Generator, asked: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Sums, differences and means of values from 1 to 20, and which of two is higher.

    Args:
        words: Word -> token id.
        batch: Rows.
        rng: Where everything is drawn from.
        asked: Answers in a row.

    Returns:
        Token ids (batch, length), and the columns of the answers.
    """
    row: list[np.ndarray] = []
    columns = []

    def fixed(text: str) -> list[np.ndarray]:
        return [np.full((batch, 1), words[word]) for word in text.split()]

    def numbers(values: Iterable[str]) -> np.ndarray:
        return np.array([[words[value]] for value in values])

    for _ in range(asked):
        a, b = rng.integers(1, 21, (2, batch))
        high, low = np.maximum(a, b), np.minimum(a, b)
        which = int(rng.integers(4))
        if which == 0:
            row += [*fixed("sum of"), numbers(map(str, a)), *fixed("and"), numbers(map(str, b))]
            answer = numbers(map(str, a + b))
        elif which == 1:
            row += [*fixed("higher is"), numbers(map(str, high)), *fixed("than"), numbers(map(str, low))]
            answer = numbers(map(str, high - low))
        elif which == 2:
            row += [*fixed("average of"), numbers(map(str, a)), *fixed("and"), numbers(map(str, b))]
            answer = numbers(f"{mean:.1f}" for mean in (a + b) / 2)
        else:
            row += [*fixed("Is"), numbers(map(str, a)), *fixed("higher than"), numbers(map(str, b))]
            answer = numbers("yes" if more else "no" for more in a > b)
        row += fixed("? ASSISTANT :")
        columns.append(len(row))
        row.append(answer)
    return np.concatenate(row, 1), np.array(columns)
