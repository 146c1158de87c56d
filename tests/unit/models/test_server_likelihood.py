"""Likelihoods over HTTP: the same as the same model's in this process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stic_eval.errors import RunError, UserError
from stic_eval.image_sources import scan_images
from stic_eval.models.connection import Endpoint
from stic_eval.models.hf_model import HFModel
from stic_eval.models.server_model import ServerModel
from stic_eval.types import Message
from tests.support.judge_server import fails, serving
from tests.support.questions import mixed
from tests.support.vllm_server import VLLMServer, serving_model

TEXTS = (
    "a red box",
    "a red bow",
    "é, ü and 3.5",
    "x",
    "",
    "It shows two boxes, a disc and much beside them.",
)


def endpoint(url: str) -> Endpoint:
    return Endpoint(url, "base", attempts=2, timeout=60.0, backoff=0.0, flag="--model", prefix="--")


@pytest.fixture(scope="module", params=["tiny", "pocket"])
def folder(request: pytest.FixtureRequest, tiny_vlm: Path) -> str:
    return str(tiny_vlm) if request.param == "tiny" else "pocket"


@pytest.fixture(scope="module")
def server(folder: str) -> Iterator[VLLMServer]:
    with serving_model(Path(folder)) as found:
        yield found


def test_likelihoods_are_those_of_the_same_model_here(folder: str, server: VLLMServer, photos: Path) -> None:
    here = HFModel.load(folder, device="cpu", dtype="float32")
    draw = random.Random(0)
    asked = [(one, draw.choice(TEXTS)) for one in mixed(scan_images(photos)[0][:3])]
    asked += [(one, "Yes") for one, _ in asked[:2]] + [(one, "No") for one, _ in asked[:2]]
    begun = [
        (replace(r, messages=(*r.messages, Message("assistant", "It is"))), " red.") for r, _ in asked[:3]
    ]
    asked += begun
    there = dict(ServerModel(endpoint(server.url)).likelihoods(asked))
    expected = dict(here.likelihoods(asked))
    assert there.keys() == expected.keys() == set(asked)
    for one, told in there.items():
        assert told.n_tokens == expected[one].n_tokens, one
        assert told.logp == pytest.approx(expected[one].logp, abs=1e-4), one


def test_a_server_that_tells_none_is_named_in_one_line(tiny_vlm: Path, photos: Path) -> None:
    (first, *_) = mixed(scan_images(photos)[0])
    with serving_model(tiny_vlm, likelihoods=False) as server:
        with pytest.raises(UserError, match="ignores prompt_logprobs") as refused:
            list(ServerModel(endpoint(server.url)).likelihoods([(first, "Yes")]))
        assert server.url in str(refused.value) and len(server.asked) == 3
    with serving_model(tiny_vlm, going_on=False) as server, pytest.raises(UserError, match="continue_final"):
        list(ServerModel(endpoint(server.url)).likelihoods([(first, "Yes")]))


def test_what_is_not_told_is_no_number(tiny_vlm: Path, photos: Path) -> None:
    (first, *_) = mixed(scan_images(photos)[0])
    with serving(lambda n, prompt: fails(400, "no memory")) as server:
        model = ServerModel(endpoint(server.url))
        model._scores = True
        with pytest.raises(RunError, match="did not return how likely an answer is: HTTP 400: no memory"):
            list(model.likelihoods([(first, "Yes")]))
