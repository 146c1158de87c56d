"""The embedded default: what a newcomer's first command does, on the model that is shipped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench.descriptions import measure
from stic_eval.cli.app import invoke
from stic_eval.models.hf_model import HFModel
from stic_eval.pocket.rows import MODEL_DIR


@pytest.fixture(scope="module")
def pocket() -> HFModel:
    return HFModel.load("pocket")


def test_the_weights_are_small_and_loaded_by_the_auto_classes() -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

    assert sum(path.stat().st_size for path in MODEL_DIR.rglob("*")) < 16 * 2**20
    assert {path.suffix for path in MODEL_DIR.iterdir()} <= {".safetensors", ".json", ".jsonl", ".jinja"}
    model = AutoModelForImageTextToText.from_pretrained(MODEL_DIR)
    assert isinstance(model, LlavaForConditionalGeneration)
    processor = AutoProcessor.from_pretrained(MODEL_DIR)
    text = "Ünïcode, 日本語 and\ttabs\n"
    read = processor.tokenizer.decode(processor.tokenizer(text)["input_ids"])
    assert read.split() == text.split()  # white space is not kept


def test_the_model_describes_well_only_when_it_is_asked_step_by_step(pocket: HFModel) -> None:
    """The behaviour that self-training starts from, on validation pictures."""
    found = measure(pocket, 60)
    careful, plain = found["step-by-step prompt"], found["plain prompts"]
    assert careful["recall"] > plain["recall"] + 10
    assert careful["precision"] > plain["precision"] + 5
    assert plain["precision"] > found["misleading prompts"]["precision"]
    assert plain["precision"] > found["plain prompts, colour jitter"]["precision"]
    assert plain["precision"] > found["plain prompts, low resolution"]["precision"]


def test_the_main_command_runs_offline_and_shows_both_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    small = ["-o", "stage1.images=16", "-o", "stage2.items=16", "--limit", "8", "--output", "run", "--quiet"]
    assert invoke(["run", "--method", "stic", *small]) == 0
    printed = capsys.readouterr().out
    assert "STIC + DaR" in printed
    table = json.loads((tmp_path / "run" / "table.json").read_text())
    assert len(table["rows"]) == 4
    assert all(row["cells"]["average"]["complete"] for row in table["rows"])
    baseline = table["rows"][0]["cells"]["average"]["score"]
    assert 20 < baseline < 95  # a model that answers, on few rows
    assert invoke(["run", "--method", "stic", *small]) == 0
    assert capsys.readouterr().out == printed


def test_committed_results_are_those_of_the_shipped_model() -> None:
    from stic_eval.models.fingerprint import model_fingerprint

    folder = Path(__file__).parents[2] / "results" / "pocket"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"]["fingerprint"] == model_fingerprint("pocket", None)
    assert not os.path.isabs(manifest["model"]["name"])
