"""Rows of random words: what is asked for can be told from what stands before it."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from stic_eval.pocket import recall

# Ids as they fall: letters are words too, and signs have one id wherever they are used.
MARKS = np.array([list(dict.fromkeys(recall.MARKS)).index(text) for text in recall.MARKS])
LETTERS = np.arange(100, 108)
WORDS = np.arange(100, 140)
LONG = ("choice", "question", "entry")  # as long as a conversation


def look_up(kind: str, row: list[int], column: int, since: int) -> int:
    """What has to stand in a column, found in the columns before it.

    Args:
        kind: Kind of row.
        row: Its ids.
        column: The column.
        since: The column after the last answer before it.
    """
    if kind == "copy":
        return row[row.index(row[column - 1]) + 1]
    before = [token for token in row[:column] if token not in MARKS]
    asked = before[-1]
    if kind == "question":  # comes first, and its list behind it
        asked, *before = (token for token in row[since:column] if token not in MARKS)
    return before[before.index(asked) + (1 if kind in ("after", "entry") else -1)]


ROWS = (*recall.DENSE, *LONG)


@pytest.mark.parametrize("kind", ROWS)
def test_what_is_asked_for_can_be_told(kind: str) -> None:
    answers = set()
    for seed in range(60):
        ids, columns, _ = recall.rows(kind, WORDS, LETTERS, MARKS, 5, np.random.default_rng(seed))
        assert len(columns) >= 3
        assert ids.shape[0] == 5 and max(columns) < ids.shape[1]
        assert ids.shape[1] <= recall.LENGTH * (2 if kind in LONG else 1)
        for row in ids.tolist():
            for since, column in pairwise([-1, *columns.tolist()]):
                assert row[column] == look_up(kind, row, column, since + 1), (seed, column, row)
                answers.add(row[column])
    assert len(answers) >= 8


@pytest.mark.parametrize("kind", ["letter", "choice"])
def test_letters_are_asked_for_by_word_and_again(kind: str) -> None:
    """A letter that was asked for may come again: what is left over is no hint."""
    again = 0
    for seed in range(40):
        ids, columns, _ = recall.rows(kind, WORDS, LETTERS, MARKS, 4, np.random.default_rng(seed))
        answers = ids[:, columns]
        assert np.isin(answers, LETTERS).all()
        again += sum(len(set(row)) < len(row) for row in answers.tolist())
    assert again > 80


@pytest.mark.parametrize(("kind", "entries"), [("arrow", 5), ("pair", 2), ("letter", 8), ("copy", 3)])
def test_rows_are_as_long_as_is_asked_for(kind: str, entries: int) -> None:
    ids, columns, _ = recall.rows(kind, WORDS, LETTERS, MARKS, 3, np.random.default_rng(0), entries)
    content = {token for token in ids[0, : columns[0]].tolist() if token not in MARKS}
    assert len(content) == entries * (2 if kind in ("pair", "letter") else 1)


def test_figures_are_right() -> None:
    texts = ["sum", "of", "and", "higher", "is", "than", "average", "Is", "?", "ASSISTANT", ":", "yes", "no"]
    texts += [str(n) for n in range(61)] + [f"{n / 2:.1f}" for n in range(2, 41)]
    ids, columns = recall.figures({text: i for i, text in enumerate(texts)}, 40, np.random.default_rng(0))
    kinds = set()
    for row in ids.tolist():
        for since, column in pairwise([-1, *columns.tolist()]):
            said = [texts[token] for token in row[since + 1 : column]]
            a, b = (int(text) for text in said if text.isdigit())
            right = {
                "sum": str(a + b), "higher": str(a - b), "average": f"{(a + b) / 2:.1f}",
                "Is": "yes" if a > b else "no",
            }  # fmt: skip
            assert texts[row[column]] == right[said[0]]
            kinds.add(said[0])
    assert len(kinds) == 4


@pytest.mark.parametrize("seed", range(5))
def test_a_question_before_its_options_says_what_is_asked_for(seed: int) -> None:
    ids, columns, keys = recall.rows("question", WORDS, LETTERS, MARKS, 5, np.random.default_rng(seed))
    assert keys is not None and len(keys) == len(columns)
    for row in ids:
        for key, column in zip(keys, columns, strict=True):
            listed = row[key + 1 : column].tolist()
            behind = listed[listed.index(row[key]) - 2 : listed.index(row[key])]
            assert row[column] in behind  # the letter, with or without a point


@pytest.mark.parametrize("kind", ROWS)
def test_rows_depend_on_the_generator_alone(kind: str) -> None:
    one, other, third = (
        recall.rows(kind, WORDS, LETTERS, MARKS, 4, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    assert one[0].shape != third[0].shape or not np.array_equal(one[0], third[0])


QUESTIONS = {  # question -> what the description says
    r"What is the value of (\w+)": r"value of {} is (\w+) \.",
    r"What is at the (\w+)": r"The {} (\w+ \w+) is",
    r"Where is the (\w+ \w+)": r"The (\w+) {} is",
    r"What color is the (\w+)": r"The \w+ (\w+) {} is",
    r"What shape is the (\w+) object": r"The \w+ {} (\w+) is",
}


def test_a_statement_says_what_is_asked() -> None:
    texts = [*dict.fromkeys(recall._SENTENCES.split()), *(f"w{i}" for i in range(40))]
    words = {text: number for number, text in enumerate(texts)}
    seen = set()
    for seed in range(40):
        ids, columns = recall.statements(words, np.arange(len(texts)), 3, np.random.default_rng(seed))
        for row in ids.tolist():
            said, *turns = " ".join(texts[i] for i in row).split(" USER : ")
            answers = []
            for turn in turns:
                question, _, answer = turn.partition(" ASSISTANT : ")
                assert question.removesuffix(f" {recall._BRIEFLY}").endswith("?")
                ((asked, says),) = [(q, a) for q, a in QUESTIONS.items() if re.match(rf"{q} \?", question)]
                key = re.match(rf"{asked} \?", question)
                assert key and re.findall(says.format(key[1]), said) == [answer]
                answers += answer.split()
                seen.add(asked)
            assert [texts[row[column]] for column in columns] == answers
    assert seen == QUESTIONS.keys()
