"""Texts that end an answer, held against transformers' own `stop_strings`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from stic_eval.image_sources import scan_images
from stic_eval.models.detokenize import cut, cut_answer
from stic_eval.models.hf_model import HFModel
from stic_eval.models.response_cache import CachedVLM
from stic_eval.store import ResponseStore, request_key
from stic_eval.types import Generation, ImageRef, Request
from tests.conftest import CHAT_TEMPLATE
from tests.support.fake import FakeVLM
from tests.support.questions import QUESTIONS, request

LONG = 40


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


@pytest.fixture(scope="module")
def model(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu", batch_size=7)


def theirs(folder: Path, asked: Request, stop: list[str]) -> tuple[str, int]:
    """Text and number of tokens of transformers' own generation."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    plain = AutoModelForImageTextToText.from_pretrained(folder).eval()
    prompt = f"USER: <image>\n{asked.messages[0].text} ASSISTANT:"
    inputs = processor(text=prompt, images=asked.images[0].load(), return_tensors="pt")
    output = plain.generate(
        **inputs, max_new_tokens=LONG, do_sample=False, stop_strings=stop, tokenizer=processor.tokenizer
    )
    tokens = output[0, inputs["input_ids"].shape[1] :].tolist()
    text = processor.decode(tokens, skip_special_tokens=True)
    return cut(text, stop).strip(), len(tokens)


def in_the_middle(text: str, length: int) -> str | None:
    """A piece from the middle of an answer, of characters that are a token or more each."""
    pieces = (text[n : n + length] for n in range(5, len(text) - length))
    return next((piece for piece in pieces if "\ufffd" not in piece and piece.strip() == piece), None)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize("way", ["generate", "one_by_one"])
def test_answers_are_those_of_transformers(
    tiny_vlm: Path, model: HFModel, images: list[ImageRef], way: str, length: int
) -> None:
    whole = [request(text, image, Generation(LONG)) for image in images for text in QUESTIONS[:3]]
    before = {asked: in_the_middle(answer.text, length) for asked, answer in model.generate(whole)}
    known = [(asked, stop) for asked, stop in before.items() if stop is not None][:3]
    shorter = 0
    for asked, stop in known:
        own = request(asked.messages[0].text, asked.images[0], Generation(LONG, stop=(stop, "never there")))
        # Beside rows that go on to their bound.
        found = dict(getattr(model, way)([*whole[:5], own]))
        text, count = theirs(tiny_vlm, asked, [stop, "never there"])
        assert (found[own].text, found[own].n_tokens) == (text, count)
        assert found[own].finish_reason == "stop"
        assert stop not in found[own].text
        assert all(found[other].n_tokens == LONG for other in whole[:5])
        shorter += count < LONG
    assert shorter == len(known) == 3


def test_a_text_that_never_comes_changes_nothing(model: HFModel, images: list[ImageRef]) -> None:
    plain, ended = (request("What?", images[0], Generation(12, stop=stop)) for stop in ((), ("never there",)))
    found = dict(model.generate([plain, ended]))
    assert found[plain].text == found[ended].text
    assert found[ended].finish_reason == "length"


def test_many_rows_at_once_end_each_at_its_own(model: HFModel, images: list[ImageRef]) -> None:
    asked = [
        request("What?", image, Generation(LONG, stop=(letter,))) for image in images for letter in "aeiou"
    ]
    alone = {one: answer.text for one, answer in model.one_by_one(asked)}
    together = {one: answer.text for one, answer in model.generate(asked)}
    assert together == alone
    assert not any(one.generation.stop[0] in text for one, text in together.items())


def test_a_character_of_several_bytes_ends_an_answer(tiny_vlm: Path, tmp_path: Path) -> None:
    loaded: Any = HFModel.load(str(tiny_vlm), device="cpu")._loaded
    tokens = loaded.processor.tokenizer("so ◁/think▷ B", add_special_tokens=False)["input_ids"]
    seen = [n for n in range(1, len(tokens) + 1) if loaded.detokenizer.stops(tokens[:n], ("◁/think▷",))]
    assert loaded.detokenizer.text(tokens[: seen[0]]) == "so ◁/think▷"
    assert list(loaded.detokenizer.cut_at_stop(tokens, ("◁/think▷",))) == tokens[: seen[0]]
    assert list(loaded.detokenizer.cut_at_stop(tokens, ("nowhere",))) == tokens


THOUGHTFUL = "<think>one\n\ntwo</think>\n\nB\n\nC"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("", THOUGHTFUL), ("ASSISTANT: <think>\n", THOUGHTFUL.removeprefix("<think>"))],
)
def test_what_ends_an_answer_is_looked_for_behind_the_thinking(
    tiny_vlm: Path, prompt: str, said: str
) -> None:
    loaded: Any = HFModel.load(str(tiny_vlm), device="cpu")._loaded
    tokens = loaded.processor.tokenizer(said, add_special_tokens=False)["input_ids"]
    stop, shorter = ("\n\n",), said.removesuffix("C")
    seen = [n for n in range(1, len(tokens) + 1) if loaded.detokenizer.stops(tokens[:n], stop, prompt)]
    assert loaded.detokenizer.text(tokens[: seen[0]]) == shorter
    assert loaded.detokenizer.text(loaded.detokenizer.cut_at_stop(tokens, stop, prompt)) == shorter
    response = loaded.response(tokens, 0.0, stop, prompt)
    assert (response.text, response.finish_reason) == ("<think>one\n\ntwo</think>\n\nB", "stop")
    thought = tokens[: len(tokens) // 2]
    assert loaded.response(thought, 0.0, stop, prompt).finish_reason == "length"


@pytest.mark.parametrize("way", ["generate", "one_by_one"])
def test_a_model_whose_prompt_opens_the_thinking_is_not_stopped_in_it(
    tiny_vlm: Path, tmp_path: Path, images: list[ImageRef], way: str
) -> None:
    folder = Path(shutil.copytree(tiny_vlm, tmp_path / "vlm"))
    template = folder / "chat_template.jinja"
    whole = request("What?", images[0], Generation(LONG))
    found = {}
    for opened in (False, True):
        if opened:
            template.write_text(CHAT_TEMPLATE.replace("ASSISTANT:{%", "ASSISTANT:<think>\n{%"))
        model = HFModel.load(str(folder), device="cpu")
        ((_, answer),) = getattr(model, way)([whole])
        stop = in_the_middle(answer.text.removeprefix("<think>"), 2)
        assert stop is not None
        own = request("What?", images[0], Generation(LONG, stop=(stop,)))
        ((_, ended),) = getattr(model, way)([own])
        found[opened] = (ended.text == answer.text, ended.n_tokens < answer.n_tokens)
    assert found == {False: (False, True), True: (True, False)}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("one\n\ntwo", "one"),
        (THOUGHTFUL, THOUGHTFUL.removesuffix("\n\nC")),
        ("<think>one\n\ntwo", "<think>one\n\ntwo"),
        ("one\n\ntwo</think>B\n\nC", "one\n\ntwo</think>B"),
        ("The tag <think> is odd.\n\nB", "The tag <think> is odd."),
    ],
)
def test_the_answer_alone_is_cut(text: str, left: str) -> None:
    assert cut_answer(text, ("\n\n",)) == left
    assert cut_answer(text, ()) == text


def test_special_tokens_that_are_tags_are_part_of_an_answer_and_others_are_not(
    tiny_vlm: Path, tmp_path: Path
) -> None:
    from transformers import AutoProcessor

    folder = Path(shutil.copytree(tiny_vlm, tmp_path / "vlm"))
    processor = AutoProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    tokenizer.add_tokens(["[THINK]", "[/THINK]", "<|own|>", "<|other|>"], special_tokens=True)
    processor.save_pretrained(folder)
    text = "[THINK]a[/THINK]B<|own|><|other|></s>"
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    said = {}
    for tags in ((), (("<|own|>", "<|end|>"),)):
        loaded: Any = HFModel.load(str(folder), device="cpu", tags=tags)._loaded
        said[tags] = loaded.response(tokens, 0.0).text
        assert (
            loaded.response(tokens, 0.0, prompt="so <|own|>\n").text
            == ("<|own|>" if tags else "") + said[tags]
        )
        assert loaded.response(tokens, 0.0, prompt="<think>\n").text == "<think>" + said[tags]
    assert list(said.values()) == ["[THINK]a[/THINK]B", "[THINK]a[/THINK]B<|own|>"]


def test_they_are_in_the_key_where_there_are_any(tmp_path: Path, images: list[ImageRef]) -> None:
    plain, ended = request("What?", images[0]), request("What?", images[0], Generation(12, stop=("x",)))
    other = request("What?", images[0], Generation(12, stop=("y",)))
    assert request_key(plain) == request_key(request("What?", images[0], Generation(12, stop=())))
    assert len({request_key(plain), request_key(ended), request_key(other)}) == 3
    fake = FakeVLM(lambda asked: asked.generation.stop[0] if asked.generation.stop else "all")
    model = CachedVLM(lambda: fake, "m", ResponseStore(tmp_path / "r.sqlite"))
    for _ in range(2):
        found = dict(model.generate([plain, ended, other]))
        assert [found[one].text for one in (plain, ended, other)] == ["all", "x", "y"]
    assert len(fake.asked) == 3


def test_the_first_of_several_ends_a_text() -> None:
    assert cut("a bb c", ("c", "bb")) == "a "
    assert cut("a bb c", ()) == "a bb c"
