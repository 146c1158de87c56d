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
    OBJECT_SIZES,
    SETTINGS,
    SHAPES,
    WORDS,
    Chart,
    Spec,
    draw,
    draw_spec,
)

IGNORED = -100


def pixels(images: list[Any]) -> Tensor:
    """Pictures as the processor gives them to the model: (n, 3, size, size) in [-1, 1]."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


class Heads(nn.Module):
    """Reads off every patch what its cell, its row and the whole picture hold."""

    SIZES = {"shape": 7, "color": 7, "size": 3, "kind": 6, "sign": 33} | {f"value/{c}": 10 for c in COLORS}

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
        found = {name: [IGNORED] * n for name in ("shape", "color", "size", "sign")}
        found["kind"] = [len(SETTINGS) + CHARTS.index(spec.kind)] * n
        return found | {f"value/{c}": [values.get(c, 0)] * n for c in COLORS}
    found = {name: [0] * n for name in ("shape", "color", "size", "sign")}
    for thing in spec.things:
        found["shape"][thing.cell] = 1 + SHAPES.index(thing.shape)
        found["color"][thing.cell] = 1 + list(COLORS).index(thing.color)
        found["size"][thing.cell] = 1 + OBJECT_SIZES.index(thing.size)
    if spec.sign is not None:
        for cell in range(3 * spec.sign_row, 3 * spec.sign_row + 3):
            found["sign"][cell] = 1 + WORDS.index(spec.sign)
    found["kind"] = [list(SETTINGS).index(spec.setting)] * n
    return found | {f"value/{c}": [IGNORED] * n for c in COLORS}


class Pictures(Dataset[dict[str, Tensor]]):
    """Batches for the tower; the batch of a step depends on its number alone."""

    def __init__(self, steps: int, batch: int) -> None:
        self.steps, self.batch = steps, batch

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        specs = []
        for i in range(self.batch):
            kind = ("any", "many", "sign", "chart", "any")[i % 5]
            specs.append(draw_spec("train", 500_000_000 + step * self.batch + i, kind))
        every = [labels(spec) for spec in specs]
        images = pixels([draw(spec, step * 1000 + i) for i, spec in enumerate(specs)])
        return {"pixels": images} | {name: torch.tensor([x[name] for x in every]) for name in Heads.SIZES}


def tower_loss(model: Any, heads: Heads, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Mean cross-entropy of the heads, and their accuracies."""
    features = model.model.vision_tower(pixel_values=batch["pixels"], output_hidden_states=True)
    logits = heads(features.hidden_states[-1][:, 1:])
    losses, right = [], {}
    for name, values in logits.items():
        target = batch[name]
        losses.append(F.cross_entropy(values.flatten(0, 1).float(), target.flatten(), ignore_index=IGNORED))
        # Accuracy on what is there: most cells are empty, most rows have no sign.
        there = target > 0 if name != "kind" else target >= 0
        right[name] = float((values.argmax(-1) == target)[there].float().mean())
    return torch.stack(losses).nan_to_num().sum(), right
