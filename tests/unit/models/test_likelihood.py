"""How likely a model holds given answers: against transformers' own forward pass, one answer at a time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.images import image_ref
from stic_eval.models.hf_model import HFModel
from stic_eval.types import Generation, ImageRef, Likelihood, Message, Request
from tests.support.questions import mixed, request

Asked = tuple[Request, str]

TEXTS = ("a red box", "a red bow", "é, ü and 3.5", "x", "It shows two boxes, a disc and much beside them.")


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


@pytest.fixture(scope="module")
def model(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


@pytest.fixture(scope="module")
def pocket() -> HFModel:
    return HFModel.load("pocket", device="cpu")


def going_on(asked: Request, begun: str) -> Request:
    return replace(asked, messages=(*asked.messages, Message("assistant", begun)))


def plainly(model: HFModel, asked: Request, answer: str, begun: str = "") -> tuple[float, int]:
    """The same by nothing of ours: the text as Vicuna's template has it, and all logits of one row."""
    first, *_ = asked.messages
    place = "<image>\n" * len(asked.images)
    head = f"USER: {place}{first.text} ASSISTANT:" + (f" {begun}" if begun else "")
    whole = head + ("" if begun else " ") + answer
    images = [[image.load() for image in asked.images]] if asked.images else None
    inputs = [model.processor(text=[text], images=images, return_tensors="pt") for text in (head, whole)]
    start = inputs[0]["input_ids"].shape[1]
    ids = inputs[1]["input_ids"][0]
    assert ids[:start].tolist() == inputs[0]["input_ids"][0].tolist()
    with torch.inference_mode():
        logps = model.model(**inputs[1]).logits[0].log_softmax(-1)
    own = logps[start - 1 : -1].gather(1, ids[start:, None])
    return float(own.sum()), len(own)


def scored(model: HFModel, asked: Sequence[Asked]) -> dict[Asked, Likelihood]:
    found = list(model.likelihoods(asked))
    assert len(dict(found)) == len(found)
    return dict(found)


def close(value: float | list[float]) -> Any:
    return pytest.approx(value, rel=1e-5, abs=1e-4)


# ---------------------------------------------------------------- right


@pytest.mark.parametrize("which", ["model", "pocket"])
def test_it_is_what_a_forward_pass_says(
    which: str, images: list[ImageRef], request: pytest.FixtureRequest
) -> None:
    vlm = request.getfixturevalue(which)
    texts = (
        TEXTS if which == "model" else ("A day scene.", "A day scenes.", "There are two red boxes.", "yes")
    )
    asked = [(question, text) for question in mixed(images[:3]) for text in texts]
    found = scored(vlm, asked)
    assert set(found) == set(asked)
    for one, likelihood in found.items():
        logp, n_tokens = plainly(vlm, *one)
        assert (likelihood.logp, likelihood.n_tokens) == (close(logp), n_tokens)


def test_an_answer_of_ones_own_is_the_likeliest_at_each_token(
    pocket: HFModel, images: list[ImageRef]
) -> None:
    """The sum of what generation gave its own tokens is what they are scored by."""
    for image in images[:3]:
        asked = request("Describe the image.", image, Generation(24))
        inputs = pocket.processor(
            text=["USER: <image>\nDescribe the image. ASSISTANT:"],
            images=[[image.load()]],
            return_tensors="pt",
        )
        with torch.inference_mode():
            output = pocket.model.generate(
                **inputs, max_new_tokens=24, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        end = pocket.processor.tokenizer.eos_token_id
        said = tokens[: tokens.index(end)] if end in tokens else tokens
        wanted = sum(float(logits[0].log_softmax(-1).max()) for logits in output.logits[: len(said)])
        ((_, answer),) = pocket.generate([asked])
        likelihood = scored(pocket, [(asked, answer.text)])[asked, answer.text]
        assert (likelihood.logp, likelihood.n_tokens) == (close(wanted), len(said))


def test_an_answer_is_scored_behind_what_it_has_begun_with(model: HFModel, images: list[ImageRef]) -> None:
    for image in (images[0], None):
        asked = request("What?", image)
        begun, rest = "a red box", " and a disc."
        on = going_on(asked, begun)
        found = scored(model, [(asked, begun + rest), (asked, begun), (on, rest), (on, "!"), (on, " and")])
        assert found[on, rest].logp == close(plainly(model, asked, rest, begun)[0])
        assert found[on, "!"].logp == close(plainly(model, asked, "!", begun)[0])
        # The chain rule: log p(a) + log p(b | a) = log p(ab), for these are tokens of one byte.
        assert found[asked, begun + rest].logp == close(found[asked, begun].logp + found[on, rest].logp)
        assert found[on, rest].n_tokens == len(rest)


def test_what_has_begun_is_read_as_it_is_when_the_model_generates(
    model: HFModel, images: list[ImageRef]
) -> None:
    """Greedy generation behind a beginning gives what is likeliest behind it."""
    on = going_on(request("What?", images[0], Generation(1)), "a red box")
    letters = [chr(code) for code in range(33, 127)]
    found = scored(model, [(on, letter) for letter in letters])
    inputs = model.processor(
        text=["USER: <image>\nWhat? ASSISTANT: a red box"], images=[[images[0].load()]], return_tensors="pt"
    )
    with torch.inference_mode():
        logps = model.model(**inputs).logits[0, -1].log_softmax(-1)
    ids = model.processor.tokenizer.convert_tokens_to_ids(letters)
    assert [found[on, letter].logp for letter in letters] == close(logps[ids].tolist())


def test_a_beginning_without_a_word_is_none(model: HFModel, images: list[ImageRef]) -> None:
    asked = request("What?", images[0])
    found = scored(model, [(asked, "a box"), (going_on(asked, ""), "a box")])
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_an_empty_answer_is_certain_and_has_no_token(pocket: HFModel, empty: str) -> None:
    asked = request("What?")
    found = scored(pocket, [(asked, empty), (asked, "A box.")])
    if not empty:
        assert found[asked, empty] == Likelihood(0.0, 0)
    assert found[asked, "A box."] == scored(pocket, [(asked, "A box.")])[asked, "A box."]
    assert found[asked, empty].logp <= 0
    assert scored(pocket, [(going_on(asked, "A box."), "")]) == {
        (going_on(asked, "A box."), ""): Likelihood(0.0, 0)
    }


def test_control_tokens_in_an_answer_are_only_text(model: HFModel, images: list[ImageRef]) -> None:
    asked = request("What?", images[0])
    found = scored(model, [(asked, text) for text in ("</s>", "a<image>b", "<s>", "\ud83d")])
    assert all(value.n_tokens > 1 and value.logp < 0 for value in found.values())
    # As in a question: a token is spelt out, with a blank in it.
    assert found[asked, "</s>"].logp == close(plainly(model, asked, "< /s>")[0])
    assert found[asked, "a<image>b"].logp == close(plainly(model, asked, "a< image>b")[0])


def test_how_a_request_is_decoded_has_no_say(model: HFModel, images: list[ImageRef]) -> None:
    ways = [Generation(1), Generation(99, 0.7, 0.5, 3)]
    found = scored(model, [(request("What?", images[0], how), "a box") for how in ways])
    assert len(found) == 2
    assert len(set(found.values())) == 1


# ---------------------------------------------------------------- batches


def test_company_and_order_do_not_matter(tiny_vlm: Path, model: HFModel, images: list[ImageRef]) -> None:
    asked = [(question, text) for question in mixed(images[:4]) for text in TEXTS]
    expected = scored(model, asked)
    for size in (1, 5, 64):
        other = HFModel.load(str(tiny_vlm), device="cpu", batch_size=size)
        found = scored(other, random.Random(size).sample(asked, len(asked)))
        for one, value in found.items():
            assert (value.logp, value.n_tokens) == (close(expected[one].logp), expected[one].n_tokens)
    assert [scored(model, [one])[one].logp for one in asked[::9]] == close(
        [expected[one].logp for one in asked[::9]]
    )


def rows_computed(model: HFModel, most: int = 999) -> list[int]:
    """Rows of each forward pass from now on, of which no more fit than so many."""
    real, rows = model.model.forward, []

    @wraps(real)
    def forward(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        if rows[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    model.model.forward = forward
    return rows


def test_answers_that_differ_in_their_last_token_share_a_row(tiny_vlm: Path, images: list[ImageRef]) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")
    asked = [(request("Is it red?", image), answer) for image in images[:3] for answer in "YNyn?"]
    rows = rows_computed(model)
    found = scored(model, [*asked, *asked])  # and each is scored once
    assert sum(rows) == 3
    assert set(found) == set(asked)
    for one, value in found.items():
        assert value.logp == close(plainly(model, *one)[0])


def test_what_does_not_fit_is_done_in_halves(tiny_vlm: Path, model: HFModel, images: list[ImageRef]) -> None:
    asked = [(request("What?", image), text) for image in images for text in TEXTS]
    expected = scored(model, asked)
    small = HFModel.load(str(tiny_vlm), device="cpu", batch_size=16)
    rows = rows_computed(small, most=3)
    found = scored(small, asked)
    assert {one: value.logp for one, value in found.items()} == {
        one: close(value.logp) for one, value in expected.items()
    }
    assert sum(count for count in rows if count <= 3) == len({(one[0], one[1][:-1]) for one in asked})
    assert max(rows) > 3


def test_one_row_that_does_not_fit_is_one_line(tiny_vlm: Path, images: list[ImageRef]) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu", batch_size=4)
    rows_computed(model, most=0)
    with pytest.raises(UserError, match="one request does not fit in the memory of cpu"):
        scored(model, [(request("What?", image), "a box") for image in images])


def test_other_errors_are_not_taken_for_memory(tiny_vlm: Path) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")

    def forward(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("device-side assert")

    model.model.forward = forward
    with pytest.raises(RuntimeError, match="device-side assert"):
        scored(model, [(request("What?"), "a box")])


def test_an_image_that_cannot_be_decoded_is_named(model: HFModel, photos: Path, tmp_path: Path) -> None:
    copy = tmp_path / "gone.png"
    copy.write_bytes((photos / "0.png").read_bytes())
    image = image_ref(copy)
    copy.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"gone\.png"):
        scored(model, [(request("What?", image), "a box")])


# ---------------------------------------------------------------- adapters


def test_an_adapter_has_its_own(tiny_vlm: Path, adapters: tuple[Path, Path], images: list[ImageRef]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    model = HFModel.load(str(tiny_vlm), device="cpu")
    asked = [(request("What?", images[0]), text) for text in TEXTS]
    base = scored(model, asked)
    views = [model.with_adapter(folder) for folder in adapters]
    streams = [view.likelihoods(asked) for view in views]
    taken = [dict(stream) for stream in streams]
    assert scored(model, asked) == base
    for folder, found in zip(adapters, taken, strict=True):
        assert all(abs(found[one].logp - base[one].logp) > 1e-3 for one in asked)
        plain = AutoModelForImageTextToText.from_pretrained(tiny_vlm, use_safetensors=True)
        own = PeftModel.from_pretrained(plain, folder).eval()
        inputs = model.processor(
            text=["USER: <image>\nWhat? ASSISTANT: x"], images=[[images[0].load()]], return_tensors="pt"
        )
        with torch.inference_mode():
            logps = own(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0]
        wanted = float(logps[-3:-1].gather(1, ids[-2:, None]).sum())
        assert found[asked[3]].logp == close(wanted)


def test_views_that_are_scored_in_turn_keep_their_adapters(
    tiny_vlm: Path, adapters: tuple[Path, Path], images: list[ImageRef]
) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu", batch_size=1)
    asked = [(request("What?", image), "a box") for image in images]
    a, b = (model.with_adapter(folder) for folder in adapters)
    expected = scored(a, asked), scored(b, asked)
    found: tuple[dict[Asked, Likelihood], dict[Asked, Likelihood]] = ({}, {})
    for one, other in zip(a.likelihoods(asked), b.likelihoods(asked), strict=True):
        found[0][one[0]], found[1][other[0]] = one[1], other[1]
    assert found == expected
