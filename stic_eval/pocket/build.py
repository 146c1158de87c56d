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
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from stic_eval.pocket import recall, recipe
from stic_eval.pocket.batches import SKILLS, Conversations, Rows
from stic_eval.pocket.fit import Figures, Phase, fit
from stic_eval.pocket.projector import Patches, projector_loss
from stic_eval.pocket.rows import MODEL_DIR
from stic_eval.pocket.tower import Heads, Pictures, parameter_groups, tower_loss, zero_outputs

_DENSE = dict.fromkeys(recall.DENSE, 0.95)
_READ = ("color", "shape", "place", "at", "left", "count", "value", "highest", "lowest")
_WORDED = dict.fromkeys(("choice", "question", "entry", "statement"), 0.95)
PHASES = {
    "tower": Phase("tower", 4_500, 128, 2e-3, 0.55, 1, muon=0.02),
    "recall few": Phase("recall few", 6_000, 32, 1e-3, 0.0, 1, muon=0.005, gate=_DENSE),
    "recall more": Phase("recall more", 6_000, 32, 1e-3, 0.0, 1, muon=0.005, gate=_DENSE),
    "recall all": Phase("recall all", 6_000, 32, 1e-3, 0.0, 2, muon=0.005, gate=_DENSE | _WORDED),
    "reading": Phase(
        "reading", 20_000, 32, 1e-3, 0.0, 2, muon=0.005,
        gate={
            "option": 0.95, "rotation": 0.95, "fact": 0.95, "two hops": 0.9, "sum": 0.9,
            **dict.fromkeys((f"passage, {kind}" for kind in _READ), 0.9),
        },
    ),
    "projector": Phase("projector", 1_200, 128, 2e-3, 0.8, 2, muon=0.005),
    "joint": Phase("joint", 2_500, 32, 1e-3, 0.5, 2, muon=0.005),
}  # fmt: skip
BEFORE = {"recall more": "recall few", "recall all": "recall more", "reading": "recall all"}
# glibc gives large tensors back to the system after each use, which costs a third of the time; not so.
ALLOCATION = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": str(2**28),
}  # fmt: skip
TOWER_SHARE = 0.1  # the tower's learning rate in the joint training, as a share of the others'
# Layers that are asked for key and clue of an answer, of six: the second, and the fourth.
CLUE_LAYERS, CLUE_WEIGHT = (1, 3), 0.5


def answer_loss(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Figures]:
    """Weighted mean cross-entropy of the answers' tokens, and the share of them that is right, by skill.

    At the place where an answer begins, two layers on the way are asked for what has to be looked for, and
    for what is found there.
    """
    inputs = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask", "pixel_values")}
    layers = model.model.language_model.layers
    middle: list[Tensor] = []
    hooks = [
        layers[i].register_forward_hook(lambda _module, _inputs, output: middle.append(output))
        for i in CLUE_LAYERS
    ]
    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    for hook in hooks:
        hook.remove()
    weights, skills = batch["weights"][:, 1:], batch["skills"][:, 1:]
    counted = weights > 0
    logits = model.lm_head(hidden[counted]).float()
    target = batch["input_ids"][:, 1:][counted]
    losses = F.cross_entropy(logits, target, reduction="none")
    loss = (losses * weights[counted]).sum() / weights[counted].sum()
    clues = {}
    if "clues" in batch:
        which, row, place = batch["clue_places"].T
        state = torch.stack(middle)[which, row, place - 1]
        found = model.lm_head(model.model.language_model.norm(state)).float()
        loss = loss + CLUE_WEIGHT * F.cross_entropy(found, batch["clues"])
        hit = batch["clues"].gather(1, found.argmax(-1, keepdim=True))[:, 0] > 0
        clues = {
            name: (float(hit[which == i].sum()), int((which == i).sum()))
            for i, name in enumerate(("key", "clue"))
        }
    right, skill = logits.argmax(-1) == target, skills[counted]
    figures = {
        SKILLS[i]: (float(right[skill == i].sum()), int((skill == i).sum()))
        for i in skill.unique().tolist()
        if i >= 0
    }
    return loss, figures | clues


def see_loss(model: Any, heads: Heads, batch: dict[str, Tensor]) -> tuple[Tensor, Figures]:
    """The tower's loss, and its heads' accuracies."""
    loss, right = tower_loss(model, heads, batch)
    return loss, {name: (value, 1) for name, value in right.items() if value == value}


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
    projector = list(model.model.multi_modal_projector.parameters())
    if phase.name == "projector":
        tower.load_state_dict(_trained(work, "tower")["tower"])
        language.load_state_dict(_trained(work, "reading")["language"])
        groups = _groups(phase, [], projector, [])
        modules = {"projector": model.model.multi_modal_projector}
        data = Patches(phase.steps, phase.batch, words)
        fit(phase, modules, groups, data, lambda batch: projector_loss(model, batch), work)
        return
    for layer in language.layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)  # a third less time
    if phase.name == "joint":
        tower.load_state_dict(_trained(work, "tower")["tower"])
        language.load_state_dict(_trained(work, "reading")["language"])
        model.model.multi_modal_projector.load_state_dict(_trained(work, "projector")["projector"])
        groups = [*_groups(phase, list(language.layers.parameters()), projector, language.parameters())]
        groups.append({"params": list(tower.parameters()), "lr": phase.lr * TOWER_SHARE})
        data, modules = Conversations(phase, words), {"model": model}
    else:
        if phase.name in BEFORE:
            language.load_state_dict(_trained(work, BEFORE[phase.name])["language"])
        groups = _groups(phase, list(language.layers.parameters()), [], language.parameters())
        pool = phase.name.removeprefix("recall ")
        data = Conversations(phase, words) if phase.name == "reading" else Rows(phase, pool, words)
        modules = {"language": language}
    fit(phase, modules, groups, data, lambda batch: answer_loss(model, batch), work)


def _groups(
    phase: Phase,
    layers: Sequence[nn.Parameter],
    projector: Sequence[nn.Parameter],
    language: Iterable[nn.Parameter],
) -> list[dict[str, Any]]:
    """Parameter groups of decoder and projector: matrices, which Muon trains if it is used, and the rest."""
    matrices = [p for p in (*layers, *projector) if p.ndim == 2] if phase.muon else []
    taken = {id(p) for p in matrices}
    rest = [p for p in (*language, *projector) if id(p) not in taken]
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
    settings = os.environ | ALLOCATION
    one = [sys.executable, "-m", "stic_eval.pocket.build", "--work", str(args.work), "--phase"]
    tower = subprocess.Popen([*one, "tower"], env=settings)
    for name in ("recall few", "recall more", "recall all", "reading"):
        subprocess.run([*one, name], check=True, env=settings)
    if tower.wait():
        sys.exit("the tower's training failed")
    for name in ("projector", "joint"):
        subprocess.run([*one, name], check=True, env=settings)
    export(args.work, args.out)


if __name__ == "__main__":
    main()
