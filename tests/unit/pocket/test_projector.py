"""Projected patches: what they are to say, and that the loss and its figures measure it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from stic_eval.pocket import recipe
from stic_eval.pocket.projector import Patches, projector_loss, shown
from stic_eval.pocket.recipe import N_PATCHES
from stic_eval.pocket.vocabulary import MARK
from stic_eval.pocket.world import Chart, Scene, draw_spec


def test_every_object_letter_and_value_is_on_its_patch() -> None:
    seen = Counter[str]()
    for seed in range(200):
        spec = draw_spec("val", seed, ("any", "sign", "chart", "many")[seed % 4])
        patches = shown(spec)
        assert len(patches) == N_PATCHES and all(patches)
        if isinstance(spec, Chart):
            for row, (color, value) in enumerate(spec.values):
                for patch in patches[3 * row : 3 * row + 3]:
                    assert set(patch) == {MARK + spec.kind, MARK + color, f"{MARK}{value}"}
            seen["chart"] += 1
            continue
        assert isinstance(spec, Scene)
        cells = {thing.cell for thing in spec.things}
        for thing in spec.things:
            assert set(patches[thing.cell]) == {MARK + thing.size, MARK + thing.color, MARK + thing.shape}
        row = patches[3 * spec.sign_row : 3 * spec.sign_row + 3]
        letters = [letter for patch in row for letter in patch if not letter.startswith(MARK)]
        assert set(letters) == set(spec.sign or "")
        for place, patch in enumerate(patches):
            if place not in cells and not any(token in (spec.sign or "") for token in patch):
                assert patch == {MARK + spec.setting: 1.0}
        seen["sign" if spec.sign else "scene"] += 1
    assert min(seen.values()) > 20 and len(seen) == 3


def test_the_second_of_two_letters_counts_half() -> None:
    spec = Scene("day", (), "bado", 2)
    assert shown(spec)[6:] == [{"b": 1.0}, {"a": 1.0, "d": 0.5}, {"o": 1.0}]


def test_the_loss_is_nothing_where_the_words_are_found(pocket_words: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    model = recipe.build_model(pocket_words)
    batch = Patches(1, 6, pocket_words)[0]
    embeddings = model.get_input_embeddings().weight.detach()
    common = embeddings.mean(0)
    deviations = batch["amounts"] @ (embeddings - common)
    loss, _ = projector_loss(model, batch)
    assert loss.requires_grad
    # Nothing told apart, half of it, and all.
    for share, missed in ((0.0, 1.0), (0.5, 0.25), (1.0, 0.0)):
        model.model.multi_modal_projector = Exactly(common + share * deviations)
        loss, figures = projector_loss(model, batch)
        assert loss.item() == pytest.approx(missed, abs=1e-6)
        for name in ("patches", "letters"):
            assert figures[name] == (pytest.approx(1 - missed, abs=1e-5), 1)


def test_batches_depend_on_the_step_alone(pocket_words: PreTrainedTokenizerFast) -> None:
    one, other = Patches(9, 3, pocket_words), Patches(9, 3, pocket_words)
    first = one[4]
    other[2]
    assert all(torch.equal(other[4][name], first[name]) for name in first)
    assert not torch.equal(one[5]["pixels"], first["pixels"])


class Exactly(nn.Module):
    """Projects everything to what is given."""

    def __init__(self, found: torch.Tensor) -> None:
        super().__init__()
        self.found = found

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return self.found
