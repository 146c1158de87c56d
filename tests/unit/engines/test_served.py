"""Adapters that servers load while they run: what goes right, and everything that goes wrong."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stic_eval.engines import openai, runtime_adapters
from stic_eval.engines.openai import OpenAIEngine
from stic_eval.errors import RunError, UserError
from stic_eval.images import scan_images
from stic_eval.models.hf_model import HFModel
from stic_eval.settings import RunConfig, ServerConfig
from stic_eval.types import Request
from tests.support.questions import answers, mixed
from tests.support.vllm_server import Conduct, VLLMServer, serving_model


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    endpoint = openai._endpoint
    monkeypatch.setattr(openai, "_endpoint", lambda *how: replace(endpoint(*how), backoff=0.0))
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def running(tiny_vlm: Path) -> Iterator[VLLMServer]:
    with serving_model(tiny_vlm) as found:
        yield found


@pytest.fixture
def server(running: VLLMServer) -> VLLMServer:
    """A server that has just been started."""
    running.brain.conduct, running.dead = Conduct(), False
    running.brain.adapters.clear()
    running.loads.clear()
    running.asked.clear()
    return running


@pytest.fixture(scope="module")
def here(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def asked(photos: Path) -> list[Request]:
    return mixed(scan_images(photos)[0][:1])[:3]


def engine(url: str, model: Path, **server: Any) -> OpenAIEngine:
    settings = ServerConfig(base_url=url, model_id=str(model), attempts=3, **server)
    config = RunConfig(model="base", engine="openai", methods=("baseline",), server=settings, device="cpu")
    return OpenAIEngine(config, lambda name: nullcontext(), lambda: False)


def texts(model: Any, requests: list[Request]) -> dict[Request, str]:
    return {request: response.text for request, response in model.generate(requests)}


def said(model: HFModel, requests: list[Request]) -> dict[Request, str]:
    return {request: text for request, (text, _, _) in answers(model, requests).items()}


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_an_adapter_is_loaded_under_a_name_made_of_its_content(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path], here: HFModel, asked: list[Request],
    dialect: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    server.brain.conduct.dialect = dialect
    own, first = engine(server.url, tiny_vlm), adapters[0]
    own.prepare((), True)
    with caplog.at_level(logging.INFO, "stic_eval.run"):
        assert texts(own.answers(first), asked) == said(here.with_adapter(first), asked)
    assert texts(own.answers(), asked) == said(here, asked) != said(here.with_adapter(first), asked)
    name = runtime_adapters.name_of(first)
    assert name != runtime_adapters.name_of(adapters[1]) and list(server.brain.adapters) == [name]
    assert {body["model"] for body in server.asked} == {
        "base", name if dialect == "vllm" else f"base:{name}"
    }  # fmt: skip
    assert "is applied by" in caplog.text
    again = engine(server.url, tiny_vlm)
    assert texts(again.answers(first), asked[:1])  # of another run: it is there already
    assert [status for body, status in server.loads if body["lora_name"] == name] == [200, 400]
    again.close()
    assert server.brain.adapters, "what another run has loaded stays"
    own.close()
    assert not server.brain.adapters


def test_an_adapter_that_was_loaded_and_not_applied_ends_the_run(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path]
) -> None:
    server.brain.conduct.inert = True
    own = engine(server.url, tiny_vlm)
    own.local.answers()  # as training has left it
    own.trained(adapters[0])
    with pytest.raises(RunError, match="has loaded it and not applied it") as refused:
        own.answers(adapters[0])
    assert server.url in str(refused.value) and "\n" not in str(refused.value)
    own.close()
    assert not server.brain.adapters, "what was refused is unloaded, too"
    with pytest.raises(RunError, match="not applied"):  # the weights tell, where nobody has asked them before
        engine(server.url, tiny_vlm).answers(adapters[1])


def test_a_server_of_another_model_ends_the_run(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path]
) -> None:
    server.brain.conduct.shift = 40.0
    own = engine(server.url, tiny_vlm)
    own.local.answers()
    own.trained(adapters[0])
    with pytest.raises(RunError, match="answers otherwise than the model that it was trained on"):
        own.answers(adapters[0])


def test_an_adapter_that_does_next_to_nothing_is_not_verifiable(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path], tmp_path: Path,
    caplog: pytest.LogCaptureFixture, asked: list[Request],
) -> None:  # fmt: skip
    weak = Path(shutil.copytree(adapters[0], tmp_path / "weak"))
    file = weak / "adapter_model.safetensors"
    save_file(
        {name: value * 1e-4 if "lora_B" in name else value for name, value in load_file(file).items()}, file
    )
    with caplog.at_level(logging.WARNING, "stic_eval.run"):
        assert texts(engine(server.url, tiny_vlm).answers(weak), asked[:1])
    assert "not verifiable" in caplog.text


def test_what_a_server_says_to_an_adapter_is_one_line_with_advice(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path]
) -> None:
    own, conduct = engine(server.url, tiny_vlm), server.brain.conduct
    conduct.max_rank = 1
    with pytest.raises(UserError, match=r"start it with --max-lora-rank 8, or train with -o lora\.r"):
        own.answers(adapters[0])
    conduct.max_rank, conduct.blind = 128, True
    with pytest.raises(UserError, match="it has to see the same folder"):
        own.answers(adapters[0])
    conduct.runtime_adapters = False
    with pytest.raises(UserError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or name what it has"):
        own.answers(adapters[0])
    with pytest.raises(UserError, match="loads no adapters at run time"):
        own.prepare((), True)
    conduct.likelihoods = False
    with pytest.raises(UserError, match="ignores prompt_logprobs"):
        own.prepare(("likelihoods",), False)


def test_an_adapter_that_a_restarted_server_has_forgotten_is_loaded_again(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path], here: HFModel, asked: list[Request]
) -> None:
    model = engine(server.url, tiny_vlm, concurrency=2).answers(adapters[0])
    server.brain.adapters.clear()
    assert texts(model, asked) == said(here.with_adapter(adapters[0]), asked)
    assert [status for _, status in server.loads].count(200) == 2


def test_without_likelihoods_greedy_answers_tell(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path], asked: list[Request]
) -> None:
    server.brain.conduct.likelihoods = False
    assert texts(engine(server.url, tiny_vlm).answers(adapters[0]), asked[:1])
    server.brain.adapters.clear()
    server.brain.conduct.inert = True
    with pytest.raises(RunError, match="not applied"):
        engine(server.url, tiny_vlm).answers(adapters[0])


def test_answers_count_as_the_models_wherever_it_is_served(
    tiny_vlm: Path, tmp_path: Path, adapters: tuple[Path, Path]
) -> None:
    one, other = engine("http://a/v1", tiny_vlm), engine("http://b/v1", tiny_vlm)
    assert one.fingerprint() == other.fingerprint() and one.config.key == other.config.key
    assert one.fingerprint(adapters[0]) == other.fingerprint(adapters[0]) != one.fingerprint(adapters[1])
    stated = engine("http://a/v1", Path("gpt-x-2026-01"))
    assert stated.fingerprint() == engine("http://b/v1", Path("gpt-x-2026-01")).fingerprint()
    assert stated.fingerprint() != one.fingerprint() and not stated.trains_in(stated.config)
    plain = RunConfig(model="base", engine="openai", server=ServerConfig(base_url="http://a/v1"))
    assert OpenAIEngine(plain, lambda name: nullcontext(), lambda: False).fingerprint() != one.fingerprint()


def test_weights_stay_out_of_memory_until_something_is_trained(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path], asked: list[Request]
) -> None:
    own = engine(server.url, tiny_vlm)
    texts(own.answers(adapters[0]), asked[:1])
    own.trained(adapters[0])
    assert not own.local.loaded
    assert torch.is_tensor(next(iter(own.trainable().model.parameters())))
