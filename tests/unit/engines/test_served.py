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

from stic_eval.engines import openai, runtime_adapters, stated_weights
from stic_eval.engines.openai import OpenAIEngine
from stic_eval.errors import RunError, UserError
from stic_eval.image_sources import scan_images
from stic_eval.models import fingerprint
from stic_eval.models.adapter_canary import ROUNDING, Measured, agree, is_back, judge
from stic_eval.models.hf_model import HFModel
from stic_eval.setting_groups import ServerConfig
from stic_eval.settings import RunConfig
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


@pytest.fixture(scope="module")
def running_too(tiny_vlm: Path) -> Iterator[VLLMServer]:
    with serving_model(tiny_vlm) as found:
        yield found


def begin(server: VLLMServer) -> VLLMServer:
    server.brain.conduct, server.dead = Conduct(), False
    server.brain.adapters.clear()
    server.loads.clear()
    server.asked.clear()
    return server


@pytest.fixture
def server(running: VLLMServer) -> VLLMServer:
    """A server that has just been started."""
    return begin(running)


@pytest.fixture
def two(server: VLLMServer, running_too: VLLMServer) -> tuple[VLLMServer, VLLMServer]:
    """Replicas that have just been started."""
    return server, begin(running_too)


@pytest.fixture(scope="module")
def here(tiny_vlm: Path) -> HFModel:
    return HFModel.load(str(tiny_vlm), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def asked(photos: Path) -> list[Request]:
    return mixed(scan_images(photos)[0][:1])[:3]


def engine(url: str, model: Path, how: dict[str, Any] | None = None, **server: Any) -> OpenAIEngine:
    settings = ServerConfig(base_url=url, model_id=str(model), attempts=3, **server)
    config = RunConfig(model="base", engine="openai", methods=("baseline",), server=settings, device="cpu")
    return OpenAIEngine(config.model_copy(update=how), lambda name: nullcontext(), lambda: False)


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
    assert "compared with the server's base model alone" in caplog.text, "nobody has trained it here"
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
    with pytest.raises(RunError, match="has loaded it but not applied it") as refused:
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
    with pytest.raises(
        RunError, match="the server's answers differ from those of the model that it was trained on"
    ):
        own.answers(adapters[0])


def test_another_base_model_hides_no_adapter_that_is_not_applied() -> None:
    """What tells two base models apart is no noise, under which an adapter could be left out."""

    def one(*logps: float) -> Measured:
        return Measured(logps, ("",))

    base, other, adapted = one(-2.0, -1.0), one(-2.3, -1.0), one(-1.5, -1.0)
    found, what = judge((other, other), (base, adapted), ROUNDING["float32"])
    assert found == "another" and "0.3" in what
    # In 16 bits so much may be rounding; what changes more than that has to be seen.
    near = one(-2.1, -1.0)
    assert judge((near, near), (base, adapted), ROUNDING["bfloat16"])[0] == "not applied"
    weak = one(-1.99, -1.0)
    assert judge((near, near), (base, weak), ROUNDING["bfloat16"])[0] == "not verifiable"
    assert judge((near, one(-1.6, -1.0)), (base, adapted), ROUNDING["bfloat16"])[0] == "applied"


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
    with pytest.raises(UserError, match="it must see the same folder"):
        own.answers(adapters[0])
    conduct.runtime_adapters = False
    with pytest.raises(UserError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or name an adapter that it has"):
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


def test_one_that_comes_back_with_another_adapter_ends_the_run(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path], asked: list[Request]
) -> None:
    model = engine(server.url, tiny_vlm).answers(adapters[0])
    server.brain.adapters.clear()
    server.brain.conduct.inert = True
    with pytest.raises(RunError, match="differ from those before it forgot it"):
        texts(model, asked)


# ---------------------------------------------------------------- replicas


def test_replicas_have_one_model(
    two: tuple[VLLMServer, VLLMServer], tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    own = engine(f"{one.url},{other.url}", tiny_vlm)
    own.prepare((), True)
    other.brain.conduct.shift = 40.0
    with pytest.raises(
        UserError, match=f"--base-url {other.url}: answers fixed questions differently"
    ) as refused:
        engine(f"{one.url},{other.url}", tiny_vlm).prepare((), False)
    assert one.url in str(refused.value) and "\n" not in str(refused.value)
    other.dead = True
    with pytest.raises(RunError, match=f"^--base-url {other.url}: a fixed question has no answer"):
        engine(f"{one.url},{other.url}", tiny_vlm).prepare((), False)


def test_an_adapter_is_back_when_it_does_what_it_did() -> None:
    base, before = Measured((-1.0, -2.0), ("a",)), Measured((-1.05, -2.0), ("b",))
    assert is_back(base, before, Measured((-1.06, -2.0), ("b",)), 1e-3)
    assert not is_back(base, before, base, 1e-3), "however little it did"
    assert is_back(Measured((), ("a",)), Measured((), ("b",)), Measured((), ("b",)), 1e-3)
    assert not is_back(Measured((), ("a",)), Measured((), ("b",)), Measured((), ("a",)), 1e-3)


def test_models_agree_by_likelihoods_or_else_by_answers() -> None:
    one, near = Measured((-1.0, -2.0), ("a",)), Measured((-1.05, -2.0), ("b",))
    assert agree(one, near) and not agree(one, Measured((-1.2, -2.0), ("a",)))
    assert agree(Measured((), ("a",)), one) and not agree(Measured((), ("a",)), near)


@pytest.mark.parametrize("when", ["before it is given one", "while it is given one", "in the canary"])
def test_a_replica_that_dies_between_adapters_is_done_without(
    two: tuple[VLLMServer, VLLMServer], tiny_vlm: Path, adapters: tuple[Path, Path], here: HFModel,
    asked: list[Request], when: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    one, other = two
    own = engine(f"{one.url},{other.url}", tiny_vlm)
    first, second = adapters
    assert texts(own.answers(first), asked) == said(here.with_adapter(first), asked)
    assert len(one.brain.adapters) == len(other.brain.adapters) == 1
    name = runtime_adapters.name_of(second)
    match when:
        case "before it is given one":
            other.dead = True
        case "while it is given one":
            other.brain.conduct.dies = lambda path, body: path.endswith("load_lora_adapter")
        case _:
            other.brain.conduct.dies = lambda path, body: body.get("model") == name
    with caplog.at_level(logging.WARNING, "stic_eval.run"):
        model = own.answers(second)
    assert f"--base-url {other.url}: no longer answers" in caplog.text
    expected = said(here.with_adapter(second), asked)
    assert texts(model, asked) == expected
    # It comes back, without what it had in memory: it is given the adapter when it is asked for it.
    other.dead, other.brain.conduct = False, Conduct()
    other.brain.adapters.clear()
    back = engine(f"{other.url},{one.url}", tiny_vlm)
    assert texts(back.answers(second), asked) == expected and name in other.brain.adapters
    one.dead = other.dead = True
    with pytest.raises(RunError, match="none of them answers any more; answers so far are kept"):
        back.answers(first)


def test_dialects_are_asked_of_whichever_server_answers(
    two: tuple[VLLMServer, VLLMServer], tiny_vlm: Path
) -> None:
    one, other = two
    one.dead, other.brain.conduct.dialect = True, "sglang"
    served = engine(f"{one.url},{other.url}", tiny_vlm).served
    assert runtime_adapters.dialect_of(served.endpoint) is runtime_adapters.SGLANG
    one.dead = False
    with pytest.raises(UserError, match="some are vLLM, others SGLang"):
        runtime_adapters.dialect_of(served.endpoint)
    one.dead = other.dead = True
    with pytest.raises(RunError, match="does not answer"):
        runtime_adapters.dialect_of(served.endpoint)


# ---------------------------------------------------------------- without likelihoods; keys


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


def test_what_is_trained_in_another_type_or_packing_is_another(tiny_vlm: Path) -> None:
    ways: list[dict[str, Any]] = [
        {}, {"dtype": "bfloat16"}, {"load_in_4bit": True}, {"attn": "eager"}, {"revision": "old"},
    ]  # fmt: skip
    found = [engine("http://a/v1", tiny_vlm, how) for how in ways]
    assert len({one.fingerprint() for one in found[:4]}) == 4
    assert len({one.config.key for one in found[:4]}) == 4
    assert found[4].fingerprint() == found[0].fingerprint(), "of a folder there is one revision"
    named = [
        engine("http://a/v1", Path("gpt-x"), how) for how in ({"dtype": "float32"}, {"dtype": "bfloat16"})
    ]
    assert named[0].fingerprint() == named[1].fingerprint(), "nothing is trained, and the server has its own"


def test_a_hosted_name_that_looks_like_an_id_of_the_hub_is_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(model: str, revision: str | None) -> str:
        raise UserError(f"--model {model}: neither a folder nor found on the hub or in its local cache")

    monkeypatch.setattr(fingerprint, "commit_of", nowhere)
    stated_weights._is_on_hub.cache_clear()
    own = engine("http://a/v1", Path("openai/gpt-4o"))
    own.check()
    assert own.fingerprint() == engine("http://b/v1", Path("openai/gpt-4o")).fingerprint()
    assert not own.trains_in(own.config)
    trained = engine("http://a/v1", Path("openai/gpt-4o"), {"methods": ("stic",)})
    with pytest.raises(UserError, match="--model-id openai/gpt-4o: neither a folder nor found on the hub"):
        trained.check()
    stated_weights._is_on_hub.cache_clear()
    monkeypatch.setattr(fingerprint, "commit_of", lambda *_: "c0ffee")
    found = engine("http://a/v1", Path("org/vlm"))
    assert found.trains_in(found.config)


def test_weights_stay_out_of_memory_until_something_is_trained(
    server: VLLMServer, tiny_vlm: Path, adapters: tuple[Path, Path], asked: list[Request]
) -> None:
    own = engine(server.url, tiny_vlm)
    texts(own.answers(adapters[0]), asked[:1])
    own.trained(adapters[0])
    assert not own.local.loaded
    assert torch.is_tensor(next(iter(own.trainable().model.parameters())))
