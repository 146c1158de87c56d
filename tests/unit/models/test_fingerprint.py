"""Models and adapters are named by their content."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoProcessor

from stic_eval import config
from stic_eval.errors import UserError
from stic_eval.experiment.progress import Reporter
from stic_eval.experiment.resources import Resources
from stic_eval.models.fingerprint import adapter_fingerprint, model_fingerprint
from stic_eval.models.hf_model import HFModel
from stic_eval.models.profile_detection import tags_written
from stic_eval.profiles import ConversationProfile
from stic_eval.store import content_key
from tests.conftest import CHAT_TEMPLATE


def test_a_fingerprint_is_content_alone(
    tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapters: tuple[Path, Path]
) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("stic_eval.digests._LARGE", 1000)  # so that hashes are remembered
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


def opens_thinking(folder: Path) -> None:
    template = CHAT_TEMPLATE.replace("ASSISTANT:{%", "ASSISTANT:<think>\n{%")
    (folder / "chat_template.jinja").write_text(template)


def opens_thinking_in_one_of_several(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": "<|channel>thought{{ messages }}"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))


def has_special_tags(folder: Path) -> None:
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.add_tokens(["<|begin_of_box|>", "<|end_of_box|>"], special_tokens=True)
    processor.save_pretrained(folder)


def has_a_special_piece_of_a_tag(folder: Path) -> None:
    listed = {"9": {"content": "\u25c1/think", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))


def has_tags_that_are_not_special(folder: Path) -> None:
    listed = {"9": {"content": "<think>", "special": False}, "10": {"content": "", "special": True}}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": listed}))


@pytest.mark.parametrize(
    ("change", "written"),
    [
        (opens_thinking, True), (opens_thinking_in_one_of_several, True), (has_special_tags, True),
        (has_a_special_piece_of_a_tag, True), (has_tags_that_are_not_special, False),
    ],
)  # fmt: skip
def test_answers_that_an_earlier_version_filed_without_their_tags_are_not_found(
    tiny_vlm: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    written: bool,
) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_vlm, tmp_path / "vlm"))
    change(folder)
    assert bool(tags_written(str(folder), None)) is written
    built = config.load(overrides=[f"model={folder}", "dtype=float32"])
    resources = Resources(built, Reporter(None, quiet=True), tmp_path / "cache")
    earlier = content_key([model_fingerprint(str(folder), None), "float32"])
    assert (resources.fingerprint == earlier) is not written
    if change in (opens_thinking, has_special_tags):
        loaded = HFModel.load(str(folder), device="cpu")
        assert loaded.fingerprint != model_fingerprint(str(folder), None)


def test_a_template_that_is_given_opens_the_thinking(tiny_vlm: Path) -> None:
    profile = ConversationProfile("own", chat_template="{{ messages }}<think>")
    assert tags_written(str(tiny_vlm), None, profile)
    assert not tags_written(str(tiny_vlm), None, replace(profile, chat_template="{{ messages }}"))
    assert not tags_written("pocket", None)


def test_views_carry_the_fingerprint_of_their_adapter(tiny_vlm: Path, adapters: tuple[Path, Path]) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")
    tuned = model.with_adapter(adapters[0])
    assert tuned.fingerprint == adapter_fingerprint(model.fingerprint, adapters[0])
    assert tuned.with_adapter(None).fingerprint == model.fingerprint


def test_a_fingerprint_needs_no_torch(tiny_vlm: Path) -> None:
    code = (
        "import sys; from stic_eval.models.hf_model import model_fingerprint; "
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
