"""Methods whose pairs, descriptions, likelihoods and answers come from a server, and which train here."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow.parquet as pq
import pytest

from stic_eval.engines import openai
from tests.e2e.conftest import Lab, records
from tests.support.vllm_server import Reply, serving_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waits between attempts, of which nothing here depends."""
    endpoint = openai._endpoint
    monkeypatch.setattr(openai, "_endpoint", lambda *how: replace(endpoint(*how), backoff=0.0))


# All greedy: what a server draws is its own.
GREEDY = (
    "-o", "stage1.temperature=0", "-o", "stage2.temperature=0", "--benchmarks", "chartqa",
)  # fmt: skip


def served(
    lab: Lab, url: str, *extra: str | Path, leave: tuple[str, ...] = (), command: str = "run"
) -> list[str]:
    """A run of the lab's model by a server that has it."""
    found = lab.argv(command, *extra, "--output", "out", "-q", leave=leave)
    at = found.index("--model")
    found[at : at + 2] = ["--engine", "openai", "--base-url", url, "--model", "base"]
    found += ["--model-id", str(lab.model)]
    return found


def table(lab: Lab) -> dict[str, Any]:
    """Answers by variant, benchmark and row."""
    run = lab.folder / "out"
    return {
        f"{folder.name}/{path.stem}/{row['id']}": row["response"]
        for folder in sorted((run / "records").iterdir())
        for path in sorted(folder.iterdir())
        for row in records(run, folder.name, path.stem)
    }


def test_stic_by_a_server_comes_to_what_it_comes_to_here(lab: Lab, tmp_path: Path) -> None:
    there, here = lab.at(tmp_path / "there"), lab.at(tmp_path / "here")
    how = ("--method", "stic", "--dar", *GREEDY)
    assert here.invoke(*here.argv("run", *how, "--output", "out", "-q")).code == 0
    with serving_model(lab.model) as server:
        plan = there.invoke(*served(there, server.url, *how), "--dry-run")
        assert plan.code == 0 and "trained in this process" in plan.out and not server.asked
        done = there.invoke(*served(there, server.url, *how))
        assert done.code == 0, done.err
        named = {body["lora_name"] for body, status in server.loads if status == 200}
        assert len(named) == 2, "the adapter of stage 1 describes, that of stage 2 answers"
        assert {body["model"] for body in server.asked} == {"base", *named}
        assert not server.brain.adapters, "what a run has loaded it has unloaded"
        log = (there.folder / "out" / "run.log").read_text()
        assert "is applied by" in log
        asked = len(server.asked)
        again = there.invoke(*served(there, server.url, *how))
        assert again.code == 0 and len(server.asked) == asked
    assert table(there) == table(here)
    # By two servers, of which one dies when it is given the second adapter.
    several, given = lab.at(tmp_path / "several"), list[str]()

    def dies(path: str, body: dict[str, Any]) -> bool:
        if path.endswith("/load_lora_adapter") and body["lora_name"] in named:
            given.append(body["lora_name"])
        return len(given) == 2

    with serving_model(lab.model) as one, serving_model(lab.model, dies=dies) as other:
        done = several.invoke(*served(several, f"{one.url},{other.url}", *how))
        assert done.code == 0, done.err
        assert set(given) == named and other.dead and one.asked and other.asked
        log = (several.folder / "out" / "run.log").read_text()
        assert f"--base-url {other.url}: no longer answers" in log
    assert table(several) == table(here)


@pytest.mark.campaign  # minutes
def test_vllm_is_started_for_a_run_and_given_what_two_processes_have_trained(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What rank 0 has measured is what the server is held against: no weights are loaded here."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    there = lab.at(tmp_path)
    command = shlex.join(
        [sys.executable, "-m", "tests.support.vllm_server", "serve", "--max-model-len", "512"]
    )
    argv = there.argv(
        "run", "--method", "stic_stage1", "--benchmarks", "chartqa", "--limit", "2", "--engine", "vllm",
        "--serve-command", command, "--device", "cpu", "--gpus", "2", "-o", "stage1.batch_size=2",
        "--output", "out", "-q", leave=("stage2.", "dar.", "stage1.batch_size"),
    )  # fmt: skip
    done = there.invoke(*argv)
    assert done.code == 0, done.err
    log = (tmp_path / "out" / "run.log").read_text()
    assert "2 processes train (ddp)" in log and "is applied by" in log and "where it was trained, by" in log
    assert "base model alone" not in log
    (server,) = (tmp_path / "out" / "servers").iterdir()
    assert "--max-model-len 512" in server.read_text()
    assert table(there)


@pytest.mark.parametrize("method", ["csr", "seva"])
def test_what_methods_ask_beside_answers_comes_from_a_server_too(
    lab: Lab, tmp_path: Path, method: str
) -> None:
    """CSR goes on from sentences and scores them; SeVa's noise is no server's to see."""
    there, here = lab.at(tmp_path / "there"), lab.at(tmp_path / "here")
    own = {
        "csr": (
            "pairs.images=2",
            "pairs.scorer=own",
            "iterations=1",
            "pairs.sentences=2",
            "pairs.candidates=2",
        ),
        "seva": ("pairs.items=2", "pairs.temperature=0"),
    }[method]
    small = ("pairs.max_new_tokens=6", "lora.r=2", "lora.alpha=4", "training.batch_size=2")
    options = [part for option in (*own, *small) for part in ("-o", f"{method}.{option}")]
    how = ("--method", method, "--benchmarks", "chartqa", "--limit", "2", *options)
    leave = ("stage1.", "stage2.", "lora.", "dar.")
    with serving_model(lab.model) as server:
        command = [*served(there, server.url, *how, leave=leave)]
        if method == "seva":
            plan = there.invoke(*command, "--dry-run")
            assert plan.code == 0 and "noise on the model's own input" in plan.out and not server.asked
        done = there.invoke(*command)
        scored = any("prompt_logprobs" in body for body in server.asked)
        begun = any(body.get("continue_final_message") for body in server.asked)
        texts = [turn["content"] for body in server.asked for turn in body["messages"]]
    if method == "csr":
        assert done.code == 0 or "no pair is left" in done.err, done.err
        assert scored and begun
        return
    assert done.code == 0, done.err
    assert here.invoke(*here.argv("run", *how, "--output", "out", "-q", leave=leave)).code == 0
    assert table(there) == table(here) and texts


@pytest.mark.campaign  # minutes
def test_workers_too_unload_what_they_have_loaded(lab: Lab, tmp_path: Path) -> None:
    there = lab.at(tmp_path)
    how = ("--vary", "dar=false,true", "--method", "stic_stage1", "--benchmarks", "chartqa", "--limit", "2")
    with serving_model(lab.model) as server:
        done = there.invoke(*served(there, server.url, *how, leave=("stage2.",), command="ablate"))
        assert done.code == 0, done.err
        assert [status for _, status in server.loads if status == 200] and not server.brain.adapters


DRAWN = {
    "sima": ("pairs.items=4", "pairs.judge_max_new_tokens=4"),
    "rlaif_v_lite": (
        "pairs.images=4", "pairs.samples=4", "pairs.temperature=1.2", "pairs.length_filter=false",
        "iterations=1",
    ),
}  # fmt: skip


def judging(complete: Callable[[dict[str, Any]], Reply]) -> Callable[[dict[str, Any]], Reply]:
    """A random model, but for its verdicts."""

    def answer(body: dict[str, Any]) -> Reply:
        status, reply = complete(body)
        asked = json.dumps(body["messages"][0])
        if "Verdict:" in asked:
            reply["choices"][0]["message"]["content"] = "[[2]]"
        if "Is this statement right?" in asked and body["messages"][-1]["content"] == "Yes":
            for told in reply["prompt_logprobs"][-1].values():
                told["logprob"] = -99.0 * (crc32(asked.encode()) % 2)
        return status, reply

    return answer


@pytest.mark.parametrize("method", list(DRAWN))
def test_pairs_that_are_drawn_and_judged_are_the_server_s(lab: Lab, tmp_path: Path, method: str) -> None:
    """What a server draws is its own; that it is what is judged, paired, trained on and served is not."""
    there = lab.at(tmp_path)
    small = ("pairs.max_new_tokens=6", "lora.r=2", "lora.alpha=4", "training.batch_size=2")
    rates = ("training.learning_rate=0.05", "training.epochs=1", "training.warmup_ratio=0")
    options = [part for option in (*DRAWN[method], *small, *rates) for part in ("-o", f"{method}.{option}")]
    how = ("--method", method, "--benchmarks", "chartqa", "--limit", "2", *options)
    with serving_model(lab.model) as server:
        server.brain.complete = judging(server.brain.complete)
        done = there.invoke(*served(there, server.url, *how, leave=("stage1.", "stage2.", "lora.", "dar.")))
    assert done.code == 0, done.err
    (made,) = there.done("pairs")
    pairs = pq.read_table(made / "pairs.parquet").to_pylist()
    shown = [json.dumps(body["messages"], ensure_ascii=False) for body in server.asked]
    for answer in (row[side][0]["content"] for row in pairs for side in ("chosen", "rejected")):
        assert any(json.dumps(answer, ensure_ascii=False)[1:-1] in text for text in shown), answer
    assert pairs and any(body["temperature"] > 0 for body in server.asked)
    scored = [body for body in server.asked if "prompt_logprobs" in body and body["model"] == "base"]
    assert len(scored) > 20 or method == "sima", "beside those that tell whether an adapter is applied"
    assert "is applied by" in (there.folder / "out" / "run.log").read_text()
    assert [status for _, status in server.loads if status == 200] and not server.brain.adapters
