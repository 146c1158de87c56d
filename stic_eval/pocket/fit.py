"""One loop for every training of the pocket model: rates, precision, checkpoints, gates."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from stic_eval.pocket import recipe

CHECKPOINT_SECONDS = 60.0
LOGGED = 50  # steps between two lines of figures
Figures = dict[str, tuple[float, int]]  # what was measured -> (sum, count)


@dataclass(frozen=True)
class Phase:
    """One training.

    Attributes:
        name: `tower`, `recall`, `reading` or `joint`.
        steps: Optimiser steps; with a gate, how many at most.
        batch: Examples in a step.
        lr: Peak learning rate of AdamW; linear warm-up over 100 steps, flat, then a linear decay over the
            last `decay`.
        decay: Share of the steps over which the learning rate falls to zero.
        threads: Cores.
        muon: Peak learning rate of Muon (Jordan 2024) for the matrices of decoder and projector; 0 leaves
            them to AdamW.
        gate: What has to be reached by each figure, over the last `LOGGED` steps, before the training ends.
    """

    name: str
    steps: int
    batch: int
    lr: float
    decay: float
    threads: int
    muon: float = 0.0
    gate: Mapping[str, float] = field(default_factory=dict)


def fastest_precision() -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where the processor has it; where it does not, it is many times slower."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, times = torch.ones(1024, 256, dtype=dtype), []
        for _ in range(8):  # the best of some: the first warms up, and other work gets in between
            start = time.perf_counter()
            for _ in range(8):
                a @ a.T
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    native = seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]
    print("bfloat16" if native else "float32", flush=True)
    return torch.autocast("cpu", torch.bfloat16) if native else nullcontext()


def _rate(phase: Phase, step: int) -> float:
    up = min(1.0, (step + 1) / 100)
    down = min(1.0, (phase.steps - step) / max(1.0, phase.decay * phase.steps))
    return up * down


def _passed(phase: Phase, line: Mapping[str, float]) -> bool:
    return bool(phase.gate) and all(line.get(name, 0.0) >= least for name, least in phase.gate.items())


def fit(
    phase: Phase,
    modules: dict[str, nn.Module],
    groups: list[dict[str, Any]],
    data: Dataset[Any],
    loss_of: Callable[[Any], tuple[Tensor, Figures]],
    work: Path,
) -> None:
    """Trains, with a checkpoint every minute; returns at once what is finished.

    Raises:
        SystemExit: The gate was not passed within the phase's steps.
    """
    path = work / f"{phase.name}.pt"
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if not g.get("muon")], betas=(0.9, 0.95), weight_decay=0.01)
    ]
    if matrices := [{"params": g["params"], "lr": g["lr"]} for g in groups if g.get("muon")]:
        optimizers.append(torch.optim.Muon(matrices, momentum=0.95, nesterov=True, weight_decay=0.0))
    # Loading an optimiser's state replaces its groups, and gives them the rate of that step.
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    log: list[dict[str, Any]] = []
    since: Figures = {}
    first = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(saved["modules"][name])
        first, log = saved["step"], json.loads(saved["log"])
        if not saved["finished"]:
            for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            since = {name: (total, n) for name, (total, n) in json.loads(saved.get("since", "{}")).items()}

    def save(step: int, finished: bool) -> None:
        state = {
            "step": step, "finished": finished,
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "log": json.dumps(log), "since": json.dumps(since),
        }  # fmt: skip
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    if path.exists() and saved["finished"]:
        return
    saved_at = started = time.monotonic()
    steps = range(first, phase.steps)
    loader = DataLoader(data, batch_size=None, sampler=steps, num_workers=1, prefetch_factor=8)
    parameters = [p for group in groups for p in group["params"]]
    precision, passed = fastest_precision(), False
    for step, batch in zip(steps, loader, strict=True):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            for group, lr in zip(optimizer.param_groups, peak, strict=True):
                group["lr"] = lr * _rate(phase, step)
        with precision:
            loss, figures = loss_of(batch)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        for name, (total, n) in {"loss": (loss.item(), 1), **figures}.items():
            before = since.get(name, (0.0, 0))
            since[name] = (before[0] + total, before[1] + n)
        if (step + 1) % LOGGED == 0 or step + 1 == phase.steps:
            means = {name: round(total / n, 4) for name, (total, n) in since.items() if n}
            log.append({"step": step + 1, **means})
            since, passed = {}, _passed(phase, means)
            rate = (step + 1 - first) / (time.monotonic() - started)
            shown = " ".join(f"{k} {v:.3f}" for k, v in means.items())
            print(f"{phase.name} {step + 1}/{phase.steps} {rate:.2f} steps/s: {shown}", flush=True)
        if passed or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            save(step + 1, passed)
            saved_at = time.monotonic()
        if passed:
            break
    if phase.gate and not passed:
        sys.exit(f"{phase.name}: the gate {dict(phase.gate)} was not passed in {phase.steps} steps")
    if not phase.gate:
        save(phase.steps, finished=True)
    recipe.save_log(work / f"{phase.name}.jsonl", log)
