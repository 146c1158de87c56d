"""Models and adapters are named by their content."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stic_eval.errors import UserError
from stic_eval.models.fingerprint import adapter_fingerprint, model_fingerprint
from stic_eval.models.hf import HFModel


def test_a_fingerprint_is_content_alone(
    tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapters: tuple[Path, Path]
) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("stic_eval.models.fingerprint._LARGE", 1000)  # so that hashes are remembered
    copy = tmp_path / "copy"
    shutil.copytree(tiny_vlm, copy)
    (copy / "README.md").write_text("a model")
    print_ = model_fingerprint(str(tiny_vlm), None)
    assert model_fingerprint(str(copy), "main") == print_
    assert model_fingerprint(str(copy), None) == print_
    assert HFModel.load(str(copy), device="cpu").fingerprint == print_
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert model_fingerprint(str(copy), None) != print_
    with (copy / "chat_template.jinja").open("a") as file:
        file.write(" ")
    assert (
        len({print_, model_fingerprint(str(copy), None), *(adapter_fingerprint(print_, a) for a in adapters)})
        == 4
    )
    assert adapter_fingerprint(print_, None) == print_


def test_views_carry_the_fingerprint_of_their_adapter(tiny_vlm: Path, adapters: tuple[Path, Path]) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")
    tuned = model.with_adapter(adapters[0])
    assert tuned.fingerprint == adapter_fingerprint(model.fingerprint, adapters[0])
    assert tuned.with_adapter(None).fingerprint == model.fingerprint


def test_a_fingerprint_needs_no_torch(tiny_vlm: Path) -> None:
    code = (
        "import sys; from stic_eval.models.hf import model_fingerprint; "
        f"print(model_fingerprint({str(tiny_vlm)!r}, None)); "
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == model_fingerprint(str(tiny_vlm), None)


def test_a_hub_model_is_named_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--some--vlm"
    (repository / "refs").mkdir(parents=True)
    for commit in ("a" * 40, "b" * 40):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
    (repository / "refs" / "main").write_text("a" * 40)
    main = model_fingerprint("some/vlm", None)
    assert model_fingerprint("some/vlm", "a" * 40) == model_fingerprint("some/vlm", "main") == main
    assert model_fingerprint("some/vlm", "b" * 40) != main
    with pytest.raises(UserError, match="--model some/other: neither a folder nor found"):
        model_fingerprint("some/other", None)
