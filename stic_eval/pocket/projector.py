"""The training between tower and decoder: a patch is projected onto the words for what it shows.

As LLaVA's first stage does with captions, it lets a decoder that reads begin with pictures. Here it is known
what every patch shows: the projected patch is to be the sum of the embeddings of these words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stic_eval.pocket.recipe import N_PATCHES
from stic_eval.pocket.tower import Pictures, pixels
from stic_eval.pocket.vocabulary import MARK
from stic_eval.pocket.world import Chart, Spec, draw, draw_spec, first_slot

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SECOND = 0.5  # how much the second of two letters counts, which tells it from the first


def shown(spec: Spec) -> list[dict[str, float]]:
    """The tokens for what each patch shows: an object, two letters of a sign, or the scene; a chart's value.

    Each value of a chart has a row of patches.
    """
    if isinstance(spec, Chart):
        share = N_PATCHES // len(spec.values)
        values = [[spec.kind, color, str(value)] for color, value in spec.values]
        return [dict.fromkeys([MARK + word for word in row], 1.0) for row in values for _ in range(share)]
    found: list[dict[str, float]] = [{} for _ in range(N_PATCHES)]
    for thing in spec.things:
        found[thing.cell] = dict.fromkeys([MARK + thing.size, MARK + thing.color, MARK + thing.shape], 1.0)
    if spec.sign is not None:
        for slot, letter in enumerate(spec.sign, start=first_slot(spec.sign)):
            patch = found[3 * spec.sign_row + slot // 2]
            patch[letter] = patch.get(letter, 0.0) + (SECOND if patch else 1.0)
    return [words or {MARK + spec.setting: 1.0} for words in found]


class Patches(Dataset[dict[str, Tensor]]):
    """Batches of pictures and what their patches show; the batch of a step depends on its number alone."""

    def __init__(self, steps: int, batch: int, words: PreTrainedTokenizerFast) -> None:
        self.steps, self.batch, self.vocabulary = steps, batch, words.get_vocab()

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        images, amounts = [], torch.zeros(self.batch, N_PATCHES, len(self.vocabulary))
        for i in range(self.batch):
            number = 700_000_000 + step * self.batch + i
            spec = draw_spec("train", number, Pictures.KINDS[i % len(Pictures.KINDS)])
            images.append(draw(spec, number))
            for patch, tokens in enumerate(shown(spec)):
                for token, amount in tokens.items():
                    amounts[i, patch, self.vocabulary[token]] = amount
        return {"pixels": pixels(images), "amounts": amounts}


def projector_loss(model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, tuple[float, int]]]:
    """Squared distance from the words' embeddings, as a share of what it is where nothing is told apart.

    What all embeddings have in common is most of each; words are summed as deviations from it.

    Args:
        model: The model; tower and embeddings are not trained.
        batch: `pixels` (n, 3, size, size) and `amounts` (n, patches, vocabulary) of each token.

    Returns:
        The loss, and the share of the deviation that is found, of all patches and of those with two letters.
    """
    with torch.no_grad():
        seen = model.model.vision_tower(pixel_values=batch["pixels"], output_hidden_states=True)
        embeddings = model.get_input_embeddings().weight
        common = embeddings.mean(0)
        target = batch["amounts"] @ (embeddings - common)
    found = model.model.multi_modal_projector(seen.hidden_states[-1][:, 1:]) - common
    missed, whole = (found - target).square().sum(-1), target.square().sum(-1)
    letters, gone = (batch["amounts"] == SECOND).any(-1), missed.detach()
    shares = {
        name: (float(1 - gone[part].sum() / whole[part].sum()), 1)
        for name, part in (("patches", torch.ones_like(letters)), ("letters", letters))
        if part.any()
    }
    return missed.sum() / whole.sum(), shares
