"""Preference pairs: what is asked for, and the file that TRL trains on."""

from __future__ import annotations

import io
import random
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from stic_eval.contracts.method import PromptSet
from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.images import image_ref, load_image, ref_from_pil
from stic_eval.store import request_key
from stic_eval.training.hyperparameters import PairSettings
from stic_eval.training.preference_pairs import (
    PairPrompts,
    encode_image,
    open_pairs,
    pair_requests,
    positives,
    write_pairs,
)
from stic_eval.training.prompt_sets import load_prompts
from stic_eval.types import ImageRef

PROMPTS = load_prompts()


def refs(count: int) -> list[ImageRef]:
    return [ImageRef(f"{i:064x}", f"{i}.png", partial(Image.new, "RGB", (8, 8))) for i in range(count)]


def pairs_of(images: list[ImageRef], seed: int = 0, **settings: object) -> list[PairPrompts]:
    return list(pair_requests(images, PROMPTS, PairSettings.model_validate(settings), seed))


def answers_for(pairs: list[PairPrompts]) -> dict[str, str]:
    requests = [request for pair in pairs for request in (pair.chosen, pair.rejected)]
    return {request_key(request): f"answer {number}" for number, request in enumerate(requests)}


def test_roles_are_the_papers() -> None:
    for pair in pairs_of(refs(200)):
        assert pair.prompt in PROMPTS.plain
        assert pair.chosen.messages[0].text == PROMPTS.step_by_step
        assert pair.chosen.images == (pair.image,)
        asked, (shown,) = pair.rejected.messages[0].text, pair.rejected.images
        if pair.negative == "misleading":
            assert asked in PROMPTS.misleading
            assert shown == pair.image
        else:
            assert asked == pair.prompt
            assert shown.source == f"{pair.image.source}#{pair.negative}"
        for request in (pair.chosen, pair.rejected):
            how = request.generation
            assert (how.temperature, how.top_p, how.max_new_tokens) == (0.2, 1.0, 1024)


def test_the_mix_is_half_misleading_and_a_quarter_of_each_corruption() -> None:
    pairs = pairs_of(refs(4000))
    kinds = Counter(pair.negative for pair in pairs)
    # Five standard deviations of a binomial: 158 and 137.
    assert abs(kinds["misleading"] - 2000) < 160
    assert abs(kinds["low_res"] - 1000) < 140
    assert abs(kinds["jitter"] - 1000) < 140
    used = Counter(pair.prompt for pair in pairs)
    assert set(used) == set(PROMPTS.plain)
    assert min(used.values()) > 380


@pytest.mark.parametrize(("p", "kinds"), [(0.0, {"misleading"}), (1.0, {"blur"})])
def test_the_mix_can_be_set(p: float, kinds: set[str]) -> None:
    pairs = pairs_of(refs(50), p_corrupt=p, corruptions={"blur": 2.0, "noise": 0.0})
    assert {pair.negative for pair in pairs} == kinds


def test_order_and_company_change_nothing_and_the_seed_does() -> None:
    images = refs(40)
    mixed = random.Random(0).sample(images, 20)
    whole = {pair.image.sha256: pair for pair in pairs_of(images)}
    assert all(pair == whole[pair.image.sha256] for pair in pairs_of(mixed))
    assert [p.prompt for p in pairs_of(images, seed=1)] != [p.prompt for p in pairs_of(images)]
    seeds = [r.generation.seed for pair in whole.values() for r in (pair.chosen, pair.rejected)]
    assert len(set(seeds)) == 80


def test_greedy_requests_carry_no_seed() -> None:
    assert {pair.chosen.generation.seed for pair in pairs_of(refs(5), temperature=0)} == {0}


def test_the_file_is_what_datasets_and_trl_read(photos: Path, tmp_path: Path) -> None:
    from trl.data_utils import is_conversational

    images, _ = scan_images(photos)
    pairs = pairs_of(images)
    answers = answers_for(pairs)
    path = tmp_path / "pairs.parquet"
    report = write_pairs(pairs, answers, path, PairSettings())
    assert report.pairs == len(images) == sum(report.negatives.values())
    table = open_pairs(path, tmp_path / "cache")
    assert len(table) == len(images)
    for row, pair in zip(table, pairs, strict=True):
        assert is_conversational(row)
        assert row["prompt"] == [{"role": "user", "content": pair.prompt}]
        assert row["chosen"] == [{"role": "assistant", "content": answers[request_key(pair.chosen)]}]
        assert row["rejected"] == [{"role": "assistant", "content": answers[request_key(pair.rejected)]}]
        assert row["images"][0].tobytes() == pair.image.load().tobytes()
        meta = (row["image_sha256"], row["source"], row["negative"], row["seed"])
        assert meta == (pair.image.sha256, pair.image.source, pair.negative, pair.seed)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_trls_own_trainer_takes_the_file(photos: Path, tiny_vlm: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor
    from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

    pairs = pairs_of(scan_images(photos)[0][:2])
    write_pairs(pairs, answers_for(pairs), tmp_path / "pairs.parquet", PairSettings())
    rows = open_pairs(tmp_path / "pairs.parquet", tmp_path / "cache")
    rows = rows.select_columns(["prompt", "chosen", "rejected", "images"])
    batch = DataCollatorForVisionPreference(AutoProcessor.from_pretrained(tiny_vlm))([rows[0], rows[1]])
    assert batch["input_ids"].shape[0] == batch["pixel_values"].shape[0] == 4


def test_the_preferred_side_can_be_fine_tuned_on(photos: Path, tmp_path: Path) -> None:
    pairs = pairs_of(scan_images(photos)[0])
    answers = answers_for(pairs)
    write_pairs(pairs, answers, tmp_path / "pairs.parquet", PairSettings())
    with positives(tmp_path / "pairs.parquet", tmp_path / "rows") as items:
        for item, pair in zip(items, pairs, strict=True):
            good = answers[request_key(pair.chosen)]
            assert item.turns == (("user", pair.prompt), ("assistant", good))
            assert item.image.load().tobytes() == pair.image.load().tobytes()
    assert not (tmp_path / "rows").exists()


def test_equal_and_empty_answers_are_kept_unless_filtered(tmp_path: Path) -> None:
    pairs = pairs_of(refs(6))
    answers = answers_for(pairs)
    answers[request_key(pairs[0].chosen)] = answers[request_key(pairs[0].rejected)] = ""
    every = write_pairs(pairs, answers, tmp_path / "a.parquet", PairSettings())
    assert (every.pairs, every.identical, every.dropped) == (6, 1, 0)
    some = write_pairs(pairs, answers, tmp_path / "b.parquet", PairSettings(filter="identical"))
    assert (some.pairs, some.identical, some.dropped) == (5, 1, 1)


def test_images_are_kept_as_the_model_saw_them(tmp_path: Path) -> None:
    plain = Image.effect_noise((24, 16), 90).convert("RGB")
    plain.save(tmp_path / "plain.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    plain.save(tmp_path / "turned.jpg", exif=turned)
    plain.convert("CMYK").save(tmp_path / "cmyk.jpg")
    plain.convert("RGBA").save(tmp_path / "alpha.png")
    plain.convert("L").save(tmp_path / "grey.jpg")
    for file in tmp_path.iterdir():
        ref = image_ref(file)
        with Image.open(io.BytesIO(encode_image(ref))) as opened:
            assert opened.mode == "RGB"
            assert opened.tobytes() == load_image(file).tobytes(), file.name
    assert encode_image(image_ref(tmp_path / "plain.jpg")) == (tmp_path / "plain.jpg").read_bytes()
    drawn = ref_from_pil(plain, "drawn")
    with Image.open(io.BytesIO(encode_image(drawn))) as opened:
        assert opened.tobytes() == plain.tobytes()


def test_a_file_that_changed_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.jpg")
    ref = image_ref("a.jpg", tmp_path)
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg: has changed"):
        encode_image(ref)


@pytest.mark.parametrize(
    ("corruptions", "said"), [({"fog": 1.0}, "fog is no"), ({"blur": -1.0}, "negative"), ({}, "above 0")]
)
def test_impossible_corruptions_are_refused(corruptions: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PairSettings(corruptions=corruptions)


def test_a_wording_is_part_of_what_is_asked() -> None:
    other = PromptSet(step_by_step="Slowly.", plain=("What?",), misleading=("Invent.",))
    (pair,) = pair_requests(refs(1), other, PairSettings(p_corrupt=0), 0)
    assert (pair.chosen.messages[0].text, pair.rejected.messages[0].text) == ("Slowly.", "Invent.")
