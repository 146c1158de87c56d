"""What the pocket model's decoder is shown: rows of random words, and conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset

from stic_eval.pocket import recall, recipe
from stic_eval.pocket.fit import Phase
from stic_eval.pocket.rows import wordings
from stic_eval.pocket.tower import pixels
from stic_eval.pocket.vocabulary import MARK
from stic_eval.pocket.world import draw

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SKILLS = (*recall.KINDS, *recipe.SKILLS)


class Rows(Dataset[dict[str, Any]]):
    """Batches of `recall`; the step decides the kind of rows."""

    def __init__(self, phase: Phase, pool: str, words: PreTrainedTokenizerFast) -> None:
        self.phase, self.size = phase, len(words)
        self.words = recipe.token_ids(words, recipe.recall_words(pool, words))
        self.letters = recipe.token_ids(words, recall.LETTERS)
        # What takes longest comes most often.
        worded = (*(3 * recall.WORDED), *(4 * ("statement",)))
        self.kinds = recall.DENSE + (worded if pool == "all" else ())
        self.marks = recipe.token_ids(words, recall.MARKS)
        self.vocabulary = {
            k.removeprefix(MARK): v for k, v in words.get_vocab().items() if k.startswith(MARK)
        }

    def __len__(self) -> int:
        return self.phase.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((len(self.words), step))
        kind = self.kinds[rng.integers(len(self.kinds))]
        keys: np.ndarray | None = None
        if kind == "figures":
            ids, columns = recall.figures(self.vocabulary, self.phase.batch, rng)
        elif kind == "statement":
            ids, columns = recall.statements(self.vocabulary, self.words, self.phase.batch, rng)
        else:
            ids, columns, keys = recall.rows(
                kind, self.words, self.letters, self.marks, self.phase.batch, rng
            )
        weights, skills = torch.zeros(ids.shape), torch.full(ids.shape, -1)
        weights[:, columns] = 1.0
        skills[:, columns] = SKILLS.index(kind)
        tokens = torch.from_numpy(ids)
        batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "weights": weights}
        if keys is not None:
            places = [(0, row, int(column)) for row in range(len(ids)) for column in columns]
            asked = F.one_hot(tokens[:, keys], self.size).flatten(0, 1).float()
            batch |= {"clue_places": torch.tensor(places), "clues": asked}
        return batch | {"skills": skills}


class Conversations(Dataset[dict[str, Any]]):
    """Batches of conversations of similar length; the batch of a step depends on its number alone."""

    GROUP = 8  # batches that are drawn at once and sorted by length
    # Every so many batches one is of `recall`, which is forgotten within 200 steps of reading otherwise.
    REHEARSAL = {"reading": 2, "joint": 4}  # noqa: RUF012

    def __init__(self, phase: Phase, words: PreTrainedTokenizerFast) -> None:
        self.phase = phase
        self.words = words
        self.ask = wordings()
        self.rows = Rows(phase, "all", words)
        self._group: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        return self.phase.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        every = self.REHEARSAL[self.phase.name]
        if step % every == every - 1:
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
            for which, place, clue in text.clues:
                places.append((which, row, place))
                clues.append(torch.bincount(torch.tensor(clue), minlength=len(self.words)) / len(clue))
            if example.seen:
                images.append(draw(example.spec, example.seed))
        batch = {"input_ids": ids, "attention_mask": mask, "weights": weights, "skills": skills}
        if places:
            batch |= {"clue_places": torch.tensor(places), "clues": torch.stack(clues)}
        return batch | ({"pixel_values": pixels(images)} if images else {})
