"""Noise on the pixel tensor: the formula, its seeds, and that every way of asking sees the same."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.images import diffuse
from stic_eval.models.diffusion import STEPS, add_noise, diffuse_pixels
from stic_eval.models.hf_model import HFModel
from stic_eval.models.image_encoding import encode_image
from stic_eval.store import request_key
from stic_eval.training.hyperparameters import PairFilter
from stic_eval.training.preference_pairs import AnsweredPair, write_made
from stic_eval.types import Generation, ImageRef, Message, Request
from tests.support.judge_server import says, serving
from tests.support.questions import answers, request
from tests.unit.models.test_server_model import endpoint

WORDY = Generation(24)


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


def ref(name: str = "a") -> ImageRef:
    return ImageRef(name * 64, f"{name}.png", partial(Image.new, "RGB", (8, 8), "red"))


# ---------------------------------------------------------------- the formula


def kept(step: int) -> float:
    """The share of the variance that is the image's after a step, from the definition."""
    share = 1.0
    for number in range(step + 1):
        x = -6 + 12 * number / 999
        share *= 1 - (1e-5 + (0.005 - 1e-5) / (1 + np.exp(-x)))
    return float(share)


@pytest.mark.parametrize("step", [0, 1, 499, 500, 800, 999])
def test_an_images_share_is_as_the_schedule_has_it(step: int) -> None:
    ones, none = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    assert diffuse_pixels(ones, none, step).tolist() == pytest.approx([kept(step) ** 0.5] * 4, rel=1e-9)
    assert diffuse_pixels(none, ones, step).tolist() == pytest.approx([(1 - kept(step)) ** 0.5] * 4, rel=1e-9)


@settings(deadline=None)
@given(step=st.integers(0, STEPS - 1))
def test_of_unit_variance_all_stays_of_unit_variance_and_noise_grows(step: int) -> None:
    one, none = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    image, noise = float(diffuse_pixels(one, none, step)), float(diffuse_pixels(none, one, step))
    assert image**2 + noise**2 == pytest.approx(1)
    assert step == 0 or noise > float(diffuse_pixels(none, one, step - 1))


def test_the_first_step_leaves_it_nearly_clean_and_the_last_hardly_anything() -> None:
    clean = torch.rand(3, 32, 32) * 4 - 2
    noise = torch.randn(3, 32, 32)

    def like(step: int) -> float:
        return float(
            torch.corrcoef(torch.stack([clean.flatten(), diffuse_pixels(clean, noise, step).flatten()]))[0, 1]
        )

    assert like(0) > 0.999
    assert like(0) > like(500) > like(800) > like(999)
    assert like(999) < 0.5


# ---------------------------------------------------------------- what it is put onto


def test_it_goes_onto_numbers_with_fractions_and_nothing_else() -> None:
    inputs = {
        "pixel_values": torch.zeros(1, 3, 8, 8),
        "image_sizes": torch.tensor([[8, 8]]),
        "pixel_mask": torch.ones(1, 8, 8, dtype=torch.bool),
        "names": ["x"],
    }
    found = add_noise(inputs, [diffuse(ref(), 999, 1)])
    assert not torch.equal(found["pixel_values"], inputs["pixel_values"])
    assert float(found["pixel_values"].std()) == pytest.approx((1 - kept(999)) ** 0.5, rel=0.2)
    assert all(found[name] is inputs[name] for name in inputs if name != "pixel_values")
    assert float(inputs["pixel_values"].abs().max()) == 0  # the input is left as it was
    assert add_noise(inputs, [ref()])["pixel_values"] is inputs["pixel_values"]
    assert add_noise(inputs, [])["pixel_values"] is inputs["pixel_values"]


def test_the_same_seed_is_the_same_noise() -> None:
    inputs = {"pixel_values": torch.zeros(2, 3, 8, 8), "patches": torch.zeros(5)}

    def noise(image: ImageRef) -> list[float]:
        found = add_noise(inputs, [image])
        return [*found["pixel_values"].flatten().tolist(), *found["patches"].tolist()]

    state = torch.get_rng_state()
    assert noise(diffuse(ref(), 500, 1)) == noise(diffuse(ref(), 500, 1))
    assert noise(diffuse(ref(), 500, 1)) != noise(diffuse(ref(), 500, 2))
    assert noise(diffuse(ref(), 500, 1)) != noise(diffuse(ref(), 501, 1))
    assert torch.equal(state, torch.get_rng_state())  # nobody else's draws are moved


@settings(deadline=None)
@given(
    one=st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 3)),
    other=st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 3)),
)
def test_a_noisy_image_is_another_by_content(one: tuple[str, int, int], other: tuple[str, int, int]) -> None:
    first, second = (diffuse(ref(name), step, seed) for name, step, seed in (one, other))
    assert (first.sha256 == second.sha256) == (one == other)
    assert first.sha256 != ref(one[0]).sha256
    keys = {request_key(request("?", image)) for image in (ref(one[0]), first)}
    assert len(keys) == 2
    assert first.diffusion == one[1:]


def test_several_images_of_which_one_is_noisy_are_refused(tiny_vlm: Path, images: list[ImageRef]) -> None:
    both = (images[0], diffuse(images[1], 500, 0))
    with pytest.raises(ValueError, match="only image"):
        add_noise({"pixel_values": torch.zeros(2, 3)}, both)
    asked = Request((Message("user", "What?"),), both, WORDY)
    model = HFModel.load(str(tiny_vlm), device="cpu")
    for way in (model.generate, model.one_by_one):
        with pytest.raises(ValueError, match="only image"):
            list(way([asked]))
    with pytest.raises(ValueError, match="only image"):
        list(model.likelihoods([(asked, "a box")]))


# ---------------------------------------------------------------- as the model sees it


def plainly(model: HFModel, text: str, image: ImageRef) -> str:
    """Transformers' own answer, noise put onto the processor's pixels by hand."""
    step, seed = image.diffusion or (0, 0)
    inputs = model.processor(
        text=[f"USER: <image>\n{text} ASSISTANT:"], images=[[image.load()]], return_tensors="pt"
    )
    pixels = inputs["pixel_values"]
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed))
    inputs["pixel_values"] = pixels * kept(step) ** 0.5 + noise * (1 - kept(step)) ** 0.5
    with torch.inference_mode():
        output = model.model.generate(**inputs, max_new_tokens=24, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1] :]
    return str(model.processor.tokenizer.decode(new, skip_special_tokens=True)).strip()


def noisy(images: Sequence[ImageRef], step: int = 500) -> list[ImageRef]:
    return [diffuse(image, step, number) for number, image in enumerate(images)]


@pytest.mark.parametrize("reuse", [True, False, "always"])
def test_every_way_of_asking_sees_the_same_noise(tiny_vlm: Path, images: list[ImageRef], reuse: Any) -> None:
    """Beside the clean image as well, and when that was asked about before: its features are not used."""
    model = HFModel.load(str(tiny_vlm), device="cpu", reuse=reuse)
    clean = [request(text, image, WORDY) for image in images for text in ("What?", "Is it red?")]
    before = answers(model, clean)
    spoilt = [request(text, image, WORDY) for image in noisy(images) for text in ("What?", "Is it red?")]
    found = answers(model, [*clean, *spoilt])
    assert {one: found[one] for one in clean} == before
    alone = {one: (a.text, a.n_tokens, a.finish_reason) for one, a in model.one_by_one(spoilt)}
    assert {one: found[one] for one in spoilt} == alone
    for one in spoilt[::5]:
        assert found[one][0] == plainly(model, one.messages[0].text, one.images[0])
    differ = sum(found[a] != found[b] for a, b in zip(clean, spoilt, strict=True))
    assert differ > len(clean) / 2
    # And the other way round, the noisy ones first.
    fresh = HFModel.load(str(tiny_vlm), device="cpu", reuse=reuse)
    assert answers(fresh, [*spoilt, *clean]) == found


def test_the_plain_way_takes_noisy_requests_among_others(tiny_vlm: Path, images: list[ImageRef]) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu", batch_size=8)
    asked = [request("What?", image, WORDY) for image in (*images, *noisy(images))]
    expected = answers(model, asked)
    model._loaded.ways = frozenset()  # as of a model that the engine does not fit
    assert answers(model, asked) == expected


def test_likelihoods_are_of_the_noisy_image(tiny_vlm: Path, images: list[ImageRef]) -> None:
    model = HFModel.load(str(tiny_vlm), device="cpu")
    asked = [(request("What?", image), "a red box") for image in (*images, *noisy(images, 999))]
    found = dict(model.likelihoods(asked))
    half = len(images)
    pairs = zip(asked[:half], asked[half:], strict=True)
    assert all(abs(found[a].logp - found[b].logp) > 1e-4 for a, b in pairs)
    alone = {one: dict(model.likelihoods([one]))[one].logp for one in asked}
    assert {one: value.logp for one, value in found.items()} == pytest.approx(alone, rel=1e-5)
    # Hardly any noise is hardly any difference.
    (first, *_) = images
    near = dict(model.likelihoods([(request("What?", diffuse(first, 0, 1)), "a red box")]))
    assert next(iter(near.values())).logp == pytest.approx(found[asked[0]].logp, abs=0.05)


# ---------------------------------------------------------------- outside of this process


def test_a_server_cannot_be_sent_it(images: list[ImageRef]) -> None:
    from stic_eval.models.server_model import ServerModel

    spoilt = diffuse(images[0], 500, 0)
    with pytest.raises(UserError, match=r"0\.png.*noise") as caught:
        encode_image(spoilt)
    assert "\n" not in str(caught.value)
    with serving(says("x")) as server:
        model = ServerModel(endpoint(server))
        with pytest.raises(UserError, match="noise"):
            list(model.generate([request("What?", spoilt)]))


def test_pairs_are_trained_on_the_clean_image(images: list[ImageRef], tmp_path: Path) -> None:
    made = [AnsweredPair(image, "What?", "a", f"b{n}", "diffusion", n) for n, image in enumerate(images)]
    write_made(made, tmp_path / "pairs.parquet", PairFilter())
    rows = pq.read_table(tmp_path / "pairs.parquet").to_pylist()
    for row, image in zip(rows, images, strict=True):
        assert row["images"][0]["bytes"] == encode_image(image)
        shown = Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("RGB")
        assert np.array_equal(np.asarray(shown), np.asarray(image.load()))
        assert (row["image_sha256"], row["negative"]) == (image.sha256, "diffusion")
    with pytest.raises(UserError, match="noise"):
        write_made(
            [AnsweredPair(diffuse(images[0], 1, 1), "?", "a", "b")], tmp_path / "more.parquet", PairFilter()
        )
    assert not (tmp_path / "more.parquet").exists()
