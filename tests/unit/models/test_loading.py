"""How weights come into memory: refused where they cannot fit, packed where that is asked for."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from stic_eval.errors import UserError
from stic_eval.models import loading, weight_memory
from stic_eval.models.loading import LoadedWeights
from tests.families.checks import random_adapter

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


def load(model: Path, **how: Any) -> LoadedWeights:
    return loading.load(str(model), loading.LoadOptions(**{"device": "cpu", **how}))


# ---------------------------------------------------------------- memory


def test_parameters_are_counted_without_reading_them(tiny_vlm: Path) -> None:
    base = load(tiny_vlm).base
    assert weight_memory.parameters(str(tiny_vlm), None, "float32") == sum(
        p.numel() for p in base.parameters()
    )


def test_weights_that_cannot_fit_are_refused_before_they_are_read(
    tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    monkeypatch.setattr(weight_memory, "free_bytes", lambda device: 100_000)
    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", None)
    with pytest.raises(UserError) as error:
        load(tiny_vlm)
    said = str(error.value)
    assert said.startswith(f"--model {tiny_vlm}: its weights of 0.0 GiB in float32 do not fit in")
    assert "--dtype bfloat16" in said and "--load-in-4bit" in said and "a smaller model" in said
    assert "--device cpu" not in said  # that is where it was to go


@pytest.mark.parametrize(
    ("count", "kind", "packed", "device", "free", "advice"),
    [
        (7e9, "float32", None, GPU, 16, ["--dtype bfloat16 (13.0 GiB)", "--load-in-4bit (4.2 GiB)", "cpu"]),
        (7e9, "bfloat16", None, GPU, 12, ["--load-in-4bit (4.2 GiB)", "--device cpu", "a smaller model"]),
        (34e9, "bfloat16", "8bit", GPU, 24, ["--load-in-4bit (20.6 GiB)", "--device cpu"]),
        (70e9, "bfloat16", "4bit", GPU, 24, ["--device cpu", "a smaller model"]),
        (70e9, "bfloat16", None, GPU, 80, ["--engine vllm --tensor-parallel N", "--gpus N --strategy fsdp2"]),
        (7e9, "float32", None, CPU, 16, ["--dtype bfloat16 (13.0 GiB)", "--load-in-4bit (4.2 GiB)"]),
    ],
)  # fmt: skip
def test_the_advice_has_what_would_be_smaller(
    count: float, kind: str, packed: Any, device: torch.device, free: int, advice: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(weight_memory, "free_bytes", lambda where: free << 30)
    with pytest.raises(UserError) as error:
        weight_memory.check("m", int(count), kind, packed, device)
    said = str(error.value)
    assert "\n" not in said and f"{free}.0 GiB free" in said
    tries = said.partition("try ")[2]
    assert all(part in tries for part in advice)
    assert ("--load-in-4bit" in tries) == (packed != "4bit")
    assert ("--dtype" in tries) == (kind == "float32")


def test_what_fits_or_is_not_known_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_memory, "free_bytes", lambda device: 14 << 30)
    weight_memory.check("m", 7_000_000_000, "bfloat16", None, GPU)
    weight_memory.check("m", None, "float32", None, GPU)


OUT = (
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 12 bytes"),
)


@pytest.mark.parametrize("error", OUT)
def test_running_out_of_memory_on_the_way_gives_the_same_advice(
    error: Exception, tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    def fail(*args: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", fail)
    with pytest.raises(UserError, match=r"do not fit in the memory of cpu .* try --dtype bfloat16"):
        load(tiny_vlm)


def _cgroup(folder: Path, most: str, used: int, files: int) -> Path:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(
        f"anon 5\nactive_file {files // 2}\ninactive_file {files - files // 2}\n"
    )
    return folder


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    assert weight_memory._container_bytes(_cgroup(tmp_path, "1000", 600, 150)) == 550
    assert weight_memory._container_bytes(_cgroup(tmp_path, "1000", 1600, 0)) == 0
    assert weight_memory._container_bytes(_cgroup(tmp_path, "max", 600, 0)) is None
    assert weight_memory._container_bytes(tmp_path / "nowhere") is None


@given(st.text(), st.text(), st.text())
def test_whatever_a_kernel_writes_there_is_no_error(
    tmp_path_factory: pytest.TempPathFactory, most: str, used: str, stat: str
) -> None:
    folder = tmp_path_factory.mktemp("cgroup")
    for name, text in (("memory.max", most), ("memory.current", used), ("memory.stat", stat)):
        (folder / name).write_text(text, encoding="utf-8", errors="replace")
    found = weight_memory._container_bytes(folder)
    assert found is None or found >= 0


def test_of_a_model_on_the_hub_the_index_of_its_weights_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    index = tmp_path / "model.safetensors.index.json"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *args, **more: str(index))
    index.write_text(json.dumps({"metadata": {"total_size": 14_000}}))
    assert weight_memory.parameters("some/one", None, "bfloat16") == 7_000
    assert weight_memory.parameters("some/one", None, "float32") == 3_500
    for damaged in ("{}", "[", '{"metadata": {"total_size": "much"}}'):
        index.write_text(damaged)
        assert weight_memory.parameters("some/one", None, "bfloat16") is None


# ---------------------------------------------------------------- how it is loaded


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_the_attention_is_the_one_that_was_asked_for(attn: str, tiny_vlm: Path) -> None:
    loaded = load(tiny_vlm, attn=attn, gradient_checkpointing=False)
    assert loaded.base.config._attn_implementation == attn
    assert loaded.gradient_checkpointing is False and load(tiny_vlm).gradient_checkpointing is None


@pytest.mark.parametrize(
    "attn", ["nonsense", *(["flash_attention_2"] if not find_spec("flash_attn") else [])]
)
def test_an_attention_that_cannot_be_had_is_named(attn: str, tiny_vlm: Path) -> None:
    with pytest.raises(UserError, match=f"^--attn {attn}: is not available: ") as error:
        load(tiny_vlm, attn=attn)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("packed", ["4bit", "8bit"])
def test_packing_needs_bitsandbytes(packed: str, tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_memory, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"--load-in-{packed}: needs bitsandbytes.*pip install bitsandbytes"):
        load(tiny_vlm, quantization=packed)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("packed", ["4bit", "8bit"])
def test_packed_weights_are_smaller(packed: str, tiny_vlm: Path) -> None:
    whole, small = load(tiny_vlm).base, load(tiny_vlm, quantization=packed).base
    assert small.get_memory_footprint() < 0.7 * whole.get_memory_footprint()


@pytest.mark.parametrize("packed", ["4bit", "8bit"])
def test_what_is_asked_of_transformers(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_memory, "find_spec", lambda name: object())
    told = loading._placement(CPU, torch.bfloat16, "sdpa", packed)
    assert told["device_map"] == {"": CPU} and told["attn_implementation"] == "sdpa"
    how = told["quantization_config"]
    assert (how.load_in_4bit, how.load_in_8bit) == (packed == "4bit", packed == "8bit")
    if packed == "4bit":
        assert how.bnb_4bit_quant_type == "nf4" and how.bnb_4bit_compute_dtype == torch.bfloat16
    assert loading._placement(CPU, torch.float32, None, None) == {}
    assert loading._placement(GPU, torch.float32, None, None) == {"device_map": {"": GPU}}


# ---------------------------------------------------------------- adapters


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_that_answers_has_the_bases_type(dtype: str, tiny_vlm: Path, tmp_path: Path) -> None:
    adapter = random_adapter(tmp_path / "adapter", tiny_vlm, 0)
    stored = load_file(adapter / "adapter_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float32}
    loaded = load(tiny_vlm, dtype=dtype)
    for as_stored in (False, True):  # as it answers, and for sums
        peft = loading.wrap(loaded.base, adapter, as_stored=as_stored)
        state = {name: value for name, value in peft.state_dict().items() if ".lora_" in name}
        kind = torch.float32 if as_stored else loaded.dtype
        assert {value.dtype for value in state.values()} == {kind}
        for name, value in stored.items():
            one, two = name.rsplit(".", 1)
            assert torch.equal(state[f"{one}.default.{two}"], value.to(kind))
        loaded.base = peft.unload()
