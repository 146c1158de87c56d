"""The first training of the pocket model: its vision tower, on what is drawn where."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from stic_eval.pocket import recipe
from stic_eval.pocket.world import (
    CHARTS,
    COLORS,
    LETTERS,
    MAX_VALUE,
    OBJECT_SIZES,
    SETTINGS,
    SHAPES,
    Chart,
    Spec,
    Split,
    draw,
    draw_spec,
    first_slot,
)

IGNORED = -100
LETTER_HEADS = ("letter/0", "letter/1")  # the two slots of a patch
# Most cells and slots are empty; what is in the others weighs more.
_SPARSE = ("shape", "color", "size", *LETTER_HEADS)
EMPTY_WEIGHT = 0.1


def pixels(images: list[Any]) -> Tensor:
    """Pictures as the processor gives them to the model: (n, 3, size, size) in [-1, 1]."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


class Heads(nn.Module):
    """Reads off every patch what its cell, its row and the whole picture hold."""

    SIZES = (
        {"shape": 1 + len(SHAPES), "color": 1 + len(COLORS), "size": 1 + len(OBJECT_SIZES)}
        | {"kind": len(SETTINGS) + len(CHARTS)}
        | dict.fromkeys(LETTER_HEADS, 1 + len(LETTERS))
        | {f"value/{c}": 1 + MAX_VALUE for c in COLORS}
    )

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.heads = nn.Linear(width, sum(self.SIZES.values()))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(n, patches, width) -> logits by name, each (n, patches, classes)."""
        parts = self.heads(self.norm(features)).split(list(self.SIZES.values()), dim=-1)
        return dict(zip(self.SIZES, parts, strict=True))


def labels(spec: Spec) -> dict[str, list[int]]:
    """Class of every patch under every head."""
    n = recipe.N_PATCHES
    if isinstance(spec, Chart):
        values = dict(spec.values)
        found = {name: [IGNORED] * n for name in ("shape", "color", "size", *LETTER_HEADS)}
        found["kind"] = [len(SETTINGS) + CHARTS.index(spec.kind)] * n
        return found | {f"value/{c}": [values.get(c, 0)] * n for c in COLORS}
    found = {name: [0] * n for name in ("shape", "color", "size", *LETTER_HEADS)}
    for thing in spec.things:
        found["shape"][thing.cell] = 1 + SHAPES.index(thing.shape)
        found["color"][thing.cell] = 1 + list(COLORS).index(thing.color)
        found["size"][thing.cell] = 1 + OBJECT_SIZES.index(thing.size)
    if spec.sign is not None:
        for slot, letter in enumerate(spec.sign, start=first_slot(spec.sign)):
            patch, half = divmod(slot, len(LETTER_HEADS))
            found[LETTER_HEADS[half]][3 * spec.sign_row + patch] = 1 + LETTERS.index(letter)
    found["kind"] = [list(SETTINGS).index(spec.setting)] * n
    return found | {f"value/{c}": [IGNORED] * n for c in COLORS}


class Pictures(Dataset[dict[str, Tensor]]):
    """Batches for the tower; the batch of a step depends on its number alone."""

    KINDS = ("sign", "pie", "sign", "many", "sign", "chart")  # letters and pies are what takes long

    def __init__(self, steps: int, batch: int, split: Split = "train") -> None:
        self.steps, self.batch, self.split = steps, batch, split

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        specs = []
        for i in range(self.batch):
            kind = self.KINDS[i % len(self.KINDS)]
            specs.append(draw_spec(self.split, 500_000_000 + step * self.batch + i, kind))
        every = [labels(spec) for spec in specs]
        images = pixels([draw(spec, step * 1000 + i) for i, spec in enumerate(specs)])
        return {"pixels": images} | {name: torch.tensor([x[name] for x in every]) for name in Heads.SIZES}


def tower_loss(model: Any, heads: Heads, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Mean cross-entropy of the heads, and their accuracies.

    Accuracies are of what is there, as most cells are empty and most rows have no sign: of a colour's
    value on every patch (`value`), of a picture's three values on all patches (`chart`), of letters
    (`letter`) and of signs of which every slot is right (`word`).
    """
    features = model.model.vision_tower(pixel_values=batch["pixels"], output_hidden_states=True)
    logits = heads(features.hidden_states[-1][:, 1:])
    losses, right, there = [], {}, {}
    for name, scores in logits.items():
        target = batch[name]
        weights = torch.ones(scores.shape[-1])
        if name in _SPARSE:
            weights[0] = EMPTY_WEIGHT
        losses.append(
            F.cross_entropy(scores.flatten(0, 1).float(), target.flatten(), weights, ignore_index=IGNORED)
        )
        right[name] = scores.argmax(-1) == target
        there[name] = target > 0 if name != "kind" else target >= 0
    values = [name for name in Heads.SIZES if name.startswith("value/")]
    figures = {name: _share(right[name], there[name]) for name in ("shape", "color", "size", "kind")}
    for one, whole, names in (("value", "chart", values), ("letter", "word", LETTER_HEADS)):
        all_right = torch.stack([right[name] for name in names])
        all_there = torch.stack([there[name] for name in names])
        figures[one] = _share(all_right, all_there)
        # Where there is nothing, nothing may be seen; pictures of the other kind are not counted.
        figures[whole] = _share(all_right.all(0).all(1), all_there.any(0).any(1))
    return torch.stack(losses).nan_to_num().sum(), figures


def _share(right: Tensor, there: Tensor) -> float:
    return float(right[there].float().mean())


def zero_outputs(tower: nn.Module) -> None:
    """Lets every layer add nothing at first: the matrices that write to the residual stream become zero."""
    for name, parameter in tower.named_parameters():
        if name.endswith(("out_proj.weight", "fc2.weight")):
            nn.init.zeros_(parameter)


def parameter_groups(tower: nn.Module, heads: Heads, lr: float, muon: float) -> list[dict[str, Any]]:
    """The parameters for the optimisers: the layers' matrices for Muon, the rest for AdamW.

    Args:
        tower: The vision tower.
        heads: What reads it.
        lr: AdamW's peak learning rate.
        muon: Muon's; 0 leaves everything to AdamW.
    """
    rest = list(heads.parameters())
    matrices: list[nn.Parameter] = []
    for name, parameter in tower.named_parameters():
        is_matrix = muon and parameter.ndim == 2 and ".layers." in name
        (matrices if is_matrix else rest).append(parameter)
    found: list[dict[str, Any]] = [{"params": rest, "lr": lr}]
    return [*found, {"params": matrices, "lr": muon, "muon": True}] if matrices else found


def measure(model: Any, heads: Heads, *, batches: int = 8, batch: int = 250) -> dict[str, float]:
    """Accuracies on pictures of the split for validation, words unseen: as `tower_loss` has them."""
    every = []
    with torch.inference_mode():
        for number in range(batches):
            every.append(tower_loss(model, heads, Pictures(batches, batch, "val")[number])[1])
    return {name: round(sum(figures[name] for figures in every) / batches, 4) for name in every[0]}
