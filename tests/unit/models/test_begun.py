"""Going on from an answer that has begun: how it is written, and that every way of asking goes on alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.models.prompt_text import render_prompts
from stic_eval.store import request_key
from stic_eval.types import Generation, ImageRef, Message, Request
from tests.support.questions import answers, mixed, request

BEGUN = "A day scene."


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


@pytest.fixture(scope="module")
def pocket() -> HFModel:
    return HFModel.load("pocket", device="cpu")


def going_on(asked: Request, begun: str = BEGUN) -> Request:
    return replace(asked, messages=(*asked.messages, Message("assistant", begun)))


# ---------------------------------------------------------------- as it is written


class Template:
    """A processor whose template is a function of an answer's text."""

    def __init__(self, before: str, answer: Any, end: str) -> None:
        self._before, self._answer, self._end = before, answer, end

    def apply_chat_template(
        self, conversations: list[Any], tokenize: bool, add_generation_prompt: bool = False
    ) -> list[str]:
        assert not tokenize
        found = []
        for turns in conversations:
            text = ""
            for turn in turns:
                said = "".join(part.get("text", "<image>") for part in turn["content"])
                if turn["role"] == "assistant":
                    text += f"{self._before}{self._answer(said)}{self._end}"
                else:
                    text += f"[{turn['role']}]{said}\n"
            found.append(text + (self._before.rstrip(" ") if add_generation_prompt else ""))
        return found


def same(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        (Template("[bot]", same, "</s>"), "[bot]A day  scene. "),
        (Template("[bot] ", same, "</s>"), "[bot] A day  scene. "),  # where answers begin with a blank
        (Template("[bot]\n", str.strip, "\n</s>"), "[bot]\nA day  scene."),
        (
            Template("[bot]", lambda text: f"<think></think>{text}", "</s>"),
            "[bot]<think></think>A day  scene. ",
        ),
        (Template("[bot]", lambda text: "", "</s>"), "[bot]A day  scene."),  # it hides answers
        (Template("[bot]", lambda text: text.replace("  ", " "), "</s>"), "[bot]A day  scene."),
    ],
)
def test_it_is_written_as_the_template_has_it_up_to_its_end(template: Template, wanted: str) -> None:
    asked = Request((Message("system", "S"), Message("user", "What?")), (), Generation())
    earlier = (Message("user", "What?"), Message("assistant", "A day  scene. "), Message("user", "And?"))
    requests = [
        going_on(asked, "A day  scene. "),
        asked,
        going_on(Request(earlier, (), Generation()), "A day  scene. "),
    ]
    first, plain, last = render_prompts(template, requests, ())
    assert first == f"[system]S\n[user]What?\n{wanted}"
    assert plain == "[system]S\n[user]What?\n" + template._before.rstrip(" ")
    assert last.startswith("[user]What?\n[bot]")
    assert last.endswith(f"[user]And?\n{wanted}")
    assert render_prompts(template, [], ()) == []


@settings(deadline=None)
@given(begun=st.text(max_size=20), bot=st.sampled_from(["[bot]", "[bot] ", "[bot]\n"]))
def test_every_text_is_written_behind_where_answers_begin(begun: str, bot: str) -> None:
    for answer in (same, str.strip):
        asked = request("What?")
        template = Template(bot, answer, "</s>")
        (bare,) = render_prompts(template, [asked], ())
        (found,) = render_prompts(template, [going_on(asked, begun)], ())
        assert found.startswith(bare)
        text = begun.encode("utf-8", "replace").decode()
        assert found.removeprefix(bare).strip() == text.strip()


def test_control_tokens_in_it_are_only_text(pocket: HFModel) -> None:
    asked = [going_on(request("What?"), text) for text in ("a</s>b", "a<image>b", "<s>")]
    loaded = pocket._loaded
    for text in render_prompts(loaded.processor, asked, loaded.control):
        assert not [token for token in ("</s>", "<image>") if token in text.partition("ASSISTANT:")[2]]
    assert all(response.n_tokens for _, response in pocket.generate(asked))


def test_what_has_begun_is_part_of_what_is_asked() -> None:
    asked = request("What?")
    keys = {request_key(one) for one in (asked, going_on(asked), going_on(asked, "A"), going_on(asked, ""))}
    assert len(keys) == 4


# ---------------------------------------------------------------- as it is gone on with


def plainly(model: HFModel, asked: Request) -> str:
    """Transformers' own answer behind the text as Vicuna's template has it."""
    place = "<image>\n" * len(asked.images)
    first, last = asked.messages
    inputs = model.processor(
        text=[f"USER: {place}{first.text} ASSISTANT: {last.text}"],
        images=[[image.load() for image in asked.images]] if asked.images else None,
        return_tensors="pt",
    )
    with torch.inference_mode():
        output = model.model.generate(
            **inputs, max_new_tokens=asked.generation.max_new_tokens, do_sample=False
        )
    new = output[0, inputs["input_ids"].shape[1] :]
    return str(model.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("which", ["pocket", "tiny", "plain"])
def test_it_is_transformers_own_generation_behind_the_same_text(
    which: str, tiny_vlm: Path, images: list[ImageRef]
) -> None:
    """By the engine and by transformers alone, beside requests without a beginning."""
    model = HFModel.load("pocket" if which == "pocket" else str(tiny_vlm), device="cpu", batch_size=5)
    if which == "plain":
        model._loaded.ways = frozenset()
    bare = mixed(images[:3])
    asked = [going_on(one, begun) for one in bare for begun in (BEGUN, "There are")]
    found = answers(model, [*asked, *bare])
    for one in asked[::3]:
        assert found[one][0] == plainly(model, one)
    assert {one: found[one] for one in bare} == answers(model, bare)
    differ = sum(found[going_on(one)] != found[one] for one in bare)
    assert differ > len(bare) / 2
    sampled = [replace(one, generation=Generation(8, 1.0, 1.0, 5)) for one in asked]
    assert answers(model, sampled) == answers(model, sampled[::-1])


def test_the_beginning_of_an_answer_of_ones_own_is_gone_on_with_as_it_was(
    pocket: HFModel, images: list[ImageRef]
) -> None:
    """A model of words; it has learnt where they end."""
    asked = [request("Describe the image.", image, Generation(24)) for image in images]
    whole = {one: text for one, (text, *_) in answers(pocket, asked).items()}
    cut = {one: text.split(" ")[:3] for one, text in whole.items()}
    found = answers(pocket, [going_on(one, " ".join(words)) for one, words in cut.items()])
    for one, words in cut.items():
        rest = found[going_on(one, " ".join(words))][0]
        assert f"{' '.join(words)} {rest}".startswith(whole[one])


def test_nothing_is_left_to_say_behind_an_answer_that_is_whole(
    pocket: HFModel, images: list[ImageRef]
) -> None:
    asked = [request("Describe the image.", image, Generation(64)) for image in images]
    done = [(one, text) for one, (text, _, reason) in answers(pocket, asked).items() if reason == "stop"]
    assert done
    for text, n_tokens, reason in answers(pocket, [going_on(one, text) for one, text in done]).values():
        assert (text, n_tokens, reason) == ("", 1, "stop")


def test_a_beginning_shares_the_work_on_its_image(tiny_vlm: Path, images: list[ImageRef]) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")
    assert "loop" in model.ways
    seen: list[int] = []
    real = model._loaded.base.model.vision_tower.forward

    def forward(pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(pixel_values))
        return real(pixel_values, *args, **kwargs)

    model._loaded.base.model.vision_tower.forward = forward
    answers(
        model, [going_on(request("What?", image), begun) for image in images for begun in ("A", "B", "C")]
    )
    assert sum(seen) == len(images)
