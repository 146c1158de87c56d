"""Two processes train what one does: losses, adapters, checkpoints. By gloo, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stic_eval.contracts.method import SFTItem
from stic_eval.engines.openai import OpenAIEngine
from stic_eval.errors import RunError
from stic_eval.image_sources import scan_images
from stic_eval.models import adapter_canary
from stic_eval.models.hf_model import HFModel
from stic_eval.setting_groups import ServerConfig
from stic_eval.settings import RunConfig
from stic_eval.store import request_key
from stic_eval.training import training_loop
from stic_eval.training.dpo import train_preferences
from stic_eval.training.gang import FOLDER, Gang
from stic_eval.training.hyperparameters import PairSettings, PreferenceLoss, Training
from stic_eval.training.lora import LoraSettings
from stic_eval.training.preference_pairs import pair_requests, write_pairs
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.training.sft import train_sft
from tests.families.checks import random_adapter

LORA = LoraSettings(r=4, alpha=8, dropout=0.0)
# Eight pairs and seven items in batches of six: the last ones are smaller, one with an odd number of rows.
TRAINING = Training(learning_rate=5e-3, batch_size=6, epochs=3, warmup_ratio=0.2)
GOOD = ["a red box", "two blue dots on grey", "a circle", "", "round and square", "a, b", "green", "a wall"]


@pytest.fixture(scope="module")
def hf(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu", gradient_checkpointing=True)


@pytest.fixture(scope="module")
def gang(tiny_vlm: Path) -> Gang:
    config = RunConfig(model=str(tiny_vlm), device="cpu", gpus=2, gradient_checkpointing=True)
    return Gang(config, lambda: None)


@pytest.fixture(scope="module")
def pairs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = list(pair_requests(scan_images(photos)[0], load_prompts(), PairSettings(), 0))
    answers = {request_key(pair.chosen): GOOD[i] for i, pair in enumerate(asked)}
    answers |= {request_key(pair.rejected): f"{GOOD[-i]} and more {i}" for i, pair in enumerate(asked)}
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write_pairs(asked, answers, path, PairSettings())
    return path


def dpo(model: Any, pairs: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    settings: dict[str, Any] = {"loss": PreferenceLoss(), "training": TRAINING, "lora": LORA, "seed": 3}
    train_preferences(model, pairs, out, **settings | options)
    return log_of(out)


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def assert_same(ours: Path, theirs: Path) -> None:
    left, right = ([row["loss"] for row in log_of(out)] for out in (ours, theirs))
    assert left == pytest.approx(right, abs=1e-4)
    one, other = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (ours, theirs))
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=1e-4)


def files(out: Path) -> set[str]:
    found = (path.relative_to(out) for path in out.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] != FOLDER}  # which `run_stage` deletes


# In rank 1, which dies as it begins to write its part of the third checkpoint.
DYING = """
import os, signal, sys

def die(event, arguments):
    if event == "os.mkdir" and str(arguments[0]).endswith("checkpoint-3") and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
"""


@pytest.mark.campaign  # minutes
def test_a_rank_that_dies_ends_the_gang_and_one_process_goes_on(
    hf: HFModel, gang: Gang, tiny_vlm: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = random_adapter(tmp_path / "start", tiny_vlm, 0)  # which is the reference as well
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DYING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    seen: list[int] = []
    out = tmp_path / "out"
    with pytest.raises(RunError, match=r"one of 2 processes .* rank 1 was killed by signal 9 .* goes on"):
        dpo(gang, pairs, out, start=start, progress=lambda done, _: seen.append(done))
    assert seen[:4] == [0, 1, 2, 3]
    whole = {path.parent.name for path in out.rglob("complete.json")}
    assert whole == {"checkpoint-1", "checkpoint-2"}
    assert not (out / "adapter").exists()
    seen.clear()
    dpo(hf, pairs, out, start=start, progress=lambda done, _: seen.append(done))
    assert seen[0] == 2
    dpo(hf, pairs, tmp_path / "straight", start=start)
    assert_same(out, tmp_path / "straight")
    assert files(out) == files(tmp_path / "straight")


def test_two_processes_tune_as_one_does(
    hf: HFModel, gang: Gang, photos: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a server, too; rank 0 then says what it makes of the adapter."""
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    server = ServerConfig(base_url="http://127.0.0.1:9/v1", model_id=str(tiny_vlm))
    config = gang.config.model_copy(update={"engine": "openai", "model": "base", "server": server})
    gang = Gang(config, lambda: None)
    turns = [(("user", f"What is in picture {i}?"), ("assistant", GOOD[i] or "nothing")) for i in range(7)]
    items = [SFTItem(str(i), image, turns[i]) for i, image in enumerate(scan_images(photos)[0][:7])]
    said: list[str] = []
    for model, name in ((gang, "two"), (hf, "one")):
        train_sft(model, items, tmp_path / name, training=TRAINING, lora=LORA, seed=3, log=said.append)
    assert_same(tmp_path / "two", tmp_path / "one")
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert "2 processes train (ddp)" in said[0]
    engine = OpenAIEngine(config, lambda name: nullcontext(), lambda: False)
    measured = engine.expectations.of(tmp_path / "two" / "adapter")
    views = [hf, hf.with_adapter(tmp_path / "one" / "adapter")]
    assert measured is not None
    for there, here in zip(measured, (adapter_canary.measure(view, view) for view in views), strict=True):
        assert there.logps == pytest.approx(here.logps, abs=1e-4)


# A launcher that starts a rank in a session of its own, as torchrun does. The rank says that it has begun,
# and when its input has ended.
LAUNCHER = """
import subprocess, sys
rank = '''
import os, sys
from pathlib import Path
Path(sys.argv[1]).write_text("begun")
while os.read(0, 1):
    pass
Path(sys.argv[1]).write_text("ended")
'''
sys.exit(subprocess.run([sys.executable, "-c", rank, sys.argv[1]], start_new_session=True).returncode)
"""
PARENT = """
import sys
from pathlib import Path
from stic_eval.training.gang import _run

said, launcher = sys.argv[1:]
_run([sys.executable, "-c", launcher, said], Path(said).parent, 1, None, print)
"""


def wait_for(text: str, file: Path) -> None:
    for _ in range(1200):
        if file.exists() and file.read_text() == text:
            return
        time.sleep(0.1)
    raise AssertionError(f"{file} does not say {text}")


def test_ranks_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "said"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(said), LAUNCHER])
    wait_for("begun", said)
    parent.kill()
    parent.wait()
    wait_for("ended", said)
