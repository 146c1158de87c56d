"""Pairs with earlier turns: the last answer is what is preferred, the turns before it are its prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from stic_eval.images import image_ref
from stic_eval.models.hf_model import HFModel
from stic_eval.training.dpo import preference_collator
from stic_eval.training.hyperparameters import PairFilter
from stic_eval.training.preference_pairs import AnsweredPair, open_pairs, write_made


@pytest.fixture(scope="module")
def hf(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu")


def test_the_last_answer_alone_is_scored(hf: HFModel, photos: Path, tmp_path: Path) -> None:
    image = image_ref("0.png", photos)
    earlier = (("user", "what is it?"), ("assistant", "two blue dots"))
    pairs = [
        AnsweredPair(image, "where?", "a red box", "a wall", history=history) for history in ((), earlier)
    ]
    write_made(pairs, tmp_path / "pairs.parquet", PairFilter())
    rows = open_pairs(tmp_path / "pairs.parquet", tmp_path / "rows")
    scored, seen = [], []
    for row in rows:
        batch = preference_collator(hf.processor)([row])
        tokens = [
            ids[mask == 1] for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
        ]
        scored.append([hf.processor.tokenizer.decode(own) for own in tokens])
        seen.append(hf.processor.tokenizer.decode(batch["input_ids"][0]))
    assert scored[0] == scored[1]
    assert ["red box" in scored[1][0], "wall" in scored[1][1]] == [True, True]
    assert ["blue dots" in text for text in seen] == [False, True]
