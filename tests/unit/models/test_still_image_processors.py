"""Processors that want a video part load for images alone where nothing can read videos."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from stic_eval.errors import UserError
from stic_eval.models.hf_model import HFModel
from stic_eval.models.still_image_processors import load_processor
from tests.support.zoo import FAMILIES

transformers = pytest.importorskip("transformers")

without_torchvision = pytest.mark.skipif(
    transformers.utils.is_torchvision_available(), reason="torchvision is installed"
)


def test_a_processor_without_a_video_part_is_transformers_own(tiny_vlm: Path) -> None:
    processor = load_processor(str(tiny_vlm), transformers.AutoConfig.from_pretrained(tiny_vlm))
    assert type(processor) is transformers.LlavaProcessor


@without_torchvision
def test_a_video_part_that_cannot_be_loaded_is_left_out(tmp_path: Path) -> None:
    folder = FAMILIES["qwen2_vl"].build(tmp_path / "model")
    with pytest.raises(Exception, match="orchvision"):
        transformers.AutoProcessor.from_pretrained(folder)
    processor = load_processor(str(folder), transformers.AutoConfig.from_pretrained(folder))
    assert isinstance(processor, transformers.Qwen2VLProcessor)
    text = "<|vision_start|><|image_pad|><|vision_end|>What?"
    made = processor(text=[text], images=[[Image.new("RGB", (64, 32))]], return_tensors="pt")
    pad = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (made["input_ids"] == pad).sum() == made["image_grid_thw"].prod() // 4
    processor.save_pretrained(tmp_path / "copy")  # as trainers may do
    again = load_processor(str(tmp_path / "copy"), transformers.AutoConfig.from_pretrained(folder))
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()


@without_torchvision
def test_images_that_only_torchvision_reads_are_said_to_need_it(tiny_vlm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_vlm, tmp_path / "model")
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"processor_class": "PixtralProcessor"}))
    with pytest.raises(UserError, match=f"--model {folder}: .* pip install torchvision"):
        HFModel.load(str(folder), device="cpu")
