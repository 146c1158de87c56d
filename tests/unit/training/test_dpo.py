"""Preference training on a tiny real model: the loss, resuming, and what is left behind."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trl import DPOTrainer

from stic_eval.errors import RunError, UserError
from stic_eval.image_sources import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.store import request_key
from stic_eval.training import training_loop
from stic_eval.training.dpo import make_trainer, preference_collator, train_preferences
from stic_eval.training.hyperparameters import PairSettings, PreferenceLoss, Training
from stic_eval.training.lora import LoraSettings, lora_config
from stic_eval.training.preference_pairs import open_pairs, pair_requests, write_pairs
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.training.trainer_arguments import trainer_arguments
from stic_eval.types import Generation, Message, Request
from tests.unit.training.test_losses import papers_loss

LORA = LoraSettings(r=4, alpha=8, dropout=0.5)
PURE = PreferenceLoss(alpha=0.0)
TRAINING = Training(learning_rate=5e-3, batch_size=4, epochs=3, warmup_ratio=0.2)
GOOD = ["a red box", "two blue dots on grey", "a circle", "", "round and square", "a, b", "green", "a wall"]


@pytest.fixture(scope="module")
def hf(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


@pytest.fixture(scope="module")
def pairs(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    asked = list(pair_requests(scan_images(photos)[0], load_prompts(), PairSettings(), 0))
    answers = {request_key(pair.chosen): GOOD[i] for i, pair in enumerate(asked)}
    answers |= {request_key(pair.rejected): f"{GOOD[-i]} and more {i}" for i, pair in enumerate(asked)}
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    write_pairs(asked, answers, path, PairSettings())
    return path


def train(hf: HFModel, pairs: Path, out: Path, **options: Any) -> dict[str, torch.Tensor]:
    settings: dict[str, Any] = {"loss": PreferenceLoss(), "training": TRAINING, "lora": LORA, "seed": 3}
    train_preferences(hf, pairs, out, **settings | options)
    return load_file(out / "adapter" / "adapter_model.safetensors")


def stir(model: Any) -> None:
    """Gives a fresh adapter, which changes nothing yet, weights that do."""
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        if ".lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.2)


def logps_by_hand(model: Any, batch: dict[str, Any], runner_up: bool = False) -> torch.Tensor:
    """Shape (rows,): summed log-probabilities of the answers, each position looked at by itself."""
    inputs = {name: value for name, value in batch.items() if name != "completion_mask"}
    with torch.no_grad():
        logps = model(**inputs).logits.float().log_softmax(-1)
    sums = []
    for row, (ids, mask) in enumerate(zip(batch["input_ids"], batch["completion_mask"], strict=True)):
        total = 0.0
        for position in mask.nonzero().flatten().tolist():
            own, token = logps[row, position - 1], ids[position].item()
            if runner_up and row >= len(batch["input_ids"]) // 2:
                likely = own.argsort(descending=True)[:2].tolist()
                token = likely[1] if likely[0] == token else likely[0]
            total += own[token].item()
        sums.append(total)
    return torch.tensor(sums)


def batch_of(hf: HFModel, pairs: Path, cache: Path) -> Callable[[], dict[str, Any]]:
    rows = open_pairs(pairs, cache)
    return lambda: preference_collator(hf.processor)([rows[i] for i in range(4)])


@pytest.mark.parametrize(
    "loss",
    [
        PreferenceLoss(beta=0.3, alpha=0.01),
        PreferenceLoss(beta=0.3, alpha=0.5, alpha_over="token_mean"),
        PreferenceLoss(beta=0.3, alpha=0.01, rejected_logp="runner_up"),
    ],
    ids=["paper", "token_mean", "runner_up"],
)
def test_the_loss_is_the_formula_on_the_models_own_logits(
    loss: PreferenceLoss, hf: HFModel, pairs: Path, tmp_path: Path
) -> None:
    batch = batch_of(hf, pairs, tmp_path / "rows")()
    runner_up = loss.rejected_logp == "runner_up"
    with training_loop.lent_model(hf) as model:
        rows = open_pairs(pairs, tmp_path / "rows")
        trainer: Any = make_trainer(
            hf, model, rows, tmp_path, loss=loss, training=TRAINING, lora=LORA, seed=0
        )
        stir(trainer.model)
        found = trainer.compute_loss(trainer.model, dict(batch))
        w, lo = logps_by_hand(trainer.model, batch, runner_up).chunk(2)
        with trainer.model.disable_adapter():
            rw, rl = logps_by_hand(trainer.model, batch, runner_up).chunk(2)
    assert (w - rw).abs().min() > 0.01  # the adapter does something, or nothing is shown
    assert (lo - rl).abs().min() > 0.001
    expected = papers_loss(w, lo, rw, rl, beta=loss.beta, alpha=0.0)
    tokens = batch["completion_mask"].sum(dim=1)[: len(w)] if loss.alpha_over == "token_mean" else 1
    expected = (expected - loss.alpha * w / tokens).mean()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_with_other_losses_it_is_trls_own_trainer(hf: HFModel, pairs: Path, tmp_path: Path) -> None:
    batch = batch_of(hf, pairs, tmp_path / "rows")()
    rows = open_pairs(pairs, tmp_path / "rows")
    for mix in ({"ipo": 1.0}, {"sppo_hard": 0.5, "nca_pair": 2.0}):
        loss = PreferenceLoss(beta=0.3, alpha=0.0, loss=mix)
        with training_loop.lent_model(hf) as model:
            trainer: Any = make_trainer(
                hf, model, rows, tmp_path, loss=loss, training=TRAINING, lora=LORA, seed=0
            )
            stir(trainer.model)
            found = trainer.compute_loss(trainer.model, dict(batch))
            trainer.loss_types, trainer.loss_weights = [*mix], [*mix.values()]
            expected = DPOTrainer.compute_loss(trainer, trainer.model, dict(batch))
        torch.testing.assert_close(found, expected)


def test_the_gradient_of_runner_ups_is_the_formulas_with_the_chosen_tokens_held_fixed(
    hf: HFModel, pairs: Path, tmp_path: Path
) -> None:
    batch = batch_of(hf, pairs, tmp_path / "rows")()
    inputs = {name: value for name, value in batch.items() if name != "completion_mask"}
    answers, ids = batch["completion_mask"][:, 1:], batch["input_ids"][:, 1:]
    chosen_rows = torch.arange(len(ids))[:, None] < len(ids) // 2

    def summed(model: Any) -> tuple[torch.Tensor, ...]:
        logps = model(**inputs).logits[:, :-1].log_softmax(-1)
        first, second = logps.topk(2).indices.unbind(-1)
        tokens = ids.where(chosen_rows, second.where(first == ids, first))
        return (logps.gather(2, tokens[..., None])[..., 0] * answers).sum(dim=1).chunk(2)

    def gradient(model: Any) -> torch.Tensor:
        trained = sorted((n, p) for n, p in model.named_parameters() if p.requires_grad)
        found = torch.cat([p.grad.flatten() for _, p in trained])
        model.zero_grad()
        return found

    loss = PreferenceLoss(rejected_logp="runner_up")
    with training_loop.lent_model(hf) as model:
        rows = open_pairs(pairs, tmp_path / "rows")
        trainer: Any = make_trainer(
            hf, model, rows, tmp_path, loss=loss, training=TRAINING, lora=LORA, seed=0
        )
        peft = trainer.model
        stir(peft)
        trainer.compute_loss(peft, dict(batch)).backward()
        found = gradient(peft)
        with torch.no_grad(), peft.disable_adapter():
            reference = summed(peft)
        papers_loss(*summed(peft), *reference, beta=loss.beta, alpha=loss.alpha).mean().backward()
        assert torch.allclose(found, gradient(peft), rtol=1e-4, atol=1e-6)
        assert found.abs().max() > 1e-3
    # Nothing of it stays on the model.
    model = hf.with_adapter(None).model
    assert "forward" not in model.__dict__
    assert not model.base_model._forward_hooks


@pytest.mark.parametrize("reference", ["previous", "base"])
def test_the_reference_of_an_adapter_that_is_gone_on_from_can_be_chosen(
    reference: Any, hf: HFModel, pairs: Path, tmp_path: Path
) -> None:
    train(hf, pairs, tmp_path / "first")
    start = tmp_path / "first" / "adapter"
    batch = batch_of(hf, pairs, tmp_path / "rows")()
    with training_loop.lent_model(hf) as model:
        base = logps_by_hand(model, batch)
    with training_loop.lent_model(hf) as model:
        rows = open_pairs(pairs, tmp_path / "rows")
        trainer: Any = make_trainer(
            hf, model, rows, tmp_path / "out", loss=PURE, training=TRAINING, lora=LORA, seed=0, start=start,
            reference=reference,
        )  # fmt: skip
        began = logps_by_hand(trainer.model, batch)
        stir(trainer.model)
        found = trainer.compute_loss(trainer.model, dict(batch))
        now = logps_by_hand(trainer.model, batch)
        measured = torch.cat(trainer.compute_ref_log_probs(trainer.model, dict(batch)))
    held = began if reference == "previous" else base
    assert (base - began).abs().min() > 0.01
    assert measured.tolist() == pytest.approx(held.tolist(), rel=1e-5)
    expected = papers_loss(*now.chunk(2), *held.chunk(2), beta=PURE.beta, alpha=0.0).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_going_on_with_the_base_as_reference_survives_a_kill(
    hf: HFModel, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(hf, pairs, tmp_path / "first")
    how: dict[str, Any] = {"start": tmp_path / "first" / "adapter", "reference": "base"}
    weights = train(hf, pairs, tmp_path / "second", **how)
    assert not same(weights, train(hf, pairs, tmp_path / "other", start=how["start"]))
    log = json.loads((tmp_path / "second" / "log.jsonl").read_text().splitlines()[0])
    assert log["rewards/margins"] > 0.01  # the start is ahead of the base already
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        train(hf, pairs, tmp_path / "third", progress=killed_at(4), **how)
    assert same(train(hf, pairs, tmp_path / "third", **how), weights)


def test_without_alpha_it_is_trls_own_loss_and_gradient(hf: HFModel, pairs: Path, tmp_path: Path) -> None:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    make = batch_of(hf, pairs, tmp_path / "rows")
    rows = open_pairs(pairs, tmp_path / "rows")

    def measured(trainer: Any) -> tuple[float, torch.Tensor]:
        stir(trainer.model)
        loss = trainer.compute_loss(trainer.model, make())
        loss.backward()
        grads = [p.grad.flatten() for _, p in sorted(trainer.model.named_parameters()) if p.grad is not None]
        return loss.item(), torch.cat(grads)

    with training_loop.lent_model(hf) as model:
        loss = PreferenceLoss(beta=0.1, alpha=0.0)
        trainer: Any = make_trainer(
            hf, model, rows, tmp_path, loss=loss, training=TRAINING, lora=LORA, seed=0
        )
        ours, own_grads = measured(trainer)
    with training_loop.lent_model(hf) as model:
        settings = trainer_arguments(hf, tmp_path, TRAINING, 0, 8, model=model)
        stock = DPOTrainer(
            model=model, args=DPOConfig(**settings, beta=0.1), train_dataset=rows,
            processing_class=hf.processor, data_collator=preference_collator(hf.processor),
            peft_config=lora_config(model, LORA),
        )  # fmt: skip
        theirs, their_grads = measured(stock)
    # Equal but for rounding: pairs share a row here, and the head sees answers alone.
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert own_grads.abs().max() > 1e-3
    assert torch.allclose(own_grads, their_grads, rtol=1e-4, atol=1e-6)


def test_training_writes_an_adapter_that_peft_loads(hf: HFModel, pairs: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    seen: list[tuple[int, int]] = []
    weights = train(hf, pairs, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "log.jsonl"}
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    assert (
        str(tmp_path.anchor)
        not in json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())[
            "base_model_name_or_path"
        ]
    )
    base = AutoModelForImageTextToText.from_pretrained(hf.model.config._name_or_path)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    state = {name.replace(".default", ""): value for name, value in loaded.state_dict().items()}
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    assert any(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert log[-1]["rewards/margins"] > log[0]["rewards/margins"]
    assert log[-1]["loss"] < log[0]["loss"]
    assert {"rewards/accuracies", "learning_rate"} <= set(log[0])


def test_the_model_in_memory_is_left_as_it_was(
    hf: HFModel, pairs: Path, tmp_path: Path, photos: Path
) -> None:
    image = scan_images(photos)[0][0]
    request = Request((Message("user", "What?"),), (image,), Generation(max_new_tokens=8))
    model = hf.with_adapter(None).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dropout = [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    config, decoding = model.config.to_dict(), model.generation_config.to_dict()
    grads = [parameter.requires_grad for parameter in model.parameters()]
    ((_, answer),) = hf.generate([request])
    train(hf, pairs, tmp_path / "a")

    def fail(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(hf, pairs, tmp_path / "b", progress=fail)
    after = hf.with_adapter(None).model
    assert after is model
    assert "forward" not in model.__dict__
    assert not model.training
    assert set(after.state_dict()) == set(before)
    assert all(torch.equal(before[name], value) for name, value in after.state_dict().items())
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == dropout
    assert (model.config.to_dict(), model.generation_config.to_dict()) == (config, decoding)
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    ((_, again),) = hf.generate([request])
    assert again.text == answer.text


class Killed(Exception):
    """Stands for the end of the process."""


def killed_at(step: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return progress


@pytest.fixture(scope="module")
def straight(hf: HFModel, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return train(hf, pairs, tmp_path_factory.mktemp("straight"))


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    assert set(left) == set(right)
    return all(torch.allclose(left[name], right[name], rtol=0, atol=1e-6) for name in left)


def stopped(hf: HFModel, pairs: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        train(hf, pairs, out, progress=killed_at(4))
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-3"]
    return out / "checkpoints"


def resumed(hf: HFModel, pairs: Path, out: Path) -> tuple[int, dict[str, torch.Tensor]]:
    seen: list[int] = []
    weights = train(hf, pairs, out, progress=lambda done, total: seen.append(done))
    return seen[0], weights


def test_a_killed_training_goes_on_to_the_same_weights(
    hf: HFModel,
    pairs: Path,
    tmp_path: Path,
    straight: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped(hf, pairs, tmp_path, monkeypatch)
    start, weights = resumed(hf, pairs, tmp_path)
    assert start == 3
    assert same(weights, straight)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("damage", ["unsealed", "short", "missing", "changed by the disk"])
def test_a_torn_checkpoint_is_passed_over(
    damage: str,
    hf: HFModel,
    pairs: Path,
    tmp_path: Path,
    straight: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    last = stopped(hf, pairs, tmp_path, monkeypatch) / "checkpoint-3"
    if damage == "unsealed":
        (last / "complete.json").unlink()
    elif damage == "short":
        (last / "optimizer.pt").write_bytes((last / "optimizer.pt").read_bytes()[:100])
    elif damage == "changed by the disk":
        weights_of_it = bytearray((last / "adapter_model.safetensors").read_bytes())
        weights_of_it[-3] ^= 0x10
        (last / "adapter_model.safetensors").write_bytes(bytes(weights_of_it))
    else:
        (last / "adapter_model.safetensors").unlink()
    start, weights = resumed(hf, pairs, tmp_path)
    assert start == 2
    assert same(weights, straight)


def test_without_a_whole_checkpoint_training_starts_over(
    hf: HFModel,
    pairs: Path,
    tmp_path: Path,
    straight: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seal in stopped(hf, pairs, tmp_path, monkeypatch).glob("*/complete.json"):
        seal.unlink()
    start, weights = resumed(hf, pairs, tmp_path)
    assert start == 0
    assert same(weights, straight)


def test_a_finished_adapter_is_not_trained_again(hf: HFModel, pairs: Path, tmp_path: Path) -> None:
    train(hf, pairs, tmp_path)
    train(hf, pairs, tmp_path, progress=killed_at(0))


def test_an_adapter_that_is_gone_on_from_is_its_own_reference(
    hf: HFModel,
    pairs: Path,
    tmp_path: Path,
    straight: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train(hf, pairs, tmp_path / "first")
    start = tmp_path / "first" / "adapter"
    calm = Training(learning_rate=1e-3, batch_size=4, epochs=1)
    train(hf, pairs, tmp_path / "second", start=start, training=calm, loss=PURE)
    log = json.loads((tmp_path / "second" / "log.jsonl").read_text().splitlines()[0])
    assert log["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert not [path for path in (tmp_path / "second" / "adapter").iterdir() if path.is_dir()]
    weights = load_file(tmp_path / "second" / "adapter" / "adapter_model.safetensors")
    assert set(weights) == set(straight)
    assert not same(weights, straight)
    # Killed and resumed, it has the same reference still.
    monkeypatch.setattr(training_loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Killed):
        train(hf, pairs, tmp_path / "third", start=start, training=calm, loss=PURE, progress=killed_at(2))
    assert same(train(hf, pairs, tmp_path / "third", start=start, training=calm, loss=PURE), weights)


def test_another_seed_gives_another_adapter(
    hf: HFModel, pairs: Path, tmp_path: Path, straight: dict[str, torch.Tensor]
) -> None:
    assert not same(train(hf, pairs, tmp_path, seed=4), straight)


def test_training_that_diverges_says_so(hf: HFModel, pairs: Path, tmp_path: Path) -> None:
    wild = TRAINING.model_copy(update={"learning_rate": 1e30, "warmup_ratio": 0.0})
    with pytest.raises(RunError, match="not finite at step"):
        train(hf, pairs, tmp_path, training=wild)
    assert not training_loop.is_trained(tmp_path)


def test_no_pairs_is_an_error(hf: HFModel, tmp_path: Path) -> None:
    write_pairs([], {}, tmp_path / "pairs.parquet", PairSettings())
    with pytest.raises(UserError, match="no pair is left"):
        train(hf, tmp_path / "pairs.parquet", tmp_path / "out")


KILLED = """
import os, signal, sys
from pathlib import Path
from stic_eval.models.hf_model import HFModel
from stic_eval.training import checkpoints, training_loop
from stic_eval.training.dpo import train_preferences
from stic_eval.training.lora import LoraSettings
from stic_eval.training.hyperparameters import PreferenceLoss, Training

digests = checkpoints.digests
training_loop.CHECKPOINT_SECONDS = 0.0
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
checkpoints.digests = lambda at: die() if at.name == "checkpoint-3" else digests(at)
model, pairs, out, training, lora = sys.argv[1:]
train_preferences(
    HFModel.load(model, device="cpu"), Path(pairs), Path(out), loss=PreferenceLoss(), seed=3,
    training=Training.model_validate_json(training), lora=LoraSettings.model_validate_json(lora),
)
"""


def test_kill_9_while_a_checkpoint_is_written_costs_that_checkpoint(
    hf: HFModel, tiny_vlm: Path, pairs: Path, tmp_path: Path, straight: dict[str, torch.Tensor]
) -> None:
    argv = [str(tiny_vlm), str(pairs), str(tmp_path), TRAINING.model_dump_json(), LORA.model_dump_json()]
    done = subprocess.run([sys.executable, "-c", KILLED, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == ""
    assert (tmp_path / "checkpoints" / "checkpoint-3" / "optimizer.pt").exists()
    start, weights = resumed(hf, pairs, tmp_path)
    assert start == 2
    assert same(weights, straight)
