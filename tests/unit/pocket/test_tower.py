"""What the pocket model's tower is trained on: labels that say what is drawn where."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from stic_eval.pocket import tower, world
from stic_eval.pocket.tower import IGNORED, LETTER_HEADS, Heads, Pictures, labels, tower_loss


def test_every_letter_has_the_label_of_its_slot() -> None:
    scene = world.Scene("day", (world.Thing(0, "star", "red", "small"),), "kevo", 2)
    found = labels(scene)
    spelled = [found[head][patch] for patch in range(6, 9) for head in LETTER_HEADS]
    assert spelled == [0, *(1 + world.LETTERS.index(letter) for letter in "kevo"), 0]
    assert not any(found[head][patch] for head in LETTER_HEADS for patch in range(6))
    assert (found["shape"][0], found["color"][0], found["size"][0]) == (4, 1, 1)
    assert set(found["value/red"]) == {IGNORED}


def test_every_patch_of_a_chart_has_all_values() -> None:
    found = labels(world.Chart("line", (("red", 20), ("blue", 1), ("green", 7))))
    for color, value in {"red": 20, "blue": 1, "green": 7, "orange": 0}.items():
        assert found[f"value/{color}"] == [value] * 9
    assert set(found["letter/0"]) == {IGNORED}
    assert set(found["kind"]) == {4}


def test_all_labels_have_a_class() -> None:
    batch = Pictures(2, 100)[1]
    assert batch["pixels"].shape == (100, 3, world.SIZE, world.SIZE)
    for name, size in Heads.SIZES.items():
        assert batch[name].shape == (100, 9)
        assert all(value == IGNORED or 0 <= value < size for value in batch[name].flatten().tolist())


class Oracle(torch.nn.Module):
    """Heads that say what a batch's labels say, but for what is changed in `wrong`."""

    def __init__(self, batch: dict[str, Tensor]) -> None:
        super().__init__()
        self.says = {name: batch[name].clamp(min=0) for name in Heads.SIZES}

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        return {
            name: 20.0 * torch.nn.functional.one_hot(self.says[name], size)
            for name, size in Heads.SIZES.items()
        }


def blind(pixel_values: Tensor, output_hidden_states: bool) -> Any:
    return SimpleNamespace(hidden_states=[torch.zeros(len(pixel_values), 10, 4)])


MODEL = SimpleNamespace(model=SimpleNamespace(vision_tower=blind))


def test_accuracies_are_of_what_is_there() -> None:
    batch = Pictures(1, 50)[0]
    heads: Any = Oracle(batch)
    loss, figures = tower_loss(MODEL, heads, batch)
    assert float(loss) < 1e-3
    assert set(figures) == {"shape", "color", "size", "kind", "value", "chart", "letter", "word"}
    assert set(figures.values()) == {1.0}
    # One letter of one sign is misread: one word of all signs is, and nothing else.
    signs = int((torch.stack([batch[head] for head in LETTER_HEADS]) > 0).any(0).any(1).sum())
    row, patch = (batch["letter/0"] > 0).nonzero()[0].tolist()
    heads.says["letter/0"][row, patch] = 0
    worse = tower_loss(MODEL, heads, batch)[1]
    assert math.isclose(worse["word"], 1 - 1 / signs, rel_tol=1e-6)
    assert 1 - 1 / signs < worse["letter"] < 1
    assert {name for name in figures if worse[name] != figures[name]} == {"letter", "word"}


def test_a_letter_seen_where_none_is_spoils_the_word() -> None:
    batch = Pictures(1, 50)[0]
    heads: Any = Oracle(batch)
    row = int((batch["letter/0"] > 0).any(1).nonzero()[0])
    empty = int((batch["letter/1"][row] == 0).nonzero()[0])
    heads.says["letter/1"][row, empty] = 3
    assert tower_loss(MODEL, heads, batch)[1]["word"] < 1


def small_tower() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=72,
            patch_size=24,
        )
    )  # fmt: skip


def test_muon_has_the_matrices_of_the_layers_and_adamw_the_rest() -> None:
    vision, heads = small_tower(), Heads(8)
    everything = {id(p) for p in [*vision.parameters(), *heads.parameters()]}
    rest, matrices = tower.parameter_groups(vision, heads, 1e-3, 0.01)
    assert matrices["muon"] and len(matrices["params"]) == 2 * 6
    assert {id(p) for group in (rest, matrices) for p in group["params"]} == everything
    (alone,) = tower.parameter_groups(vision, heads, 1e-3, 0.0)
    assert {id(p) for p in alone["params"]} == everything


def test_layers_add_nothing_before_the_first_step() -> None:
    vision = small_tower()
    tower.zero_outputs(vision)
    states = vision(pixel_values=torch.randn(2, 3, 72, 72), output_hidden_states=True).hidden_states
    assert len(states) == 3
    assert torch.equal(states[0], states[-1])


def test_validation_measures_unseen_pictures() -> None:
    """A tower that knows nothing reads nothing."""
    model = SimpleNamespace(model=SimpleNamespace(vision_tower=small_tower()))
    found = tower.measure(model, Heads(8), batches=1, batch=40)
    assert found["word"] == found["chart"] == 0.0
    assert 0 <= found["kind"] < 0.9
    val = Pictures(1, 40, "val")[0]["pixels"]
    assert not torch.equal(val, Pictures(1, 40)[0]["pixels"])
