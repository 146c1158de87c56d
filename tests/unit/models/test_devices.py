"""What a device and a weight type come to, and that torch is asked only where it has to be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stic_eval.models import devices
from stic_eval.settings import RunConfig


@pytest.mark.parametrize(
    ("stored", "device", "dtype", "comes_to"),
    [
        ("bfloat16", "cpu", "auto", "float32"),
        ("bfloat16", "cuda", "auto", "bfloat16"),
        ("float16", "mps", "auto", "bfloat16"),
        ("float32", "cuda:1", "auto", "float32"),
        ("torch.float32", "cuda", "auto", "float32"),
        (None, "cuda", "auto", "bfloat16"),
        ("float32", "cpu", "float16", "float16"),
    ],
)
def test_the_type_is_that_of_loading(
    stored: str | None, device: str, dtype: str, comes_to: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"dtype": stored} if stored else {}))
    config = RunConfig.model_validate({"model": str(tmp_path), "device": device, "dtype": dtype})
    assert devices.dtype_of(config) == comes_to


def test_the_type_is_the_one_that_a_model_is_loaded_in(tiny_vlm: Path) -> None:
    from stic_eval.models.hf_model import HFModel

    config = RunConfig.model_validate({"model": str(tiny_vlm)})
    loaded = HFModel.load(str(tiny_vlm))
    assert str(loaded.dtype) == f"torch.{devices.dtype_of(config)}"
    assert loaded.device.type == devices.device_of("auto")


def test_without_a_gpu_torch_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    code = f"""
import sys
from stic_eval.models import devices
from stic_eval.settings import RunConfig
devices._NODES = ()
devices.platform.system = lambda: "Linux"
assert devices.dtype_of(RunConfig(model={str(tmp_path)!r})) == "float32"
assert devices.device_of("auto") == "cpu"
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_gpus_are_those_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert devices.gpus() == 3
    monkeypatch.setattr(devices, "_has_gpu", lambda: False)
    assert devices.gpus() == 0
