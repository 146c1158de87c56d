"""What is thought and what is answered, told apart by tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stic_eval.thinking_tags import ANSWER, THINKING, SplitText, opening, split

TAGS = [tag for pair in (*THINKING, *ANSWER) for tag in pair]

# As models are known to write: see the module for which.
GOLDEN = {
    # Qwen3-VL-Thinking by transformers: the template has opened the tag, and the engine puts it in front
    "<think>\nThe sky is blue, so B.\n</think>\n\nB": SplitText("B", "The sky is blue, so B."),
    # and by a server without a reasoning parser
    "The sky is blue, so B.\n</think>\n\nB": SplitText("B", "The sky is blue, so B.", opened=True),
    # not thinking, by a template that says so with an empty block
    "<think>\n\n</think>\n\nB": SplitText("B"),
    # GLM-4.1V-Thinking, and what a tokenizer leaves of it that takes the box for control tokens
    "<think>15 + 27 = 42</think><answer>It is <|begin_of_box|>42<|end_of_box|>.</answer>": SplitText(
        "42", "15 + 27 = 42"
    ),
    "<think>15 + 27 = 42</think>\n<answer>\n42\n</answer>": SplitText("42", "15 + 27 = 42"),
    # GLM-4.6V
    "<think>Got it.</think>\n<|begin_of_box|>Title:\nA cross<|end_of_box|>": SplitText(
        "Title:\nA cross", "Got it."
    ),
    # two places of a picture: the boxes are no answer of their own
    "<think>2.</think>At <|begin_of_box|>[1]<|end_of_box|> and <|begin_of_box|>[2]<|end_of_box|>.": SplitText(
        "At [1] and [2].", "2."
    ),
    "◁think▷Let me see.◁/think▷The image shows a square.": SplitText(
        "The image shows a square.", "Let me see."
    ),
    "<|channel>thought\nWater is H2O.<channel|>H2O": SplitText("H2O", "Water is H2O."),
    "[THINK]Hm.[/THINK]Yes.": SplitText("Yes.", "Hm."),
    # cut
    "<think>The user asks which option. A or B": SplitText("", "The user asks which option. A or B", True),
    "<think>first</think>B<think>or rather": SplitText("", "first\nB\nor rather", True),
    # a tag that is spoken of is no thinking, for nothing closes it and the text has begun with its answer
    "The HTML tag <think> is odd. Answer: B": SplitText("The HTML tag <think> is odd. Answer: B"),
    "See <think>, then [THINK]so[/THINK]B": SplitText("See <think>, then B", "so"),
    "\n<think>\nA or": SplitText("", "A or", True),
    # an answer that is cut is an answer
    "<think>Hm.</think><answer>The bar is 1": SplitText("The bar is 1", "Hm."),
    # several blocks, nested ones, tags that are spoken of
    "<think>a</think>B <think>c</think>or D": SplitText("B or D", "a\nc"),
    "<think>a <think>b</think> c</think>D": SplitText("D", "a <think>b\nc"),
    "<think>I was told to write ◁/think▷ or [THINK].</think>B": SplitText(
        "B", "I was told to write ◁/think▷ or [THINK]."
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", GOLDEN)
def test_texts_as_models_write_them(text: str) -> None:
    assert split(text, THINKING, ANSWER) == GOLDEN[text]


def test_where_the_prompt_has_opened_the_tag_nothing_but_a_closing_one_begins_the_answer() -> None:
    assert split("so B", THINKING, opened=True) == SplitText("", "so B", unclosed=True, opened=True)
    assert split("so</think>B", THINKING, opened=True) == SplitText("B", "so", opened=True)
    assert split("<think>so</think>B", THINKING, opened=True) == SplitText("B", "so")


def test_without_tags_to_look_for_all_is_answered() -> None:
    text = "<think>a</think> <answer>B</answer> "
    assert split(text, ()) == SplitText(text)
    assert split("<seed:think>a</seed:think>B", [("<seed:think>", "</seed:think>")]) == SplitText("B", "a")


def test_a_prompt_that_opens_the_thinking() -> None:
    assert opening("<|im_start|>assistant\n<think>\n", THINKING) == "<think>"
    assert opening("x ◁think▷", THINKING) == "◁think▷"


@pytest.mark.parametrize("prompt", ["ASSISTANT:", "<think>\n\n</think>\n\n", "<think> B", "", "[/INST]"])
def test_a_prompt_that_does_not(prompt: str) -> None:
    assert opening(prompt, THINKING) == ""


plain = st.text(max_size=30).filter(lambda text: not any(tag in text for tag in TAGS))
# Words of no tag, so that parts put side by side make none.
words = st.text("abc \n", min_size=1, max_size=12)
opening_tags = [open_ for open_, _ in THINKING]


@given(plain)
def test_a_text_without_tags_comes_back_as_it_is(text: str) -> None:
    assert split(text, THINKING, ANSWER) == SplitText(text)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), st.sampled_from(THINKING))
def test_nothing_that_is_thought_gets_into_the_answer(
    parts: list[tuple[str, str]], pair: tuple[str, str]
) -> None:
    text = "".join(f"{pair[0]}{'x' + thought}{pair[1]}{'y' + said}" for thought, said in parts)
    found = split(text, THINKING, ANSWER)
    assert found.answer == "".join("y" + said for _, said in parts).strip()
    assert found.thinking == "\n".join(("x" + thought).strip() for thought, _ in parts)
    assert not (found.unclosed or found.opened)


@given(st.lists(words | st.sampled_from(TAGS), max_size=12), st.booleans())
def test_whatever_comes_no_tag_of_thinking_is_left_and_no_cut_answer_is_one(
    parts: list[str], opened: bool
) -> None:
    found = split("".join(parts), THINKING, ANSWER, opened)
    left = [tag for pair in THINKING for tag in pair if tag in found.answer]
    # None but an opening one that nothing closes, behind the beginning of an answer.
    assert all(tag in opening_tags for tag in left)
    assert not left or not "".join(parts).lstrip().startswith(tuple(left))
    if found.unclosed:
        assert found.answer == ""
    if opened and not any(tag in parts for pair in THINKING for tag in pair):
        assert found.unclosed


@given(words, words, st.sampled_from(THINKING))
def test_an_answer_begins_behind_the_last_closing_tag_that_closes_nothing(
    thought: str, said: str, pair: tuple[str, str]
) -> None:
    found = split(f"{thought}{pair[1]}{thought}{pair[1]}{said}", THINKING)
    assert (found.answer, found.opened) == (said.strip(), True)
    assert set(found.thinking.split()) == set(thought.split())
