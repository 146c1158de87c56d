"""A profile in force: one and the same prompt and pixels in generation, likelihoods and training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from stic_eval import profiles
from stic_eval.errors import UserError
from stic_eval.images import image_ref
from stic_eval.models import profile_processor
from stic_eval.models.conversation import encode
from stic_eval.models.hf_model import HFModel
from stic_eval.models.still_image_processors import load_processor
from stic_eval.profiles import ConversationProfile
from stic_eval.types import Generation, ImageRef, Message, Request
from tests.conftest import draw_photos
from tests.support.zoo import FAMILIES

SYSTEM = "Answer as a painter would."
LLAVA = ConversationProfile("x", SYSTEM, profiles.TEMPLATES["vicuna_v1"], {"do_pad": True})


def opened(folder: Path) -> Any:
    return load_processor(str(folder), AutoConfig.from_pretrained(folder))


def asked(text: str, image: ImageRef, *before: Message) -> Request:
    return Request((*before, Message("user", text)), (image,), Generation(max_new_tokens=6))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> ImageRef:
    """A picture twice as wide as high, whose outer quarters a crop would lose."""
    path = tmp_path_factory.mktemp("wide") / "wide.png"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return image_ref(path)


@pytest.fixture(scope="module")
def model(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu", profile=LLAVA)


def by_hand(processor: Any, image: ImageRef, text: str) -> dict[str, torch.Tensor]:
    """Inputs of a question, from the definitions: the text written out, the picture in its square."""
    canvas = Image.new("RGB", (64, 64), (122, 116, 104))
    canvas.paste(image.load(), (0, 16))
    tile = np.asarray(canvas.resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
    std = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
    pixels = torch.tensor(((tile - mean) / std).transpose(2, 0, 1))[None]
    written = text.replace("<image>", "<image>" * 4)
    return {"input_ids": torch.tensor([processor.tokenizer(written)["input_ids"]]), "pixel_values": pixels}


def test_answers_are_those_of_transformers_to_the_text_and_pixels_written_out(
    model: HFModel, tiny_vlm: Path, wide: ImageRef
) -> None:
    plain = AutoModelForImageTextToText.from_pretrained(tiny_vlm).eval()
    questions = ["What is it?", "Which colours do you see?", "Count the corners."]
    got = dict(model.generate([asked(text, wide) for text in questions]))
    assert "prefix" in model.ways
    for text in questions:
        inputs = by_hand(model.processor, wide, f"{SYSTEM} USER: <image>\n{text} ASSISTANT:")
        out = plain.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        expected = model.processor.tokenizer.decode(out, skip_special_tokens=True).strip()
        assert got[asked(text, wide)].text == expected


def test_likelihoods_are_of_the_same_prompt(model: HFModel, tiny_vlm: Path, wide: ImageRef) -> None:
    plain = AutoModelForImageTextToText.from_pretrained(tiny_vlm).eval()
    request = asked("What is it?", wide)
    ((_, found),) = model.likelihoods([(request, "red")])
    head = by_hand(model.processor, wide, f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT:")
    inputs = by_hand(model.processor, wide, f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: red")
    start = head["input_ids"].shape[1]
    with torch.inference_mode():
        logps = plain(**inputs).logits[0].log_softmax(-1)
    ids = inputs["input_ids"][0]
    expected = sum(float(logps[n - 1, ids[n]]) for n in range(start, len(ids)))
    assert math.isclose(found.logp, expected, rel_tol=1e-4)


def test_training_sees_the_same_prompt_and_pixels(model: HFModel, wide: ImageRef) -> None:
    turns = (("user", "What is it?"), ("assistant", "red"), ("user", "And there?"), ("assistant", "blue"))
    made = encode(model.processor, [wide.load()], [turns])
    text = f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: red</s>USER: And there? ASSISTANT: blue</s>"
    expected = by_hand(model.processor, wide, text)
    assert made["input_ids"].tolist() == expected["input_ids"].tolist()
    assert torch.allclose(made["pixel_values"], expected["pixel_values"], atol=1e-5)
    learnt = made["input_ids"][made["answer_mask"] == 1]
    assert model.processor.tokenizer.decode(learnt) == " red</s> blue</s>"


def test_a_conversation_with_a_system_turn_keeps_its_own(model: HFModel, wide: ImageRef) -> None:
    turns = (("system", "Be brief."), ("user", "What is it?"), ("assistant", "red"))
    made = encode(model.processor, [wide.load()], [turns])
    text = model.processor.tokenizer.decode(made["input_ids"][0])
    assert text == f"<s>Be brief. USER: {'<image>' * 4}\nWhat is it? ASSISTANT: red</s>"


def test_without_a_profile_the_processor_is_the_checkpoints(tiny_vlm: Path) -> None:
    plain = HFModel.load(str(tiny_vlm), device="cpu")
    assert plain.processor.chat_template == opened(tiny_vlm).chat_template
    profiled = HFModel.load(str(tiny_vlm), device="cpu", profile=LLAVA)
    assert plain.fingerprint != profiled.fingerprint


def test_the_padded_processor_is_saved_as_the_class_that_it_was(tiny_vlm: Path, tmp_path: Path) -> None:
    processor = opened(tiny_vlm)
    profile_processor.apply(processor, LLAVA)
    processor.save_pretrained(tmp_path)
    again = type(processor).from_pretrained(tmp_path)
    assert type(again.image_processor).__name__.startswith("CLIPImageProcessor")
    assert again.chat_template == processor.chat_template


@pytest.mark.parametrize(
    "family", ["qwen2_5_vl", "internvl", "idefics3", "gemma3", "llava_onevision", "mllama"]
)
def test_other_families_take_a_system_prompt_in_their_own_words(family: str, tmp_path: Path) -> None:
    folder = FAMILIES[family].build(tmp_path / family)
    image = image_ref(draw_photos(tmp_path / "photos", 1) / "0.png")
    profile = ConversationProfile(system_prompt=SYSTEM)
    with_prompt = HFModel.load(str(folder), device="cpu", profile=profile)
    without = HFModel.load(str(folder), device="cpu")
    text = "Which colours do you see?"
    given = asked(text, image, Message("system", SYSTEM))
    ((_, got),) = with_prompt.generate([asked(text, image)])
    ((_, expected),) = without.generate([given])
    assert got.text == expected.text
    ((_, other),) = without.generate([asked(text, image)])
    assert got.text != other.text


# ---------------------------------------------------------------- what does not fit


def refused(made: Any, **profile: Any) -> str:
    with pytest.raises(UserError) as caught:
        profile_processor.apply(made, ConversationProfile(**profile))
    return str(caught.value)


def test_a_template_without_a_place_for_images_or_a_system_prompt_is_refused(tiny_vlm: Path) -> None:
    said = refused(opened(tiny_vlm), chat_template="{{ messages[0]['role'] }}")
    assert said.startswith("--chat-template: writes no <image>")
    deaf = "{% for m in messages if m['role'] == 'user' %}<image>{{ m['content'][1]['text'] }}{% endfor %}"
    said = refused(opened(tiny_vlm), chat_template=deaf, system_prompt=SYSTEM)
    assert said == "--system-prompt: the model's chat template writes none; give --chat-template too"
    assert refused(opened(tiny_vlm), chat_template="{% if").startswith("--chat-template: cannot be used")


@pytest.mark.parametrize(
    ("family", "arguments", "said"),
    [
        ("llava", {"min_pixels": 100}, "takes no min_pixels"),
        ("llava", {"do_padd": True}, 'takes no do_padd; did you mean "do_pad"?'),
        ("llava", {"pad_size": {"height": 50, "width": 50}}, "changes no pixel"),
        ("llava", {"size": "large"}, '-o processor.size="large": CLIPImageProcessor'),
        ("llava", {"do_pad": False}, "changes no pixel"),
        ("llava_next", {"do_pad": True}, "changes no pixel"),
        ("paligemma", {"do_pad": True}, "changes no pixel"),
        ("qwen2_vl", {"do_pad": True}, "changes no pixel"),
        ("qwen2_vl", {"max_pixels": 64 * 64}, "changes no pixel"),  # what it has already
    ],
)
def test_an_argument_that_changes_no_pixel_is_refused_by_name(
    family: str, arguments: dict[str, Any], said: str, tmp_path: Path
) -> None:
    message = refused(opened(FAMILIES[family].build(tmp_path)), processor=arguments)
    assert message.startswith(f"-o processor.{next(iter(arguments))}=")
    assert said in message


@pytest.mark.parametrize("arguments", [{"min_pixels": 4096, "max_pixels": 8192}, {"max_pixels": 1 << 20}])
def test_bounds_on_pixels_hold_where_a_family_knows_them(arguments: dict[str, int], tmp_path: Path) -> None:
    processor = opened(FAMILIES["qwen2_vl"].build(tmp_path))
    profile_processor.apply(processor, ConversationProfile(processor=arguments))
    for size in ((20, 20), (900, 500)):
        grid = processor.image_processor([Image.new("RGB", size)], return_tensors="pt")["image_grid_thw"][0]
        area = int(grid.prod()) * 8 * 8
        assert arguments.get("min_pixels", 0) <= area <= arguments["max_pixels"]


def test_other_tiles_are_the_models_as_well(tiny_next: Path, tmp_path: Path) -> None:
    tiles = {"image_grid_pinpoints": [[32, 64]]}
    model = HFModel.load(str(tiny_next), device="cpu", profile=ConversationProfile(processor=tiles))
    # High and wide pictures alike come to one row of two tiles, and the whole.
    images = [image_ref(path) for path in sorted(draw_photos(tmp_path).iterdir())]
    for image in images:
        made = model.processor.image_processor([image.load()], return_tensors="pt")
        assert made["pixel_values"].shape[1] == 3
    answers = list(model.generate([asked("What is it?", image) for image in images]))
    assert len(answers) == len(images)
    assert "loop" in model.ways


def test_padding_is_taken_back_by_its_own_argument(tiny_vlm: Path, wide: ImageRef) -> None:
    on, off, never = (opened(tiny_vlm) for _ in range(3))
    profile_processor.apply(on, ConversationProfile(processor={"do_pad": True}))
    profile_processor.apply(off, replace(profiles.SHIPPED["llava-1.5"], processor={"do_pad": False}))
    pixels = [p.image_processor([wide.load()], return_tensors="np")["pixel_values"] for p in (on, off, never)]
    assert not np.array_equal(pixels[0], pixels[1])
    assert np.array_equal(pixels[1], pixels[2])


@pytest.mark.parametrize(("own", "changes"), [(True, False), (False, True)])
def test_llavas_own_processor_may_pad_already(
    tiny_vlm: Path, wide: ImageRef, own: bool, changes: bool
) -> None:
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    def made() -> Any:
        processor = opened(tiny_vlm)
        given = processor.image_processor.to_dict()
        processor.image_processor = LlavaImageProcessorPil.from_dict({**given, "do_pad": own})
        return processor

    assert "changes no pixel" in refused(made(), processor={"do_pad": own})
    before, other, shipped = made(), made(), made()
    profile_processor.apply(other, ConversationProfile(processor={"do_pad": not own}))
    profile_processor.apply(shipped, profiles.SHIPPED["llava-1.5"])  # whatever the checkpoint has
    plain, turned, padded = (
        p.image_processor([wide.load()], return_tensors="np")["pixel_values"]
        for p in (before, other, shipped)
    )
    assert not np.allclose(plain, turned, atol=0.05)
    assert np.allclose(plain, padded, atol=0.05) != changes
