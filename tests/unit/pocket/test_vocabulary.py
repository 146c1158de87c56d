"""The pocket model's tokens: whole words, one and the same letter everywhere, no loss but white space."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from stic_eval.pocket import rows, world
from stic_eval.pocket.language import careless, describe, invented
from stic_eval.pocket.questions import GROUPS, questions
from stic_eval.pocket.vocabulary import MARK, tokenizer, words_of

SEEDS = range(0, 60)
KINDS = ("scene", "sign", "many", "bar", "line", "pie")


@pytest.fixture(scope="module")
def words(pocket_words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return pocket_words


def ids(words: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = words.encode(text, add_special_tokens=False)
    return found


def tokens(words: PreTrainedTokenizerFast, text: str) -> list[str]:
    found: list[str] = words.convert_ids_to_tokens(ids(words, text))
    return found


def bare(text: str) -> str:
    return "".join(text.split())


def test_what_is_said_of_pictures_is_read_back_exactly(words: PreTrainedTokenizerFast) -> None:
    ask = rows.wordings()
    for seed in SEEDS:
        spec, rng = world.draw_spec("val", seed, KINDS[seed % len(KINDS)]), random.Random(seed)
        said = [describe(spec), careless(spec, rng), invented(spec, rng)]
        for group in GROUPS:
            for question in questions(spec, rng, group):
                said += [question.text, question.answer, question.sentence]
        said += [one.answer for one in rows.turns(spec, rng, ask, 3)]
        for text in said:
            assert words.decode(ids(words, text)) == text
        for one in rows.turns(spec, rng, ask, 3):
            assert bare(words.decode(ids(words, one.question))) == bare(one.question)


def test_words_of_the_world_and_numbers_have_a_token_each(words: PreTrainedTokenizerFast) -> None:
    single = [*world.COLORS, *world.SHAPES, *world.SETTINGS, *world.CHARTS, *(str(n) for n in range(61))]
    single += [f"{n / 2:.1f}" for n in range(2, 41)]
    for text in single:
        assert tokens(words, text) == [MARK + text]
    assert tokens(words, "at the top left") == [f"{MARK}at", f"{MARK}the", f"{MARK}top{MARK}left"]
    assert tokens(words, "The average is 7.5.")[-2:] == [f"{MARK}7.5", f"{MARK}."]
    assert tokens(words, "4711") == [MARK, *"4711"]


def test_a_word_on_a_sign_is_a_mark_and_its_letters(words: PreTrainedTokenizerFast) -> None:
    for seed in range(100):
        word = world.made_up_word(random.Random(seed), "val")
        assert tokens(words, f"The sign says {word}.")[3:] == [MARK, *word, f"{MARK}."]
        assert tokens(words, word) == [MARK, *word]


@pytest.mark.parametrize("letter", "ABCD")
def test_an_options_letter_is_one_token_wherever_it_stands(
    words: PreTrainedTokenizerFast, letter: str
) -> None:
    (own,) = ids(words, letter)
    for text in (" {}", "\n{}", "{}. red", "({}) red", "red\n({}) blue", "ASSISTANT: {}", "({})", "{}</s>"):
        assert ids(words, text.format(letter)).count(own) == 1, text


def test_a_prompt_with_its_answer_has_the_tokens_of_both(words: PreTrainedTokenizerFast) -> None:
    ask, prompt = rows.wordings(), "USER: <image>\n{} ASSISTANT:"
    for seed in SEEDS:
        spec, rng = world.draw_spec("val", seed, KINDS[seed % len(KINDS)]), random.Random(seed)
        for one in rows.turns(spec, rng, ask, 3):
            asked, said = prompt.format(one.question), f" {one.answer}</s>"
            assert ids(words, asked + said) == ids(words, asked) + ids(words, said)


@given(st.text())
def test_any_text_is_read_back_but_for_white_space(text: str) -> None:
    few = tokenizer(["red", "."])
    assert bare(few.decode(ids(few, text)).replace(MARK, "")) == bare(text.replace(MARK, ""))


def test_what_has_no_token_is_told_by_bytes(words: PreTrainedTokenizerFast) -> None:
    text = "Ünïcode, 日本語 and emoji 🙂!"
    assert bare(words.decode(ids(words, text))) == bare(text)
    assert "<0xF0>" in tokens(words, "🙂")
    assert words.unk_token_id is None


def test_words_that_are_rare_are_left_out() -> None:
    texts = ["A red ring, 1.5 high.", "A red star.", "red"]
    assert words_of(texts, least=3) == ["red"]
    assert words_of(texts, least=2) == [".", "A", "red"]
    assert {"1.5", ",", "ring"} <= set(words_of(texts))
