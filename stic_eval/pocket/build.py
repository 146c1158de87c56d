"""Rebuilds the pocket model from nothing: `python -m stic_eval.pocket.build`.

Five trainings: the vision tower alone, on what is drawn where; the decoder alone, on reading (both at
once, a core each); then projector, decoder and tower together, three times: on pictures and reading, with
exercises in words, and at last with dense ones, the tower at a tenth of the learning rate. A tower that
is trained only through the language model stays near chance.

Everything is seeded, so that a rebuild gives the same model up to floating point. Each training leaves
a checkpoint every minute in `--work` and goes on from there when the command is started again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from stic_eval.pocket import recipe
from stic_eval.pocket.rows import MODEL_DIR, wordings
from stic_eval.pocket.tower import Heads, Pictures, pixels, tower_loss
from stic_eval.pocket.world import draw

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Phase:
    """One training.

    Attributes:
        name: `tower`, `reading`, `seeing`, `words` or `joint`.
        steps: Optimiser steps.
        batch: Examples in a step.
        lr: Peak learning rate; linear warm-up over 2 %, flat, then a linear decay over the last `decay`.
        decay: Share of the steps over which the learning rate falls to zero.
        threads: Cores.
        muon: Peak learning rate of Muon (Jordan 2024) for the matrices of decoder and projector; 0 leaves
            them to AdamW.
    """

    name: str
    steps: int
    batch: int
    lr: float
    decay: float
    threads: int
    muon: float = 0.0


PHASES = {
    "tower": Phase("tower", 5_000, 128, 1e-3, 0.4, 1),
    "reading": Phase("reading", 400, 64, 1.5e-3, 0.1, 1),
    "seeing": Phase("seeing", 2173, 64, 1e-3, 0.0, 2),
    "words": Phase("words", 641, 64, 1e-3, 0.0, 2),
    "joint": Phase("joint", 2_300, 64, 1e-3, 0.4, 2, muon=0.01),
}
TOWER_SHARE = 0.1  # the tower's learning rate in the joint training, as a share of the others'


# ---------------------------------------------------------------- decoder, projector, tower


class Conversations(Dataset[dict[str, Any]]):
    """Batches of conversations of similar length; the batch of a step depends on its number alone."""

    GROUP = 8  # batches that are made at once and sorted by length

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.words = recipe.tokenizer()
        self.ask = wordings()
        self._group: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return self.phase.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        group, inside = divmod(step, self.GROUP)
        if self._group[0] != group:
            self._group = (group, self._make(group))
        order = np.random.default_rng(group).permutation(self.GROUP)
        part, size = int(order[inside]), self.phase.batch
        return self._batch(self._group[1][part * size : (part + 1) * size])

    def _make(self, group: int) -> list[Any]:
        mix = recipe.MIXES[self.phase.name]
        starts = {"seeing": 0, "reading": 300_000_000, "words": 100_000_000, "joint": 400_000_000}
        first = starts[self.phase.name]
        n = self.GROUP * self.phase.batch
        source = recipe.examples(mix, self.ask, "train", first + group * n)
        made = [
            (example, *recipe.encode(example, self.words))
            for example, _ in zip(source, range(n), strict=False)
        ]
        return sorted(made, key=lambda item: len(item[1]))

    def _batch(self, made: list[Any]) -> dict[str, Any]:
        longest = max(len(ids) for _, ids, _ in made)
        ids = torch.full((len(made), longest), self.words.pad_token_id)
        mask = torch.zeros_like(ids)
        weights = torch.zeros(len(made), longest)
        images = []
        for row, (example, tokens, weight) in enumerate(made):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
            weights[row, : len(tokens)] = torch.tensor(weight)
            if example.seen:
                images.append(draw(example.spec, example.seed))
        batch: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "weights": weights}
        return batch | ({"pixel_values": pixels(images)} if images else {})


def talk_loss(model: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
    """Weighted mean cross-entropy of the answers' tokens."""
    inputs = {k: v for k, v in batch.items() if k != "weights"}
    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    weights = batch["weights"][:, 1:]
    said = weights > 0
    logits = model.lm_head(hidden[said]).float()
    target = batch["input_ids"][:, 1:][said]
    losses = F.cross_entropy(logits, target, reduction="none")
    loss = (losses * weights[said]).sum() / weights[said].sum()
    short = weights[said] > 1
    right = logits.argmax(-1) == target
    figures = {
        "description": float(right[~short].float().mean()),
        "answer": float(right[short].float().mean()),
    }
    return loss, figures


# ---------------------------------------------------------------- one loop for all


def _rate(phase: Phase, step: int) -> float:
    up = min(1.0, (step + 1) / max(1.0, 0.02 * phase.steps))
    down = min(1.0, (phase.steps - step) / max(1.0, phase.decay * phase.steps))
    return up * down


def fit(
    phase: Phase,
    modules: dict[str, nn.Module],
    groups: list[dict[str, Any]],
    data: Dataset[Any],
    loss_of: Callable[[Any], tuple[Tensor, dict[str, float]]],
    work: Path,
) -> None:
    """Trains, with a checkpoint every minute; returns at once what is finished."""
    path = work / f"{phase.name}.pt"
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if not g.get("muon")], betas=(0.9, 0.98), weight_decay=0.02)
    ]
    if matrices := [{"params": g["params"], "lr": g["lr"]} for g in groups if g.get("muon")]:
        optimizers.append(torch.optim.Muon(matrices, momentum=0.95, nesterov=True, weight_decay=0.0))
    rates = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    log: list[dict[str, Any]] = []
    first = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(saved["modules"][name])
        first, log = saved["step"], json.loads(saved["log"])
        if first < phase.steps:
            for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)

    def save(step: int) -> None:
        state = {
            "step": step, "modules": {name: module.state_dict() for name, module in modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers], "log": json.dumps(log),
        }  # fmt: skip
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    saved_at = started = time.monotonic()
    steps = range(first, phase.steps)
    loader = DataLoader(data, batch_size=None, sampler=steps, num_workers=1, prefetch_factor=8)
    since: list[dict[str, float]] = []
    parameters = [p for group in groups for p in group["params"]]
    for step, batch in zip(steps, loader, strict=True):
        for group, lr in rates:
            group["lr"] = lr * _rate(phase, step)
        with torch.autocast("cpu", torch.bfloat16):
            loss, figures = loss_of(batch)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        since.append({"loss": loss.item(), **figures})
        if (step + 1) % 100 == 0 or step + 1 == phase.steps:
            line = {"step": step + 1, **{k: _mean(x[k] for x in since) for k in since[0]}}
            log.append(line)
            since = []
            rate = (step + 1 - first) / (time.monotonic() - started)
            shown = " ".join(f"{k} {v:.3f}" for k, v in line.items() if k != "step")
            left = (phase.steps - step - 1) / rate / 60
            print(
                f"{phase.name} {step + 1}/{phase.steps} {rate:.2f} steps/s {left:.0f} min left: {shown}",
                flush=True,
            )
        if time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            save(step + 1)
            saved_at = time.monotonic()
    if first < phase.steps:
        save(phase.steps)
    recipe.save_log(work / f"{phase.name}.jsonl", log)


def _mean(values: Iterator[float]) -> float:
    found = [value for value in values if not math.isnan(value)]
    return round(sum(found) / len(found), 4) if found else math.nan


def train(phase: Phase, work: Path) -> None:
    """One training, on what the ones before it have left in `work`."""
    torch.set_num_threads(phase.threads)
    torch.manual_seed(0)
    model = recipe.build_model(recipe.tokenizer())
    model.set_attn_implementation("eager")  # half the time of the fused kernels' backward pass on a CPU
    if phase.name == "tower":
        tower = model.model.vision_tower
        heads = Heads(tower.config.hidden_size)
        groups = [{"params": [*tower.parameters(), *heads.parameters()], "lr": phase.lr}]
        modules = {"tower": tower, "heads": heads}
        fit(
            phase,
            modules,
            groups,
            Pictures(phase.steps, phase.batch),
            lambda batch: tower_loss(model, heads, batch),
            work,
        )
        return
    for layer in model.model.language_model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)  # a third less time
    language = nn.ModuleList([model.model.language_model, model.lm_head])
    if phase.name == "reading":
        groups = [{"params": list(language.parameters()), "lr": phase.lr}]
        fit(phase, {"language": language}, groups, Conversations(phase), lambda b: talk_loss(model, b), work)
        return
    if phase.name in ("words", "joint"):
        model.load_state_dict(_trained(work, "seeing" if phase.name == "words" else "words")["model"])
    else:
        model.model.vision_tower.load_state_dict(_trained(work, "tower")["tower"])
        language.load_state_dict(_trained(work, "reading")["language"])
    matrices, rest = _split(model, phase.muon)
    groups = [
        {"params": rest, "lr": phase.lr},
        {"params": list(model.model.vision_tower.parameters()), "lr": phase.lr * TOWER_SHARE},
    ]
    if matrices:
        groups.append({"params": matrices, "lr": phase.muon, "muon": True})
    fit(phase, {"model": model}, groups, Conversations(phase), lambda batch: talk_loss(model, batch), work)


def _split(model: Any, muon: float) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Decoder and projector: the layers' matrices, which Muon trains if it is used, and the rest."""
    layers = [
        *model.model.language_model.layers.parameters(),
        *model.model.multi_modal_projector.parameters(),
    ]
    matrices = [p for p in layers if p.ndim == 2] if muon else []
    taken = {id(p) for p in matrices}
    every = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    every += model.model.multi_modal_projector.parameters()
    return matrices, [p for p in every if id(p) not in taken]


def _trained(work: Path, name: str) -> dict[str, Any]:
    """The weights that a finished training left."""
    modules: dict[str, Any] = torch.load(work / f"{name}.pt", weights_only=True)["modules"]
    return modules


def export(work: Path, out: Path) -> None:
    """Writes model, tokenizer and processor as transformers has them, in bfloat16, with the figures."""
    words = recipe.tokenizer()
    model = recipe.build_model(words)
    model.load_state_dict(_trained(work, "joint")["model"])
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config.update(eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id)
    model.bfloat16().save_pretrained(out)
    recipe.processor(words).save_pretrained(out)
    for name in PHASES:
        (out / f"{name}.jsonl").write_bytes((work / f"{name}.jsonl").read_bytes())


def main() -> None:
    """Builds what is not built yet."""
    parser = argparse.ArgumentParser(prog="python -m stic_eval.pocket.build", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/pocket"), help="checkpoints (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=MODEL_DIR, help="the model's folder (default: the package's)"
    )
    parser.add_argument("--phase", choices=list(PHASES), help="train only this")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.phase:
        train(PHASES[args.phase], args.work)
        return
    one = [sys.executable, "-m", "stic_eval.pocket.build", "--work", str(args.work), "--phase"]
    first = [subprocess.Popen([*one, name]) for name in ("tower", "reading")]
    if any(process.wait() for process in first):
        sys.exit("a training failed")
    for name in ("seeing", "words", "joint"):
        subprocess.run([*one, name], check=True)
    export(args.work, args.out)


if __name__ == "__main__":
    main()
