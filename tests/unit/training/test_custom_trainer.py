"""A trainer of somebody's own, as `stic_eval.training.custom_trainer` describes it, on a tiny real model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset
from safetensors.torch import load_file

from stic_eval.errors import RunError
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.training import training_loop
from stic_eval.training.custom_trainer import train_adapter
from stic_eval.training.hyperparameters import Training
from stic_eval.training.instruction_data import SFTItem
from stic_eval.training.lora import LoraSettings
from stic_eval.training.sft import sft_collator

LORA = LoraSettings(r=2, alpha=4, dropout=0.1)


@pytest.fixture(scope="module")
def hf(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


class Trainer(training_loop.Durable, transformers.Trainer):
    """The model's own loss, times something."""

    factor = 3.0

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        return self.factor * model(**inputs).loss


class Nothing(Trainer):
    factor = 0.0


def train(hf: HFModel, photos: Path, out: Path, trainer: type[Trainer], **options: Any) -> list[float]:
    turns = (("user", "What?"), ("assistant", "A red box."))
    items = [SFTItem(str(at), image, turns) for at, image in enumerate(scan_images(photos)[0])]

    def build(peft: Any, arguments: dict[str, Any]) -> Trainer:
        arguments.pop("max_length")
        rows = Dataset.from_dict({"row": list(range(len(items)))})
        args = transformers.TrainingArguments(**arguments)
        return trainer(peft, args, sft_collator(hf.processor, items, None), rows)

    how = Training(learning_rate=1e-2, batch_size=4, epochs=2)
    train_adapter(hf, out, build, len(items), training=how, lora=LORA, seed=0, **options)
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_a_trainer_of_ones_own_leaves_an_adapter_and_a_log(hf: HFModel, photos: Path, tmp_path: Path) -> None:
    losses = train(hf, photos, tmp_path / "one", Trainer)
    assert len(losses) == 4 and losses[-1] < losses[0]
    before = [parameter.clone() for parameter in hf.with_adapter(None).model.parameters()]
    assert train(hf, photos, tmp_path / "other", Trainer) == losses
    files = [tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("one", "other")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert all(map(torch.equal, before, hf.with_adapter(None).model.parameters()))
    # What is there is not made again, and can be gone on from.
    assert train(hf, photos, tmp_path / "one", Nothing) == losses
    more = train(hf, photos, tmp_path / "more", Trainer, start=tmp_path / "one" / "adapter")
    assert more[0] < losses[0]
    assert (
        load_file(tmp_path / "more" / "adapter" / "adapter_model.safetensors").keys()
        == load_file(files[0]).keys()
    )


def test_one_that_teaches_nothing_fails(hf: HFModel, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="learns nothing"):
        train(hf, photos, tmp_path, Nothing)
    assert not (tmp_path / "adapter").exists()
