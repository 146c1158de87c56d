"""The pocket model's architecture and mix: how it starts, how large it is, what counts in its training."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import islice

import pytest
import torch
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from stic_eval.pocket import recall, recipe
from stic_eval.pocket.drills import Turn
from stic_eval.pocket.language import claims, describe, truth
from stic_eval.pocket.recipe import Example
from stic_eval.pocket.rows import wordings
from stic_eval.pocket.vocabulary import EOS, IMAGE
from stic_eval.pocket.world import draw_spec


@pytest.fixture(scope="module")
def words(pocket_words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    return pocket_words


@pytest.fixture(scope="module")
def model(words: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    return recipe.build_model(words).eval()


def test_at_first_every_position_holds_its_own_token(
    model: LlavaForConditionalGeneration, words: PreTrainedTokenizerFast
) -> None:
    for layer in model.model.language_model.layers:
        assert not layer.self_attn.o_proj.weight.any()
        assert not layer.mlp.down_proj.weight.any()
    ids = words("What color is the ring?\n(A) red\n(B) blue", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = model(input_ids=ids).logits
    assert torch.equal(logits.argmax(-1), ids)


def test_the_model_fits_into_sixteen_megabytes(
    model: LlavaForConditionalGeneration, words: PreTrainedTokenizerFast
) -> None:
    n = sum(p.numel() for p in {id(p): p for p in model.parameters()}.values())
    assert 6e6 < n < 8e6
    assert 2 * n <= 16 * 2**20
    assert len(words) < 900
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_only_answers_count_and_their_end_a_tenth(words: PreTrainedTokenizerFast) -> None:
    spec = draw_spec("train", 1, "chart")
    talk = (Turn("What kind of chart is this?", "bar", 3.0, "option"), Turn("Is it?", "It is.", 1.0, "sum"))
    text = recipe.encode(Example(spec, 1, True, talk), words)
    ids, weights, skills = text.ids, text.weights, text.skills
    counted = [(i, w, s) for i, w, s in zip(ids, weights, skills, strict=True) if w]
    assert words.decode([i for i, _, _ in counted]).replace(" ", "") == f"bar{EOS}Itis.{EOS}"
    assert [w for _, w, _ in counted] == pytest.approx([3.0, 0.3, 1.0, 1.0, 1.0, 0.1])
    assert [s for _, _, s in counted] == ["option", None, "sum", "sum", "sum", None]
    assert all(s is None for s, w in zip(skills, weights, strict=True) if not w)
    assert ids.count(words.get_vocab()[IMAGE]) == recipe.N_PATCHES
    blind = recipe.encode(Example(spec, 1, False, talk), words).ids
    assert words.get_vocab()[IMAGE] not in blind


def test_key_and_clue_belong_to_the_first_token_of_their_answer(words: PreTrainedTokenizerFast) -> None:
    talk = (
        Turn("What kind of chart is this?", "bar", 1.0, "option"),
        Turn("Where is it? A. top left B. top right", "A", 1.0, "option", "star", "top left"),
    )
    text = recipe.encode(Example(draw_spec("train", 1), 1, True, talk), words)
    assert [(which, words.decode(ids)) for which, _, ids in text.clues] == [(0, "star"), (1, "top left")]
    assert {words.decode(text.ids[place:]) for _, place, _ in text.clues} == {f"A{EOS}"}


def test_a_clue_is_what_a_letter_stands_for_or_the_numbers_of_a_sum() -> None:
    found = list(islice(recipe.examples(recipe.MIXES["reading"], wordings(), "train", 7_000), 400))
    seen = Counter[str]()
    for turn in (turn for example in found for turn in example.talk):
        seen[f"{turn.skill} {bool(turn.clue)}"] += 1
        if turn.skill in ("rotation", "read mmbench", "read scienceqa"):
            assert re.search(rf"\(?{turn.answer}[.)] {turn.clue}(?!\w| \w)", turn.question)
        elif turn.clue and turn.skill == "read chartqa":
            text = next(example for example in found if turn in example.talk).talk[0].question
            assert all(re.search(rf"(?<!\w){word}(?!\w)", text) for word in turn.clue.split())
            if turn.clue != turn.answer:
                high, *_, low = map(int, turn.clue.split())
                assert turn.answer in ("yes", "no", str(high - low), str(sum(map(int, turn.clue.split()))))
    assert min(seen[f"{name} True"] for name in ("rotation", "two hops", "sum", "read mmbench")) > 20
    assert not seen["read llava_bench True"] and seen["read chartqa True"]


def test_a_conversation_is_trained_on_as_it_is_asked(words: PreTrainedTokenizerFast) -> None:
    """The tokens of the training are those that the processor makes of the same conversation."""
    talk = (Turn("What kind of chart is this?", "bar", 1.0, "option"), Turn("Is it?", "Yes.", 1.0, "sum"))
    ids = recipe.encode(Example(draw_spec("train", 1), 1, True, talk), words).ids
    messages = []
    for number, turn in enumerate(talk):
        image = [{"type": "image"}] if number == 0 else []
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    text = recipe.processor(words).apply_chat_template(messages, tokenize=False)
    text = text.replace(IMAGE, IMAGE * recipe.N_PATCHES)
    assert words.encode(text, add_special_tokens=False) == ids


def test_shares_of_a_mix_are_shares() -> None:
    for mix in recipe.MIXES.values():
        assert math.isclose(sum(mix.values()), 1)
    assert recipe.MIXES["joint"]["drills"] >= 0.25


def test_every_example_has_turns_of_logged_skills_and_depends_on_its_seed() -> None:
    ask = wordings()
    for mix in recipe.MIXES.values():
        found = list(islice(recipe.examples(mix, ask, "train", 5_000), 60))
        assert found[20:40] == list(islice(recipe.examples(mix, ask, "train", 5_020), 20))
        assert all(example.talk for example in found)
        assert {turn.skill for example in found for turn in example.talk} <= set(recipe.SKILLS)
        assert any(not example.seen for example in found)


def test_no_description_stands_beside_a_picture_that_is_asked_about() -> None:
    """Except one that the model itself has given: what it is told of a picture is left to STIC."""
    for example in islice(recipe.examples(recipe.MIXES["joint"], wordings(), "train", 0), 200):
        if example.seen:
            assert not any("description:" in turn.question for turn in example.talk)
        for turn in example.talk:
            if turn.skill.startswith("read "):
                assert not example.seen
        if example.talk[0].skill.startswith("read "):
            assert truth(example.spec) <= claims(example.talk[0].question)
            assert describe(example.spec) in example.talk[0].question


def test_words_to_recall_have_a_token_each_and_grow(words: PreTrainedTokenizerFast) -> None:
    pools = [recipe.recall_words(pool, words) for pool in ("few", "more", "all")]
    assert [len(pool) for pool in pools] == sorted(len(pool) for pool in pools)
    for pool in pools:
        assert len(set(recipe.token_ids(words, pool))) == len(pool) >= 24
        assert not set(pool) & set(recall.MARKS)
    assert set(pools[0]) <= set(pools[1])
    assert len(recipe.token_ids(words, recall.MARKS)) == len(recall.MARKS)
