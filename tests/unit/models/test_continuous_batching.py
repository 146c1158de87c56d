"""The engine: what is computed once, memory that runs out, streams, and models that it does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import torch

from stic_eval.errors import UserError
from stic_eval.image_sources import scan_images
from stic_eval.models import request_feed
from stic_eval.models.free_memory import RowLimit
from stic_eval.models.hf_model import HFModel
from stic_eval.types import Generation, ImageRef, Request, Sample
from tests.support.questions import QUESTIONS, TWELVE, answers, mixed, request
from tests.support.scripted import solved as ask


@pytest.fixture(scope="module")
def images(photos: Path) -> list[ImageRef]:
    return scan_images(photos)[0]


def load(folder: Path, **how: Any) -> HFModel:
    return HFModel.load(str(folder), device="cpu", **how)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images that the tower is given from now on, call by call."""
    from transformers.models.clip.modeling_clip import CLIPVisionModel

    real, seen = CLIPVisionModel.forward, []

    @wraps(real)
    def forward(self: Any, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(pixel_values))
        return real(self, pixel_values, *args, **kwargs)

    monkeypatch.setattr(CLIPVisionModel, "forward", forward)
    return seen


def tokens_computed(model: HFModel) -> list[int]:
    """Tokens that the decoder is given from now on, row by row, padding included."""
    real, seen = model.model.forward, []

    @wraps(real)
    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs["input_ids"].numel())
        return real(*args, **kwargs)

    model.model.forward = forward
    return seen


# ---------------------------------------------------------------- what is computed once


def test_an_image_is_encoded_once(
    tiny_vlm: Path, images: list[ImageRef], adapters: tuple[Path, Path], encoded: list[int]
) -> None:
    model = load(tiny_vlm, batch_size=3)
    assert model.ways == {"loop", "prefix"}
    encoded.clear()
    first = answers(model, mixed(images))
    assert sum(encoded) == len(images)
    assert answers(model, mixed(images)) == first
    answers(model.with_adapter(adapters[0]), mixed(images))  # the tower is frozen: it sees the same
    assert sum(encoded) == len(images)
    apart = load(tiny_vlm, batch_size=3, reuse=False)
    assert apart.ways
    encoded.clear()
    assert answers(apart, mixed(images)) == first
    assert sum(encoded) == len(images) * len(QUESTIONS)


def test_what_an_adapter_of_the_tower_sees_is_its_own(
    tiny_vlm: Path, images: list[ImageRef], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    base = AutoModelForImageTextToText.from_pretrained(tiny_vlm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        peft = get_peft_model(base, LoraConfig(r=4, target_modules=["linear_1", "linear_2"]))
        for name, parameter in peft.named_parameters():
            if "lora" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    peft.peft_config["default"].base_model_name_or_path = "tiny"
    peft.save_pretrained(tmp_path / "projector", save_embedding_layers=False)
    model = load(tiny_vlm)
    base_answers = answers(model, mixed(images))
    changed = answers(model.with_adapter(tmp_path / "projector"), mixed(images))
    assert changed == answers(load(tiny_vlm, reuse=False).with_adapter(tmp_path / "projector"), mixed(images))
    assert changed != base_answers
    assert answers(model, mixed(images)) == base_answers


def test_a_prompt_up_to_its_image_is_computed_once(tiny_vlm: Path, images: list[ImageRef]) -> None:
    requests = [request(text, images[0], Generation(1)) for text in QUESTIONS]
    shared, apart = load(tiny_vlm, reuse="always"), load(tiny_vlm, reuse=False)
    assert shared.ways
    assert apart.ways
    few, all_of_them = tokens_computed(shared), tokens_computed(apart)
    assert answers(shared, requests) == answers(apart, requests)
    assert sum(few) < sum(all_of_them)
    few.clear()
    later = [request("And now?", images[0], Generation(1)), request("Why?", images[0], Generation(1))]
    assert answers(shared, later) == answers(apart, later)
    assert max(few) < len("USER: And now? ASSISTANT:") * 2  # no image token among them


def test_describing_and_answering_share_the_image(
    tiny_vlm: Path, images: list[ImageRef], encoded: list[int]
) -> None:
    samples = [Sample(str(n), (images[n // 2],), f"Question {n}?", "x") for n in range(2 * len(images))]

    def solved(model: HFModel) -> dict[str, tuple[str | None, str]]:
        how = {"prompt": "Describe.", "max_new_tokens": 20}
        stream = ask(samples, model, TWELVE, "describe_and_respond", **how)
        return {sample.id: (description, answer.text) for sample, description, answer in stream}

    model = load(tiny_vlm, reuse="always", batch_size=4)
    assert model.ways
    encoded.clear()
    found = solved(model)
    assert len(found) == len(samples)
    assert sum(encoded) == len(images)
    assert found == solved(load(tiny_vlm, reuse=False, batch_size=64))


# ---------------------------------------------------------------- streams


def test_requests_are_taken_as_they_are_needed(tiny_vlm: Path, images: list[ImageRef]) -> None:
    taken = 0

    def stream() -> Iterator[Request]:
        nonlocal taken
        for number in range(5 * request_feed.WINDOW):
            taken += 1
            yield request(f"{number}?", images[number % 3], Generation(1))

    model = load(tiny_vlm)
    answered = 0
    for _ in model.generate(stream()):
        answered += 1
        assert taken - answered <= 2 * request_feed.WINDOW
    assert answered == 5 * request_feed.WINDOW


def test_views_that_are_asked_in_turn_keep_their_adapters(
    tiny_vlm: Path, images: list[ImageRef], adapters: tuple[Path, Path]
) -> None:
    requests = mixed(images)
    base = load(tiny_vlm, batch_size=4)
    views = [base, *(base.with_adapter(adapter) for adapter in adapters)]
    alone = [answers(view, requests) for view in views]
    streams = [view.generate(requests) for view in views]
    found: list[dict[Request, tuple[str, int, str]]] = [{}, {}, {}]
    for _ in requests:
        for stream, own in zip(streams, found, strict=True):
            asked, a = next(stream)
            own[asked] = (a.text, a.n_tokens, a.finish_reason)
    assert found == alone


def test_a_consumer_that_stops_listening_leaves_the_model_as_it_was(
    tiny_vlm: Path, images: list[ImageRef]
) -> None:
    model = load(tiny_vlm, batch_size=4)
    whole = answers(model, mixed(images))
    stream = model.generate(mixed(images))
    next(stream)
    stream.close()
    assert answers(model, mixed(images)) == whole


# ---------------------------------------------------------------- memory


def narrow(model: HFModel, most: int) -> list[int]:
    """A memory that holds so many rows at a time; stands in for a GPU's, which a test cannot fill."""
    assert model.ways
    real, rows = model.model.forward, []

    @wraps(real)
    def forward(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        if rows[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    model.model.forward = forward
    return rows


@pytest.mark.parametrize("batch_size", [8, "auto"])
def test_what_does_not_fit_is_done_in_smaller_parts(
    tiny_vlm: Path, images: list[ImageRef], batch_size: int | str
) -> None:
    requests = mixed(images)
    expected = answers(load(tiny_vlm), requests)
    small = load(tiny_vlm, batch_size=batch_size)
    rows = narrow(small, 4)
    assert answers(small, requests) == expected
    failures = sum(count > 4 for count in rows)
    assert 1 <= failures <= 8
    rows.clear()
    assert answers(small, requests) == expected
    # What has been found out is not forgotten; when all has gone well for a while, more is tried once.
    assert sum(count > 4 for count in rows) <= 1


def test_memory_that_runs_out_between_two_tokens_costs_no_answer(
    tiny_vlm: Path, images: list[ImageRef]
) -> None:
    requests = mixed(images)
    expected = answers(load(tiny_vlm), requests)
    small = load(tiny_vlm, batch_size=16)
    assert small.ways
    real, calls = small.model.forward, []

    @wraps(real)
    def forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs["input_ids"].shape)
        if calls[-1][1] == 1 and calls[-1][0] > 3 and len(calls) % 5 == 0:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        return real(*args, **kwargs)

    small.model.forward = forward
    assert answers(small, requests) == expected


def test_a_request_that_does_not_fit_alone_is_one_line(tiny_vlm: Path, images: list[ImageRef]) -> None:
    model = load(tiny_vlm, batch_size=4)
    narrow(model, 0)
    with pytest.raises(
        UserError, match="one request does not fit in the memory of cpu; lower max_new_tokens"
    ):
        list(model.generate(mixed(images)))


def test_other_errors_are_not_taken_for_memory(tiny_vlm: Path, images: list[ImageRef]) -> None:
    model = load(tiny_vlm)
    assert model.ways

    def forward(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("device-side assert")

    model.model.forward = forward
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(model.generate(mixed(images)))


# ---------------------------------------------------------------- models that it does not fit


def test_a_model_of_another_kind_is_left_to_transformers(
    tiny_vlm: Path, images: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval.models import vision

    requests = mixed(images)
    expected = answers(load(tiny_vlm), requests)
    monkeypatch.setattr(vision, "encoder", lambda model: None)
    other = load(tiny_vlm, batch_size=5)
    assert other.ways == frozenset()
    assert answers(other, requests) == expected
    hot = [request("What?", images[0], Generation(9, temperature=2.0, top_p=0.9, seed=s)) for s in range(5)]
    found = answers(other, hot)
    monkeypatch.undo()
    assert found == answers(load(tiny_vlm), hot)


def test_features_that_come_out_wrong_are_found_out(
    tiny_vlm: Path, images: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval.models import vision

    real = vision.join_features

    def spoilt(features: Any) -> dict[str, Any]:
        output = real(features)
        output["image"].pooler_output = [part.flip(0) for part in output["image"].pooler_output]
        return output

    expected = answers(load(tiny_vlm), mixed(images))
    monkeypatch.setattr(vision, "join_features", spoilt)
    model = load(tiny_vlm)
    assert model.ways == frozenset()
    assert answers(model, mixed(images)) == expected


def test_a_beginning_that_depends_on_the_question_is_not_shared(
    tiny_vlm: Path, images: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stic_eval.models import kv_cache

    real = kv_cache.Lanes.prefix

    def spoilt(self: kv_cache.Lanes, row: int, tokens: int) -> kv_cache.Prefix:
        return tuple((keys, values.roll(1, dims=-2)) for keys, values in real(self, row, tokens))

    expected = answers(load(tiny_vlm), mixed(images))
    monkeypatch.setattr(kv_cache.Lanes, "prefix", spoilt)
    model = load(tiny_vlm, reuse="always")
    assert model.ways == {"loop"}
    assert answers(model, mixed(images)) == expected


def test_the_batch_is_halved_where_memory_runs_out_and_grows_again() -> None:
    rows = RowLimit(16)
    rows.answered(1000)
    assert rows.now == 16
    rows.halve(16)
    assert rows.now == 8
    rows.answered(8 * 16 - 1)
    assert rows.now == 8
    rows.answered()
    assert rows.now == 16
    rows.halve(5)  # with fewer under way than there might have been
    assert rows.now == 3
    for wanted in (6, 12, 16):  # longer than the first time
        rows.answered(32 * rows.now - 1)
        assert rows.now < wanted
        rows.answered()
        assert rows.now == wanted
    rows.halve(1)
    assert rows.now == 1
