"""Training behind the published models' processors: no photograph takes the room of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stic_eval import config
from stic_eval.contracts.method import SFTItem
from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.models.single_tile import SingleTile
from stic_eval.store import request_key
from stic_eval.training import training_loop
from stic_eval.training.dpo import make_trainer, preference_collator, train_preferences
from stic_eval.training.hyperparameters import PairSettings, PreferenceLoss, Training
from stic_eval.training.instruction_data import infuse
from stic_eval.training.lora import LoraSettings
from stic_eval.training.preference_pairs import open_pairs, pair_requests, write_pairs
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.training.sft import sft_collator, train_sft
from tests.support.full_size import SIZES, build, save_photographs
from tests.support.zoo import FAMILIES

PRESETS = {"paper-llava-1.5": "llava", "paper-llava-1.6": "llava_next", "paper-llava-1.6-13b": "llava_next"}
DESCRIPTION = "A street with two cyclists, a parked van and low houses on both sides; the sky is overcast."
ANSWER = "There are two of them."
LORA = LoraSettings(r=2, alpha=4, dropout=0.0)


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def items(shots: Path) -> list[SFTItem]:
    turns = (("user", "How many cyclists are there?"), ("assistant", ANSWER))
    images = sorted(scan_images(shots)[0], key=lambda image: image.source)
    return [infuse(SFTItem(image.source, image, turns), DESCRIPTION) for image in images]


@pytest.fixture(scope="module")
def pairs(shots: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = list(pair_requests(scan_images(shots)[0], load_prompts(), PairSettings(), 0))
    said = {request_key(pair.chosen): f"{DESCRIPTION} {n}" for n, pair in enumerate(asked)}
    said |= {request_key(pair.rejected): f"A beach with {n} dogs." for n, pair in enumerate(asked)}
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write_pairs(asked, said, path, PairSettings())
    return path


@pytest.fixture(scope="module")
def models(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, HFModel]:
    folder = tmp_path_factory.mktemp("full-size")
    kinds = ("llava", "llava_next")
    return {k: HFModel.load(str(build(folder / k, k, tiny_vlm)), device="cpu") for k in kinds}  # type: ignore[arg-type]


def answers(hf: HFModel, batch: Mapping[str, Any], mask: torch.Tensor) -> list[str]:
    """What of each row is learned, as text."""
    rows = zip(batch["input_ids"], mask, strict=True)
    return [str(hf.processor.tokenizer.decode(ids[own.bool()])).strip() for ids, own in rows]


def image_tokens(hf: HFModel, batch: Mapping[str, Any]) -> list[int]:
    found: list[int] = (batch["input_ids"] == hf.processor.image_token_id).sum(dim=1).tolist()
    return found


# ---------------------------------------------------------------- every row has its answer


@pytest.mark.parametrize("shown", ["preset", "as_generated"])
@pytest.mark.parametrize("preset", PRESETS)
def test_no_photograph_takes_the_room_of_its_answer(
    preset: str, shown: str, models: Mapping[str, HFModel], items: list[SFTItem], pairs: Path, tmp_path: Path
) -> None:
    built = config.load(preset=preset, flags={"methods": ["stic", "sft", "positive_only"]})
    hf, kind = models[PRESETS[preset]], PRESETS[preset]
    images = built.training.images if shown == "preset" else "as_generated"
    processor, options = training_loop.processor_for(hf, images), built.method_options
    expected = dict.fromkeys(SIZES, 576) if kind == "llava" or images == "single_tile" else SIZES
    for name in ("stic", "sft", "positive_only"):
        collate = sft_collator(processor, items, options[name]["stage2"]["max_length"])
        for number, (size, tokens) in enumerate(expected.items()):
            batch = collate([{"row": number}])
            assert answers(hf, batch, batch["labels"] != -100) == [f"{ANSWER}</s>"], (name, size)
            assert image_tokens(hf, batch) == [tokens], size
    rows = open_pairs(pairs, tmp_path / "rows")
    collate = preference_collator(processor, options["stic"]["stage1"]["max_length"])
    for row in rows:
        batch = collate([row])
        both = [row[side][0]["content"] + "</s>" for side in ("chosen", "rejected")]
        assert answers(hf, batch, batch["completion_mask"]) == both


# ---------------------------------------------------------------- one tile, by hand


def by_hand(hf: HFModel, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels and features of a photograph: padded with (122, 116, 104), 336 px, CLIP's mean and deviation."""
    side = max(image.size)
    padded = Image.new("RGB", (side, side), (122, 116, 104))
    padded.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    small = np.asarray(padded.resize((336, 336), Image.Resampling.BICUBIC)) / 255
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = torch.tensor((small - mean) / deviation, dtype=torch.float32).permute(2, 0, 1)[None]
    inner = hf.with_adapter(None).model.model
    with torch.no_grad():
        states = inner.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        return pixels, inner.multi_modal_projector(states)[0]


def decoder_input(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """The embeddings that a model's decoder is given."""
    seen: dict[str, torch.Tensor] = {}

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.update(kwargs)

    hook = model.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    model(**inputs)
    hook.remove()
    return seen["inputs_embeds"]


@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_features_are_those_of_one_padded_tile(
    kind: str, models: Mapping[str, HFModel], items: list[SFTItem]
) -> None:
    hf = models[kind]
    batch = sft_collator(SingleTile(hf.processor), items, None)([{"row": n} for n in range(len(items))])
    assert batch["pixel_values"].shape == (10, 3, 336, 336)
    for number, item in enumerate(items):
        pixels, features = by_hand(hf, item.image.load())
        assert features.shape == (576, 16)
        assert torch.allclose(batch["pixel_values"][number], pixels[0], atol=1e-4)
        with torch.no_grad(), training_loop.lent_model(hf, "single_tile") as model:
            inner = model.model
            found = inner.get_image_features(pixel_values=batch["pixel_values"][number : number + 1])
            (own,) = found.pooler_output
            assert torch.allclose(own, features, atol=1e-4)
            # What the decoder reads: these features in the image's places, the text's embeddings elsewhere.
            ids = batch["input_ids"][number : number + 1]
            text = inner.get_input_embeddings()(ids)
            text[ids == hf.processor.image_token_id] = features
            row = {name: value[number : number + 1] for name, value in batch.items() if name != "labels"}
            assert torch.allclose(decoder_input(model, row), text, atol=1e-4)
    assert "get_image_features" not in vars(hf.with_adapter(None).model.model)


@pytest.mark.parametrize("kind", ["llava", "llava_next"])
def test_pairs_of_single_tiles_share_what_they_have_in_common(
    kind: str, models: Mapping[str, HFModel], pairs: Path, tmp_path: Path
) -> None:
    hf, rows = models[kind], open_pairs(pairs, tmp_path / "rows")
    rate = Training(learning_rate=1e-3, batch_size=2, max_length=448)
    loss = PreferenceLoss(alpha=0.01)
    with training_loop.lent_model(hf, "single_tile") as model:
        trainer: Any = make_trainer(
            hf, model, rows, tmp_path / "out",
            loss=loss, training=rate, lora=LORA, seed=0, images="single_tile",
        )  # fmt: skip
        torch.manual_seed(5)
        for name, parameter in trainer.model.named_parameters():
            if ".lora_B.default" in name:
                torch.nn.init.normal_(parameter, std=0.2)
        trainer.model.train()
        batch = preference_collator(SingleTile(hf.processor), 448)([rows[0], rows[1]])
        assert image_tokens(hf, batch) == [576] * 4
        found = {}
        for share in (False, True):
            trainer.share = share
            trainer.model.zero_grad()
            value = trainer.compute_loss(trainer.model, dict(batch))
            value.backward()
            named = trainer.model.named_parameters()
            found[share] = value.item(), {n: p.grad.clone() for n, p in named if p.grad is not None}
        assert any(fits for way, fits in trainer.ways.items() if way.images and way.pairs)
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-5)
    largest = max(gradient.abs().max().item() for gradient in found[False][1].values())
    assert largest > 1e-3
    for name, gradient in found[False][1].items():
        assert torch.allclose(found[True][1][name], gradient, rtol=1e-3, atol=1e-5 * largest), name


def test_fine_tuning_on_single_tiles_does_not_depend_on_checkpointing(
    models: Mapping[str, HFModel], items: list[SFTItem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With gradient checkpointing images are encoded apart from the step, else within it."""
    from safetensors.torch import load_file

    hf = models["llava_next"]
    rate = Training(learning_rate=1e-3, batch_size=2, warmup_ratio=0.0)
    for on in (False, True):
        monkeypatch.setattr(hf, "gradient_checkpointing", on)
        train_sft(hf, items[:4], tmp_path / str(on), training=rate, lora=LORA, seed=0, images="single_tile")
    off, on = (load_file(tmp_path / n / "adapter" / "adapter_model.safetensors") for n in ("False", "True"))
    assert all(torch.allclose(on[name], value, atol=1e-5) for name, value in off.items())
    assert any(bool(value.any()) for name, value in off.items() if "lora_B" in name)


# ---------------------------------------------------------------- who has none


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics3"])
def test_families_without_single_tiles_say_so(family: str, pairs: Path, tmp_path: Path) -> None:
    hf = HFModel.load(str(FAMILIES[family].build(tmp_path / family)), device="cpu")
    with pytest.raises(UserError) as caught:
        train_preferences(
            hf, pairs, tmp_path / "out", loss=PreferenceLoss(), lora=LORA, seed=0, images="single_tile",
            training=Training(learning_rate=1e-3, batch_size=2),
        )  # fmt: skip
    said = str(caught.value)
    assert family in said
    assert "-o training.images=as_generated" in said
    assert "\n" not in said
