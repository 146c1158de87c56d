"""What the real vLLM answers, and what it does with adapters; each server takes a minute or more to start."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file, save_file

from stic_eval.cli.app import invoke
from stic_eval.engines import runtime_adapters
from stic_eval.engines.vllm import VLLMEngine
from stic_eval.errors import RunError, UserError
from stic_eval.pocket.rows import benchmark_rows
from stic_eval.settings import RunConfig
from stic_eval.types import Generation, Message, Request

CLOSE = 1e-4  # nats, of a whole answer: float32, sums in another order
QUESTIONS = ("Describe the image.", "Is there a circle?\nAnswer with one word.", "What is written?")


def answers(run: Path) -> dict[str, str]:
    """By variant, benchmark and row."""
    return {
        f"{path.parent.name}/{path.stem}/{row['id']}": row["response"]
        for path in sorted(run.glob("records/*/*.jsonl"))
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    }


@pytest.fixture(scope="module")
def adapter(here: Path, place: Path) -> Path:
    """A trained adapter of the embedded model."""
    argv = ["export", "adapter", str(here), "--method", "stic", "--output", "adapter", "-q"]
    assert invoke(argv) == 0
    return place / "adapter"


@pytest.fixture(scope="module")
def merged(here: Path, place: Path) -> Path:
    """The embedded model with the adapter in its weights."""
    argv = ["export", "adapter", str(here), "--method", "stic", "--merge", "--dtype", "float32"]
    assert invoke([*argv, "--output", "merged", "-q"]) == 0
    return place / "merged"


@pytest.fixture(scope="module")
def engine(merged: Path, adapter: Path) -> Iterator[VLLMEngine]:
    """The merged model at a server, which is started for the adapter's rank."""
    config = RunConfig(
        model=str(merged), engine="vllm", methods=("baseline",), adapters=(adapter,),
        output=merged.parent / "own", dtype="float32", device="cpu",
    )  # fmt: skip
    found = VLLMEngine(config, lambda name: nullcontext(), lambda: False)
    yield found
    found.close()


def asked(*begun: str) -> list[Request]:
    """Questions about embedded pictures, and without one; replies that have begun are gone on with."""
    images = [row["image"] for row in benchmark_rows("textvqa", "val")[:2]]
    found = [(text, (image,)) for image in images for text in QUESTIONS] + [(QUESTIONS[0], ())]
    open_ = [(Message("assistant", text),) for text in begun] or [()]
    return [
        Request((Message("user", text), *more), images, Generation(24))
        for text, images in found
        for more in open_
    ]


def said(model: Any, requests: list[Request]) -> dict[Request, tuple[str, int, str]]:
    return {one: (reply.text, reply.n_tokens, reply.finish_reason) for one, reply in model.generate(requests)}


def test_a_merged_export_is_served_as_it_is(
    engine: VLLMEngine, merged: Path, adapter: Path, seen: dict[str, Any]
) -> None:
    requests = [*asked(), *asked("The image shows", "There is a")]
    for name, own in (("base", None), ("with an adapter", adapter)):
        there, here = said(engine.answers(own), requests), said(engine.local.answers(own), requests)
        seen[name] = {"answers": len(here), "same": sum(there[one] == here[one] for one in here)}
        assert there == here
    (server,) = engine._servers
    assert f"serve {merged} " in server.log.read_text(encoding="utf-8"), "and no copy of it"


def test_likelihoods_are_those_of_this_process(
    engine: VLLMEngine, adapter: Path, seen: dict[str, Any]
) -> None:
    given = [
        (one, text) for one in asked() for text in ("A red circle.", "yes", "a blue square next to a star")
    ]
    given += [(one, " more than one thing") for one in asked("There is")]
    for name, own in (("base", None), ("with an adapter", adapter)):
        there = dict(engine.likelihoods(own).likelihoods(given))
        here = dict(engine.local.likelihoods(own).likelihoods(given))
        assert [there[one].n_tokens for one in given] == [here[one].n_tokens for one in given]
        off = max(abs(there[one].logp - here[one].logp) for one in given)
        seen[name] = {"answers": len(given), "largest difference, nats": off}
        assert off < CLOSE


def test_an_adapter_that_does_nothing_there_ends_the_run(
    engine: VLLMEngine, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[str, Any]
) -> None:
    """As vLLM has it: names that fit nothing are answered with status 200."""
    inert = copied(adapter, tmp_path / "inert")
    file = inert / "adapter_model.safetensors"
    save_file({name.replace("layers", "strata"): value for name, value in load_file(file).items()}, file)
    # As if names were right by what trained it, and not by vLLM.
    monkeypatch.setattr(
        engine.expectations, "here", lambda one: engine.local.answers(adapter if one == inert else one)
    )
    with pytest.raises(RunError, match="has loaded it but not applied it") as refused:
        engine.answers(inert)
    seen["told"] = str(refused.value).rpartition("not applied it: ")[2]


def copied(adapter: Path, folder: Path) -> Path:
    return Path(shutil.copytree(adapter, folder))


def test_what_vllm_refuses_is_told_in_our_words(
    engine: VLLMEngine, adapter: Path, tmp_path: Path, seen: dict[str, Any]
) -> None:
    engine.answers(adapter)
    endpoint = engine._endpoint()
    assert runtime_adapters.dialect_of(endpoint) is runtime_adapters.VLLM
    runtime_adapters.check_loads(endpoint, runtime_adapters.VLLM)
    assert not runtime_adapters.load(endpoint, runtime_adapters.VLLM, adapter), "it is there"
    hidden = copied(adapter, tmp_path / "hidden")
    (hidden / "adapter_config.json").unlink()  # to vLLM it is then as on another machine
    with pytest.raises(UserError, match="the server finds no adapter there") as missing:
        runtime_adapters.load(endpoint, runtime_adapters.VLLM, hidden)
    large = copied(adapter, tmp_path / "large")
    config = json.loads((large / "adapter_config.json").read_text(encoding="utf-8"))
    (large / "adapter_config.json").write_text(json.dumps(config | {"r": 64}), encoding="utf-8")
    with pytest.raises(UserError, match="its rank 64 is more than the server accepts") as too_large:
        runtime_adapters.load(endpoint, runtime_adapters.VLLM, large)
    told = (str(error.value).partition("HTTP ")[2] for error in (missing, too_large))
    seen["told"] = [text.partition(str(tmp_path))[0] for text in told]


def test_one_that_it_has_forgotten_is_loaded_again(
    engine: VLLMEngine, adapter: Path, seen: dict[str, Any]
) -> None:
    model, requests = engine.answers(adapter), asked()[:2]
    before = said(model, requests)
    runtime_adapters.unload(engine._endpoint(), runtime_adapters.VLLM, runtime_adapters.name_of(adapter))
    assert said(model, requests) == before
    seen["answers"] = len(before)


def test_all_its_processes_end_with_the_one_that_keeps_it(engine: VLLMEngine, seen: dict[str, Any]) -> None:
    """The last that it is asked."""
    engine.answers()
    (server,) = engine._servers
    keeper = psutil.Process(server._keeper.pid)
    processes = keeper.children(recursive=True)
    seen["processes"] = len(processes)
    assert processes
    keeper.kill()
    _, left = psutil.wait_procs(processes, timeout=120)
    assert not left


def test_stic_by_vllm_comes_to_what_it_comes_to_in_this_process(
    here: Path, there: Path, seen: dict[str, Any]
) -> None:
    ours, theirs = answers(here), answers(there)
    assert theirs.keys() == ours.keys() and len({key.partition("/")[0] for key in ours}) == 4
    seen["answers"], seen["same"] = len(ours), sum(theirs[key] == ours[key] for key in ours)
    log = (there / "run.log").read_text(encoding="utf-8")
    seen["adapters"] = [line.rpartition(": ")[2] for line in log.splitlines() if "is applied by" in line]
    assert theirs == ours
    assert len(seen["adapters"]) == 2, "that of stage 1 describes, that of stage 2 answers"
    served = str(there.parent / "cache" / "served")
    commands = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    assert not [command for command in commands if served in command], "no server outlives its run"
