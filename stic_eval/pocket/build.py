"""Rebuilds the pocket model from nothing: `python -m stic_eval.pocket.build`.

Four trainings: the vision tower alone, on what is drawn where; at the same time, on the other core, the
decoder alone, on looking things up in rows of random words and then on reading; at last everything
together, the tower at a tenth of the learning rate. A tower that is trained only through the language model
stays near chance, and so do options in a decoder that has not learned to look things up before.

Trainings of the decoder alone end when their gate is passed, not at a step. Everything is seeded, so that a
rebuild gives the same model up to floating point. Each training leaves a checkpoint every minute in `--work`
and goes on from there when the command is started again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from stic_eval.pocket import recall, recipe
from stic_eval.pocket.rows import MODEL_DIR, wordings
from stic_eval.pocket.tower import Heads, Pictures, parameter_groups, pixels, tower_loss, zero_outputs
from stic_eval.pocket.vocabulary import MARK
from stic_eval.pocket.world import draw

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHECKPOINT_SECONDS = 60.0
LOGGED = 50  # steps between two lines of figures


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


_DENSE = dict.fromkeys(recall.DENSE, 0.97)
_WORDED = dict.fromkeys(("choice", "question", "entry"), 0.97)
PHASES = {
    "tower": Phase("tower", 4_500, 128, 2e-3, 0.55, 1, muon=0.02),
    "recall few": Phase("recall few", 6_000, 32, 1e-3, 0.0, 1, muon=0.005, gate=_DENSE),
    "recall more": Phase("recall more", 6_000, 32, 1e-3, 0.0, 1, muon=0.005, gate=_DENSE),
    "recall all": Phase("recall all", 6_000, 32, 1e-3, 0.0, 1, muon=0.005, gate=_DENSE | _WORDED),
    "reading": Phase(
        "reading", 20_000, 32, 1e-3, 0.0, 1, muon=0.005,
        gate={"option": 0.95, "rotation": 0.95, "fact": 0.95, "two hops": 0.9},
    ),
    "joint": Phase("joint", 4_000, 64, 1e-3, 0.5, 2, muon=0.005),
}  # fmt: skip
BEFORE = {"recall more": "recall few", "recall all": "recall more", "reading": "recall all"}
SKILLS = (*recall.KINDS, *recipe.SKILLS)
TOWER_SHARE = 0.1  # the tower's learning rate in the joint training, as a share of the others'
# Layer that is asked for the clue to an answer, of six: the two look-ups have three layers each.
CLUE_LAYER, CLUE_WEIGHT = 2, 0.3
Figures = dict[str, tuple[float, int]]  # what was measured -> (sum, count)


# ---------------------------------------------------------------- what the decoder is shown


class Rows(Dataset[dict[str, Any]]):
    """Batches of `recall`; the step decides the kind of rows."""

    def __init__(self, phase: Phase, pool: str, words: PreTrainedTokenizerFast) -> None:
        self.phase = phase
        self.words = recipe.token_ids(words, recipe.recall_words(pool, words))
        self.letters = recipe.token_ids(words, recall.LETTERS)
        self.kinds = recall.DENSE + (3 * recall.WORDED if pool == "all" else ())
        self.marks = recipe.token_ids(words, recall.MARKS)
        self.vocabulary = {
            k.removeprefix(MARK): v for k, v in words.get_vocab().items() if k.startswith(MARK)
        }

    def __len__(self) -> int:
        return self.phase.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((len(self.words), step))
        kind = self.kinds[rng.integers(len(self.kinds))]
        if kind == "figures":
            ids, columns = recall.figures(self.vocabulary, self.phase.batch, rng)
        else:
            ids, columns = recall.rows(kind, self.words, self.letters, self.marks, self.phase.batch, rng)
        weights, skills = torch.zeros(ids.shape), torch.full(ids.shape, -1)
        weights[:, columns] = 1.0
        skills[:, columns] = SKILLS.index(kind)
        tokens = torch.from_numpy(ids)
        return {
            "input_ids": tokens, "attention_mask": torch.ones_like(tokens), "weights": weights,
            "skills": skills,
        }  # fmt: skip


class Conversations(Dataset[dict[str, Any]]):
    """Batches of conversations of similar length; the batch of a step depends on its number alone."""

    GROUP = 8  # batches that are drawn at once and sorted by length
    REHEARSAL = 2  # every second batch is of `recall`, which is forgotten within 200 steps otherwise

    def __init__(self, phase: Phase, words: PreTrainedTokenizerFast) -> None:
        self.phase = phase
        self.words = words
        self.ask = wordings()
        self.rows = Rows(phase, "all", words)
        self._group: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return self.phase.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        if step % self.REHEARSAL == self.REHEARSAL - 1:
            return self.rows[step]
        group, inside = divmod(step, self.GROUP)
        if self._group[0] != group:
            self._group = (group, self._draw(group))
        order = np.random.default_rng(group).permutation(self.GROUP)
        part, size = int(order[inside]), self.phase.batch
        return self._batch(self._group[1][part * size : (part + 1) * size])

    def _draw(self, group: int) -> list[Any]:
        n = self.GROUP * self.phase.batch
        first = (400_000_000 if self.phase.name == "joint" else 0) + group * n
        source = recipe.examples(recipe.MIXES[self.phase.name], self.ask, "train", first)
        drawn = [
            (example, recipe.encode(example, self.words))
            for example, _ in zip(source, range(n), strict=False)
        ]
        return sorted(drawn, key=lambda item: len(item[1].ids))

    def _batch(self, drawn: list[Any]) -> dict[str, Any]:
        longest = max(len(text.ids) for _, text in drawn)
        ids = torch.full((len(drawn), longest), self.words.pad_token_id)
        mask, weights = torch.zeros_like(ids), torch.zeros(len(drawn), longest)
        skills = torch.full_like(ids, -1)
        images, places, clues = [], [], []
        for row, (example, text) in enumerate(drawn):
            length = len(text.ids)
            ids[row, :length] = torch.tensor(text.ids)
            mask[row, :length] = 1
            weights[row, :length] = torch.tensor(text.weights)
            skills[row, :length] = torch.tensor([SKILLS.index(s) if s else -1 for s in text.skills])
            for place, clue in text.clues.items():
                places.append((row, place))
                clues.append(torch.bincount(torch.tensor(clue), minlength=len(self.words)) / len(clue))
            if example.seen:
                images.append(draw(example.spec, example.seed))
        batch = {"input_ids": ids, "attention_mask": mask, "weights": weights, "skills": skills}
        if places:
            batch |= {"clue_places": torch.tensor(places), "clues": torch.stack(clues)}
        return batch | ({"pixel_values": pixels(images)} if images else {})


def answer_loss(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Figures]:
    """Weighted mean cross-entropy of the answers' tokens, and the share of them that is right, by skill.

    Where an answer takes two look-ups, the layer in the middle is also asked for what the first one finds.
    """
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "pixel_values")}
    middle: list[Tensor] = []
    hook = model.model.language_model.layers[CLUE_LAYER].register_forward_hook(
        lambda _module, _inputs, output: middle.append(output)
    )
    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    hook.remove()
    weights, skills = batch["weights"][:, 1:], batch["skills"][:, 1:]
    counted = weights > 0
    logits = model.lm_head(hidden[counted]).float()
    target = batch["input_ids"][:, 1:][counted]
    losses = F.cross_entropy(logits, target, reduction="none")
    loss = (losses * weights[counted]).sum() / weights[counted].sum()
    clue = None
    if "clues" in batch:
        row, place = batch["clue_places"].T
        found = model.lm_head(model.model.language_model.norm(middle[0][row, place - 1])).float()
        loss = loss + CLUE_WEIGHT * F.cross_entropy(found, batch["clues"])
        clue = (float(batch["clues"].gather(1, found.argmax(-1, keepdim=True)).gt(0).sum()), len(row))
    right, skill = logits.argmax(-1) == target, skills[counted]
    figures = {
        SKILLS[i]: (float(right[skill == i].sum()), int((skill == i).sum()))
        for i in skill.unique().tolist()
        if i >= 0
    }
    return loss, figures | ({"clue": clue} if clue else {})


def see_loss(model: Any, heads: Heads, batch: dict[str, Tensor]) -> tuple[Tensor, Figures]:
    """The tower's loss, and its heads' accuracies."""
    loss, right = tower_loss(model, heads, batch)
    return loss, {name: (value, 1) for name, value in right.items() if value == value}


# ---------------------------------------------------------------- one loop for all


def fastest_precision() -> AbstractContextManager[Any]:
    """Autocast to bfloat16 where the processor has it; where it does not, it is many times slower."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(1024, 256, dtype=dtype)
        for _ in range(2):  # the first round warms up
            start = time.perf_counter()
            for _ in range(8):
                a @ a.T
            seconds[dtype] = time.perf_counter() - start
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


def train(phase: Phase, work: Path) -> None:
    """One training, on what the ones before it have left in `work`."""
    torch.set_num_threads(phase.threads)
    torch.manual_seed(0)
    words = recipe.build_tokenizer()
    model = recipe.build_model(words)
    model.set_attn_implementation("eager")  # half the time of the fused kernels' backward pass on a CPU
    tower, language = model.model.vision_tower, model.model.language_model
    if phase.name == "tower":
        heads = Heads(tower.config.hidden_size)
        zero_outputs(tower)
        groups = parameter_groups(tower, heads, phase.lr, phase.muon)
        data: Dataset[Any] = Pictures(phase.steps, phase.batch)
        modules = {"tower": tower, "heads": heads}
        fit(phase, modules, groups, data, lambda batch: see_loss(model, heads, batch), work)
        return
    for layer in language.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)  # a third less time
    if phase.name == "joint":
        tower.load_state_dict(_trained(work, "tower")["tower"])
        language.load_state_dict(_trained(work, "reading")["language"])
        projector = list(model.model.multi_modal_projector.parameters())
        groups = [*_groups(phase, list(language.layers.parameters()), projector, language)]
        groups.append({"params": list(tower.parameters()), "lr": phase.lr * TOWER_SHARE})
        data, modules = Conversations(phase, words), {"model": model}
    else:
        if phase.name in BEFORE:
            language.load_state_dict(_trained(work, BEFORE[phase.name])["language"])
        groups = _groups(phase, list(language.layers.parameters()), [], language)
        pool = phase.name.removeprefix("recall ")
        data = Conversations(phase, words) if phase.name == "reading" else Rows(phase, pool, words)
        modules = {"language": language}
    fit(phase, modules, groups, data, lambda batch: answer_loss(model, batch), work)


def _groups(
    phase: Phase, layers: Sequence[nn.Parameter], projector: Sequence[nn.Parameter], language: Any
) -> list[dict[str, Any]]:
    """Parameter groups of decoder and projector: matrices, which Muon trains if it is used, and the rest."""
    matrices = [p for p in (*layers, *projector) if p.ndim == 2] if phase.muon else []
    taken = {id(p) for p in matrices}
    rest = [p for p in (*language.parameters(), *projector) if id(p) not in taken]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": phase.lr}]
    return [*groups, {"params": matrices, "lr": phase.muon, "muon": True}] if matrices else groups


def _trained(work: Path, name: str) -> dict[str, Any]:
    """The weights that a finished training left."""
    modules: dict[str, Any] = torch.load(work / f"{name}.pt", weights_only=True)["modules"]
    return modules


def export(work: Path, out: Path) -> None:
    """Writes model, tokenizer and processor as transformers has them, in bfloat16, with the figures."""
    words = recipe.build_tokenizer()
    model = recipe.build_model(words)
    model.load_state_dict(_trained(work, "joint")["model"])
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config.update(eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id)
    model.bfloat16().save_pretrained(out)
    recipe.processor(words).save_pretrained(out)
    for name in PHASES:
        if (log := work / f"{name}.jsonl").exists():
            (out / log.name.replace(" ", "-")).write_bytes(log.read_bytes())


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
    tower = subprocess.Popen([*one, "tower"])
    for name in ("recall few", "recall more", "recall all", "reading"):
        subprocess.run([*one, name], check=True)
    if tower.wait():
        sys.exit("the tower's training failed")
    subprocess.run([*one, "joint"], check=True)
    export(args.work, args.out)


if __name__ == "__main__":
    main()
