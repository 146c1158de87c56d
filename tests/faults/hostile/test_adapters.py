"""Adapters: folders whose configuration or weights are not what PEFT would write."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.faults.hostile.attempts import Place
from tests.faults.hostile.budget import explore, few, many
from tests.faults.hostile.values import changed, one_of, spoilt, texts, to_json, values

FIELDS = (
    10**6,
    10**12,
    0,
    -1,
    1e308,
    "all-linear",
    ["q_proj"],
    [".*"],
    "(.*)*x",
    r"(\w+\.?)+!",
    "[",
    "(?P<",
    "LORA",
    "PREFIX_TUNING",
    "X",
    {"parent_library": "os", "base_model_class": "system"},
    {"q_proj": 10**6},
    ["lm_head", "embed_tokens"],
    True,
    "olora",
    "pissa",
    "corda",
)


class _Payload:
    """What a pickle may be."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ../canary",)


@st.composite
def folders(draw: st.DrawFn, whole: tuple[dict[str, Any], bytes]) -> dict[str, bytes]:
    """The files of an adapter's folder."""
    config, weights = whole
    more = st.one_of(one_of(FIELDS), one_of(FIELDS), values, texts)
    made: Any = draw(changed(config, more)) if draw(st.booleans()) else config
    if draw(st.integers(0, 9)) == 0:
        made = draw(values)
    what = draw(st.integers(0, 5))
    if what == 0:
        weights = draw(spoilt(weights))
    elif what == 1:
        weights = _header(draw) + weights[-200:]
    files = {"adapter_config.json": to_json(made).encode(), "adapter_model.safetensors": weights}
    if draw(st.integers(0, 5)) == 0:
        files["adapter_config.json"] = draw(spoilt(files["adapter_config.json"]))
    if draw(st.integers(0, 5)) == 0:
        files["adapter_model.bin"] = pickle.dumps(_Payload())
        files["handler.py"] = b"open('../canary', 'w')\n"
        if draw(st.booleans()):
            del files["adapter_model.safetensors"]
    return files


def _header(draw: st.DrawFn) -> bytes:
    """The beginning of a safetensors file that says what is not so."""
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
    shape = draw(st.sampled_from([[4, 32], [10**9, 10**9], [-1, 4], [2**63, 2], [0], [], [10**6]]))
    spans = draw(st.sampled_from([[0, 512], [0, 2**62], [512, 0], [-1, 5], [0]]))
    kind = draw(st.sampled_from(["F32", "F64", "BF16", "I8", "X", "F8_E4M3"]))
    text = draw(
        st.sampled_from(
            [
                json.dumps({name: {"dtype": kind, "shape": shape, "data_offsets": spans}}),
                "[" * 9_999,
                "{}",
                "null",
                json.dumps({"__metadata__": {"a": 1}}),
                '{"a":' * 5_000,
            ]
        )
    ).encode()
    length = draw(st.sampled_from([len(text), len(text), len(text), 2**63 - 1, 2**40, 0]))
    return length.to_bytes(8, "little") + text


def attempt(place: Place, files: dict[str, bytes], model: Path, load: bool) -> None:
    """Plans an evaluation of an adapter; where that is taken, has it loaded and one row asked."""
    folder = place.work / "adapter"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    argv = command(place, model)
    planned = place.attempt(*argv, "--dry-run", codes=(0, 2))
    if planned.code == 0 and load:
        place.attempt(*argv, "--output", "out/run")
    shutil.rmtree(place.work / "out", ignore_errors=True)
    shutil.rmtree(folder)


def command(place: Place, model: Path) -> tuple[str | Path, ...]:
    """Evaluates the adapter on one row."""
    row = {"type": "human_test", "question": "q", "answer": "1", "image": "good.png"}
    (place.work / "rows.jsonl").write_text(json.dumps(row) + "\n")
    common = ("--benchmarks", "chartqa", "-o", "rows.chartqa=rows.jsonl", "-q")
    return ("eval", "--model", model, "--adapter", "adapter", *common)


@pytest.fixture(scope="module")
def whole(adapters: tuple[Path, Path]) -> tuple[dict[str, Any], bytes]:
    """An adapter's configuration and weights."""
    folder = adapters[0]
    return json.loads((folder / "adapter_config.json").read_text()), (
        folder / "adapter_model.safetensors"
    ).read_bytes()


def test_adapters(place: Place, whole: tuple[dict[str, Any], bytes], tiny_vlm: Path) -> None:
    def plan(at: Place, files: dict[str, bytes]) -> None:
        attempt(at, files, tiny_vlm, load=False)

    explore("adapters", place, folders(whole), plan, few(10))


@pytest.mark.campaign
def test_many_adapters(place: Place, whole: tuple[dict[str, Any], bytes], tiny_vlm: Path) -> None:
    def evaluate(at: Place, files: dict[str, bytes]) -> None:
        attempt(at, files, tiny_vlm, load=True)

    (place.work / "adapter").mkdir()
    (place.work / "adapter" / "adapter_config.json").write_text(json.dumps(whole[0]))
    (place.work / "adapter" / "adapter_model.safetensors").write_bytes(whole[1])
    place.warm(*command(place, tiny_vlm), "--output", "out/run")
    shutil.rmtree(place.work / "adapter")
    explore("adapters", place, folders(whole), evaluate, many(500))
