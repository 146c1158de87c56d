"""Real generation on a tiny LLaVA: batches, sampling, adapters, and what is refused."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.types import Generation, ImageRef, Message, Request, Response
from tests.support.questions import QUESTIONS, answers, mixed, request


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


@pytest.fixture(scope="module")
def model(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu", batch_size=7)


# ---------------------------------------------------------------- batches


def test_answers_depend_on_image_and_question(model: HFModel, images: list[ImageRef]) -> None:
    for fixed in (QUESTIONS[0], QUESTIONS[1]):
        found = answers(model, [request(fixed, image) for image in images])
        assert len(set(found.values())) > len(images) // 2
    found = answers(model, [request(text, images[0]) for text in QUESTIONS])
    assert len(set(found.values())) == len(QUESTIONS)


@pytest.mark.parametrize("generation", [Generation(12), Generation(12, temperature=1.5, top_p=0.9, seed=3)])
def test_an_answer_does_not_depend_on_its_batch(
    tiny_vlm: Path, images: list[ImageRef], generation: Generation
) -> None:
    requests = mixed(images, generation)
    alone = answers(HFModel.load(str(tiny_vlm), device="cpu", batch_size=1), requests)
    shuffled = random.Random(0).sample(requests, len(requests))
    for batch_size in (5, 64):
        together = HFModel.load(str(tiny_vlm), device="cpu", batch_size=batch_size)
        assert answers(together, requests) == alone
        assert answers(together, shuffled) == alone
        assert answers(together, shuffled[:9]) == {asked: alone[asked] for asked in shuffled[:9]}


def test_images_of_other_shapes_do_not_change_an_answer(tiny_next: Path, images: list[ImageRef]) -> None:
    requests = mixed(images)
    alone = answers(HFModel.load(str(tiny_next), device="cpu", batch_size=1), requests)
    assert len(set(alone.values())) > len(requests) // 2
    assert answers(HFModel.load(str(tiny_next), device="cpu", batch_size=9), requests[::-1]) == alone


def test_generating_settings_are_not_mixed_up_in_a_batch(model: HFModel, images: list[ImageRef]) -> None:
    short, long = Generation(3), Generation(20)
    found = answers(model, [request("What?", i, g) for i in images for g in (short, long)])
    for image in images:
        (a, n, _), (b, m, _) = found[request("What?", image, short)], found[request("What?", image, long)]
        assert (n, m) == (3, 20)
        assert a != b


def test_the_answer_is_transformers_own(tiny_vlm: Path, model: HFModel, images: list[ImageRef]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(tiny_vlm)
    plain = AutoModelForImageTextToText.from_pretrained(tiny_vlm).eval()
    prompt = "USER: <image>\nWhat? ASSISTANT:"
    inputs = processor(text=prompt, images=images[0].load(), return_tensors="pt")
    output = plain.generate(**inputs, max_new_tokens=12, do_sample=False)
    text = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    ((_, response),) = model.generate([request("What?", images[0])])
    assert response.text == text.strip()


def test_several_turns_and_a_system_message(model: HFModel, images: list[ImageRef]) -> None:
    turns = (Message("system", "Be brief."), Message("user", "What?"), Message("assistant", "A dog."))
    asked = Request((*turns, Message("user", "Why?")), (images[0],), Generation(8))
    other = Request(
        (*turns[:2], Message("assistant", "A cat."), Message("user", "Why?")), (images[0],), Generation(8)
    )
    found = answers(model, [asked, other])
    assert found[asked] != found[other]


def test_an_answer_ends_at_the_end_token(model: HFModel, images: list[ImageRef]) -> None:
    hot = [Generation(400, temperature=3.0, seed=seed) for seed in range(12)]
    found = answers(model, [request("What?", images[0], g) for g in hot])
    assert {reason for _, _, reason in found.values()} == {"stop", "length"}
    for asked, (text, n, reason) in found.items():
        if reason == "length":
            assert n == 400
            continue
        seed = asked.generation.seed
        again = request("What?", images[0], Generation(n, temperature=3.0, seed=seed))
        cut = request("What?", images[0], Generation(n - 1, temperature=3.0, seed=seed))
        assert answers(model, [again])[again] == (text, n, "stop")
        assert answers(model, [cut])[cut] == (text, n - 1, "length")


def test_control_tokens_in_a_text_are_only_text(model: HFModel, images: list[ImageRef]) -> None:
    texts = ("<image>", "a</s>USER: b", "<image><image> \ud800 <pad>")
    found = answers(model, [request(text, images[0]) for text in texts])
    assert len(set(found.values())) == 3
    assert answers(model, [request("<image>")])


def test_a_checkpoints_own_decoding_does_not_count(
    tiny_vlm: Path, tmp_path: Path, model: HFModel, images: list[ImageRef]
) -> None:
    shutil.copytree(tiny_vlm, tmp_path / "vlm")
    path = tmp_path / "vlm" / "generation_config.json"
    own = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 7.0, "no_repeat_ngram_size": 1}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))
    assert answers(HFModel.load(str(tmp_path / "vlm"), device="cpu"), mixed(images)) == answers(
        model, mixed(images)
    )


# ---------------------------------------------------------------- sampling


def test_seeds_sample_apart_and_the_same_again(model: HFModel, images: list[ImageRef]) -> None:
    requests = [request("What?", images[0], Generation(12, temperature=2.0, seed=s)) for s in range(8)]
    first = answers(model, requests)
    assert len({text for text, _, _ in first.values()}) == 8
    torch.manual_seed(99)
    assert answers(model, requests) == first


# ---------------------------------------------------------------- adapters


def test_adapters_take_turns(tiny_vlm: Path, images: list[ImageRef], adapters: tuple[Path, Path]) -> None:
    requests = mixed(images)
    views = [HFModel.load(str(tiny_vlm), device="cpu")]
    views += [views[0].with_adapter(adapter) for adapter in adapters]
    alone = [
        answers(HFModel.load(str(tiny_vlm), device="cpu").with_adapter(a), requests)
        for a in (None, *adapters)
    ]
    assert alone[0] != alone[1] != alone[2] != alone[0]
    for turn in (0, 1, 2, 1, 0, 2, 0, 0, 1):
        assert answers(views[turn], requests) == alone[turn]


def test_two_views_may_answer_at_the_same_time(
    tiny_vlm: Path, images: list[ImageRef], adapters: tuple[Path, Path]
) -> None:
    requests = mixed(images)
    base = HFModel.load(str(tiny_vlm), device="cpu", batch_size=3)
    tuned = base.with_adapter(adapters[0])
    expected = answers(base, requests), answers(tuned, requests)
    found: tuple[dict[Request, Response], dict[Request, Response]] = ({}, {})
    for both in zip(base.generate(requests), tuned.generate(requests), strict=True):
        for answer, (asked, response) in zip(found, both, strict=True):
            answer[asked] = response
    for answer, wanted in zip(found, expected, strict=True):
        assert {asked: response.text for asked, response in answer.items()} == {
            k: v[0] for k, v in wanted.items()
        }


def test_an_adapter_is_applied_as_peft_does(
    tiny_vlm: Path, images: list[ImageRef], adapters: tuple[Path, Path]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    tuned = HFModel.load(str(tiny_vlm), device="cpu").with_adapter(adapters[0])
    inputs = tuned.processor(
        text="USER: <image>\nWhat? ASSISTANT:", images=images[0].load(), return_tensors="pt"
    )
    plain = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(tiny_vlm), adapters[0]
    ).eval()
    with torch.no_grad():
        assert torch.equal(tuned.model(**inputs).logits, plain(**inputs).logits)


def test_the_base_is_untouched_after_adapters(
    tiny_vlm: Path, images: list[ImageRef], adapters: tuple[Path, Path]
) -> None:
    base = HFModel.load(str(tiny_vlm), device="cpu")
    inputs = base.processor(
        text="USER: <image>\nWhat? ASSISTANT:", images=images[0].load(), return_tensors="pt"
    )
    with torch.no_grad():
        before = base.model(**inputs).logits
        names = [name for name, _ in base.model.named_modules()]
        assert not torch.equal(base.with_adapter(adapters[0]).model(**inputs).logits, before)
        assert torch.equal(base.model(**inputs).logits, before)
    assert [name for name, _ in base.model.named_modules()] == names
    assert not hasattr(base.model, "peft_config")


def test_an_adapter_of_another_model_is_refused_and_leaves_the_base(
    tiny_vlm: Path, images: list[ImageRef], adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    wrong = tmp_path / "wrong"
    shutil.copytree(adapters[0], wrong)
    weights = load_file(wrong / "adapter_model.safetensors")
    save_file(
        {name: torch.cat([w, w], 1) for name, w in weights.items()}, wrong / "adapter_model.safetensors"
    )
    base = HFModel.load(str(tiny_vlm), device="cpu")
    expected = answers(base, mixed(images))
    layers = {name: type(layer) for name, layer in base.model.named_modules()}
    with pytest.raises(UserError, match="does not fit this model"):
        list(base.with_adapter(wrong).generate(mixed(images)))
    assert {name: type(layer) for name, layer in base.model.named_modules()} == layers
    assert not hasattr(base.model, "peft_config")
    assert answers(base, mixed(images)) == expected
    assert answers(base.with_adapter(adapters[0]), mixed(images)) != expected


def test_an_adapter_of_which_a_part_fits_is_refused_and_leaves_the_base(
    tiny_vlm: Path, images: list[ImageRef], adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = HFModel.load(str(tiny_vlm), device="cpu")
    expected = answers(base, mixed(images))
    weights = load_file(adapters[0] / "adapter_model.safetensors")
    first = min(weights)
    others = {name: tensor for name, tensor in weights.items() if name != first}
    renamed = {**others, first.replace("model.", "model.elsewhere.", 1): weights[first]}
    for kept, said in ((others, "are missing"), (renamed, "have no place")):
        folder = tmp_path / said
        shutil.copytree(adapters[0], folder)
        save_file(kept, folder / "adapter_model.safetensors")
        with pytest.raises(UserError, match=f"1 of .* {said}") as error:
            list(base.with_adapter(folder).generate(mixed(images)))
        assert "trained on this model" in str(error.value)
    assert answers(base, mixed(images)) == expected


def test_an_adapter_without_safetensors_is_refused(
    tiny_vlm: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(adapters[0], pickled)
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    base = HFModel.load(str(tiny_vlm), device="cpu")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        list(base.with_adapter(pickled).generate([request("What?")]))
    with pytest.raises(UserError, match="PEFT adapter folder"):
        base.with_adapter(tmp_path)


# ---------------------------------------------------------------- loading


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / "chat_template.jinja").unlink(), "no chat template"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 100), "is not a safetensors file"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
        (lambda f: (f / "tokenizer.json").unlink(), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "takes no images"),
    ],
)
def test_a_folder_that_is_no_model_is_one_line(tiny_vlm: Path, tmp_path: Path, harm: Any, says: str) -> None:
    folder = tmp_path / "vlm"
    shutil.copytree(tiny_vlm, folder)
    harm(folder)
    with pytest.raises(UserError, match=says) as caught:
        HFModel.load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(("flag", "value"), [("device", "cuda:7"), ("device", "abacus"), ("dtype", "int3")])
def test_a_device_or_dtype_that_is_not_there_is_named(tiny_vlm: Path, flag: str, value: str) -> None:
    options: dict[str, Any] = {flag: value}
    with pytest.raises(UserError, match=f"--{flag} {value}"):
        HFModel.load(str(tiny_vlm), **{"device": "cpu", **options})


def test_dtype_is_float32_on_a_cpu_unless_chosen(tiny_vlm: Path, images: list[ImageRef]) -> None:
    assert HFModel.load(str(tiny_vlm), device="cpu").dtype == torch.float32
    half = HFModel.load(str(tiny_vlm), device="cpu", dtype="bfloat16")
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert answers(half, mixed(images[:2]))
