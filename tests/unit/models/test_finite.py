"""Logits that are not finite: every way to ask a model ends in one line instead of an answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stic_eval.errors import RunError, UserError
from stic_eval.image_sources import scan_images
from stic_eval.models.adapter_values import check_adapter_values, check_sizes
from stic_eval.models.hf_model import HFModel
from stic_eval.types import Generation, Message, Request
from tests.conftest import build_adapter


@pytest.fixture
def model(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


def requests(photos: Path, **generation: Any) -> list[Request]:
    images = scan_images(photos)[0][:3]
    return [Request((Message("user", "Describe."),), (i,), Generation(4, **generation)) for i in images]


def one_by_one(model: HFModel, asked: Iterable[Request]) -> Iterator[Any]:
    return model.one_by_one(asked)


def generate(model: HFModel, asked: Iterable[Request]) -> Iterator[Any]:
    assert "loop" in model.ways
    return model.generate(asked)


def likelihoods(model: HFModel, asked: Iterable[Request]) -> Iterator[Any]:
    return model.likelihoods([(request, "A box.") for request in asked])


WAYS = {"engine": generate, "transformers": one_by_one, "likelihoods": likelihoods}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("drawn", [{}, {"temperature": 0.7}, {"temperature": 0.7, "top_p": 0.9}])
def test_every_way_to_ask_ends(
    model: HFModel, photos: Path, way: str, value: float, drawn: dict[str, float]
) -> None:
    ask: Callable[[HFModel, Iterable[Request]], Iterator[Any]] = WAYS[way]
    asked = requests(photos, **drawn)
    assert len(list(ask(model, asked))) == 3
    head = model.model.get_output_embeddings()
    head.register_forward_hook(
        lambda module, given, output: output.index_fill_(-1, output.new_tensor([7]).long(), value)
    )
    with pytest.raises(
        RunError, match=r"^the model gives logits that are not finite when it is asked about "
    ):
        list(ask(model, asked))


@pytest.mark.parametrize("way", WAYS)
def test_a_token_that_is_ruled_out_is_no_fault(model: HFModel, photos: Path, way: str) -> None:
    asked = requests(photos)
    ask: Callable[[HFModel, Iterable[Request]], Iterator[Any]] = WAYS[way]
    expected = len(list(ask(model, asked)))
    head = model.model.get_output_embeddings()
    ruled_out = model.processor.tokenizer.pad_token_id
    head.register_forward_hook(
        lambda module, given, output: output.index_fill_(
            -1, output.new_tensor([ruled_out]).long(), float("-inf")
        )
    )
    assert len(list(ask(model, asked))) == expected


# ---------------------------------------------------------------- adapters


def test_whoever_attaches_an_adapter_looks_at_its_values(
    model: HFModel, tiny_vlm: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = build_adapter(tmp_path / "broken", tiny_vlm)
    weights = load_file(folder / "adapter_model.safetensors")
    first = min(weights)
    weights[first][0, 0] = float("nan")
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(
        UserError, match=f"^adapter {folder}: adapter_model.safetensors: tensor {first} holds NaN; "
    ):
        model.with_adapter(folder)


def test_what_is_no_adapter_is_left_to_whoever_loads_it(tmp_path: Path) -> None:
    check_adapter_values(tmp_path, "it")
    (tmp_path / "adapter_config.json").write_text("{}")
    for text in ("", "short", "x" * 100, '{"a": 1}'):
        (tmp_path / "adapter_model.safetensors").write_text(text)
        check_adapter_values(tmp_path, "it")


def test_a_file_is_looked_at_again_when_it_has_changed(tiny_vlm: Path, tmp_path: Path) -> None:
    folder = build_adapter(tmp_path / "one", tiny_vlm)
    check_adapter_values(folder, "it")
    sound = shutil.copytree(folder, tmp_path / "two")
    data = bytearray((folder / "adapter_model.safetensors").read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"
    (folder / "adapter_model.safetensors").write_bytes(bytes(data))
    with pytest.raises(UserError, match="holds NaN"):
        check_adapter_values(folder, "it")
    check_adapter_values(sound, "it")


def test_a_size_that_no_weight_has_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"a.lora_A.weight": np.zeros((2, 4), np.float32)}, tmp_path / "adapter_model.safetensors")
    for config, message in (
        ({"r": 50_000}, "r is 50,000"), ({"rank_pattern": {"q": 2000}}, "rank_pattern is 2,000"),
        ({"num_virtual_tokens": 10**9}, "num_virtual_tokens"), ({"r": 8}, ""), ({"r": 2}, ""),
    ):  # fmt: skip
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        if message:
            with pytest.raises(UserError, match=message):
                check_sizes(tmp_path, "--adapter x")
        else:
            check_sizes(tmp_path, "--adapter x")
