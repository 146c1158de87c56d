"""Sharing under pressure: images of many sizes, small stores, adapters of other kinds, views in turn."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stic_eval.errors import UserError
from stic_eval.models import continuous_batching
from stic_eval.models.bounded_store import BoundedStore, nbytes_of
from stic_eval.models.free_memory import RowLimit
from stic_eval.models.hf_model import HFModel
from stic_eval.models.weight_memory import local_parameters
from stic_eval.types import Generation, ImageRef, Message, Request

TEXTS = (
    "What?",
    "Is there anything that is red, and if so, where in the picture is it to be seen? " * 3,
    "Why?",
)


def picture(number: int, size: tuple[int, int]) -> ImageRef:
    noise = Image.effect_noise(size, 60 + number)
    image = Image.merge("RGB", (noise, noise.rotate(180), Image.new("L", size, number * 37 % 256)))
    return ImageRef(f"{number}-{size}", f"{number}", lambda: image)


def ask(text: str, *images: ImageRef, new: int = 8, **how: Any) -> Request:
    return Request((Message("user", text),), images, Generation(new, **how))


def said(found: Any) -> Counter[tuple[Request, str, int]]:
    return Counter((request, answer.text, answer.n_tokens) for request, answer in found)


PICTURES = [picture(n, size) for n, size in enumerate([(32, 32), (130, 40), (40, 130), (96, 96), (300, 60)])]


@pytest.mark.parametrize("seed", range(3))
def test_random_requests_are_answered_as_one_at_a_time(tiny_next: Path, seed: int) -> None:
    draw = random.Random(seed)
    alone = HFModel.load(str(tiny_next), device="cpu")
    for reuse in ("always", True, False):
        model = HFModel.load(str(tiny_next), device="cpu", reuse=reuse)
        assert "loop" in model.ways
        for _ in range(3):
            requests = [
                ask(
                    draw.choice(TEXTS),
                    *draw.choices(PICTURES, k=draw.choice([0, 1, 1, 1, 2])),
                    new=draw.choice([1, 3, 12]),
                    **draw.choice([{}, {}, {"temperature": 1.5, "seed": draw.randint(0, 3)}]),
                )
                for _ in range(draw.randint(1, 14))
            ]
            model._loaded.rows = RowLimit(draw.choice([1, 2, 5, 64]))
            model._loaded.beginnings = BoundedStore(draw.choice([0, 20_000, 10**9]))
            model._loaded.prefixes = BoundedStore(draw.choice([0, 100_000, 10**9]), nbytes_of)
            assert said(model.generate(requests)) == said(alone.one_by_one(requests))


def test_a_large_picture_with_a_short_question_beside_the_opposite(tiny_next: Path) -> None:
    large, small = PICTURES[4], PICTURES[0]
    model = HFModel.load(str(tiny_next), device="cpu", reuse="always")
    first = [ask("And?", large), ask("And?", small)]
    list(model.generate(first))  # both are at hand now
    requests = [ask("What?", large), ask(TEXTS[1], small)]
    assert said(model.generate(requests)) == said(model.one_by_one(requests))


def test_rows_wait_when_there_is_no_memory_beside_those_under_way(
    tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")
    assert model.ways
    requests = [ask(f"{n}?", PICTURES[n % 5], new=3 + 9 * (n % 2)) for n in range(20)]
    expected = said(model.one_by_one(requests))
    monkeypatch.setattr(
        continuous_batching, "bytes_left", lambda device: 6 * 60 * model._loaded.bytes_per_token
    )
    model._loaded.rows = RowLimit(8)
    assert said(model.generate(requests)) == expected


def test_what_is_held_for_later_gives_way(tiny_vlm: Path) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu", reuse="always", batch_size=1)
    asked = [ask("What?", PICTURES[0]), ask("Why?", PICTURES[0])]
    expected = said(model.generate(asked))
    real = model.model.forward  # which empties the store
    list(model.generate(asked))

    def forward(*args: Any, **kwargs: Any) -> Any:
        if len(model._loaded.prefixes):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    forward.__wrapped__ = real  # type: ignore[attr-defined]
    model._loaded.base.forward = forward
    assert said(model.generate(asked)) == expected


# ---------------------------------------------------------------- adapters


def views(tiny_vlm: Path, adapters: tuple[Path, Path]) -> list[HFModel]:
    base = HFModel.load(str(tiny_vlm), device="cpu", reuse="always", batch_size=3)
    return [base, *(base.with_adapter(adapter) for adapter in adapters)]


@pytest.mark.parametrize("seed", range(4))
def test_views_in_turn_do_not_use_each_others_beginnings(
    tiny_vlm: Path, adapters: tuple[Path, Path], seed: int
) -> None:
    requests = [ask(text, image, new=2 + 5 * (n % 3)) for image in PICTURES for n, text in enumerate(TEXTS)]
    found = views(tiny_vlm, adapters)
    alone = [said(view.one_by_one(requests)) for view in found]
    draw = random.Random(seed)
    streams = [view.generate(draw.sample(requests, len(requests))) for view in found]
    answers: list[list[Any]] = [[], [], []]
    going = [0, 1, 2]
    while going:
        number = draw.choice(going)
        for _ in range(draw.randint(1, 3)):
            if (answer := next(streams[number], None)) is None:
                going.remove(number)
                break
            answers[number].append(answer)
    assert [said(own) for own in answers] == alone


def test_an_adapter_that_is_written_again_is_read_again(
    tiny_vlm: Path, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    requests = [ask("What?", image) for image in PICTURES]
    base, first, second = views(tiny_vlm, adapters)
    shutil.copytree(adapters[0], tmp_path / "adapter")
    assert said(base.with_adapter(tmp_path / "adapter").generate(requests)) == said(first.generate(requests))
    shutil.rmtree(tmp_path / "adapter")
    shutil.copytree(adapters[1], tmp_path / "adapter")
    assert said(base.with_adapter(tmp_path / "adapter").generate(requests)) == said(second.generate(requests))


def test_modules_that_an_adapter_brings_along_leave_with_it(tiny_vlm: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    peft = get_peft_model(AutoModelForImageTextToText.from_pretrained(tiny_vlm), config)
    for name, parameter in peft.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    peft.peft_config["default"].base_model_name_or_path = "tiny"
    peft.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    requests = [ask("What?", image) for image in PICTURES]
    model = HFModel.load(str(tiny_vlm), device="cpu")
    before = said(model.generate(requests))
    assert said(model.with_adapter(tmp_path / "adapter").generate(requests)) != before
    assert said(model.generate(requests)) == before


def test_an_adapter_that_changes_no_layers_is_refused(tiny_vlm: Path, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    base = AutoModelForImageTextToText.from_pretrained(tiny_vlm)
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, num_layers=1, token_dim=32, num_attention_heads=2
    )
    peft = get_peft_model(base, config)
    peft.peft_config["default"].base_model_name_or_path = "tiny"
    peft.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    model = HFModel.load(str(tiny_vlm), device="cpu")
    with pytest.raises(UserError, match="is of kind PROMPT_TUNING; give one that changes layers"):
        list(model.with_adapter(tmp_path / "adapter").generate([ask("What?", PICTURES[0])]))
    assert list(model.generate([ask("What?", PICTURES[0])]))


def test_only_the_files_that_are_loaded_count_as_weights(tiny_vlm: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_vlm, tmp_path / "vlm")
    shutil.copy(tmp_path / "vlm" / "model.safetensors", tmp_path / "vlm" / "consolidated.safetensors")
    assert local_parameters(tmp_path / "vlm") == local_parameters(tiny_vlm)
