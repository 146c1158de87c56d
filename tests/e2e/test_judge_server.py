"""A judge behind a real OpenAI-compatible server: `transformers serve` with a tiny model, on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stic_eval.errors import UserError
from stic_eval.evals.judging import CachedJudge
from stic_eval.setting_groups import JudgeConfig
from stic_eval.types import Sample, Score
from tests.support.judging_bench import OWN, bench, cases, judge_settings
from tests.support.real_server import serving


@pytest.fixture(scope="module")
def model(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its replies: every other letter that it writes counts as the end."""
    folder = tmp_path_factory.mktemp("judge") / "tiny-judge"
    shutil.copytree(tiny_vlm, folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [1, *range(4, 260, 2)]}))
    return folder


@pytest.fixture(scope="module")
def url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a server of that model."""
    with serving(model, tmp_path_factory.mktemp("log") / "server.log") as base_url:
        yield base_url


def settings(url: str, model: object) -> JudgeConfig:
    return judge_settings(str(model), url, concurrency=2, timeout=120.0, attempts=2)


def test_gibberish_is_unscored_with_the_reason(url: str, model: Path, tmp_path: Path) -> None:
    judge = CachedJudge(settings(url, model), tmp_path)
    found = list(judge.grade(bench(), cases(3), lambda done, total: None))
    assert sorted(index for index, _, _ in found) == [0, 1, 2]
    for _, score, info in found:
        assert score.value is None and not score.open
        assert score.why is not None and score.why.isprintable()
        assert score.why.startswith(f"judge {model}: ") and "(asked 3 times)" in score.why
        assert len(info["replies"]) == 1
    assert judge.requests == 9


def test_what_can_be_read_is_scored_and_kept(url: str, model: Path, tmp_path: Path) -> None:
    def read(sample: Sample, response: str, reply: str) -> Score:
        return Score(len(reply) % 2, answer=reply)

    lenient = bench(own=replace(OWN, read=read, max_tokens=200))
    judge = CachedJudge(settings(url, model), tmp_path)
    found = {i: (s, info) for i, s, info in judge.grade(lenient, cases(4), lambda done, total: None)}
    assert judge.requests == 4
    assert all(score.value in (0, 1) for score, _ in found.values())
    assert [found[i][0].answer for i in range(4)] == [found[i][1]["replies"][0] for i in range(4)]
    again = CachedJudge(settings("http://127.0.0.1:9/v1", model), tmp_path)
    kept = {i: (s, info) for i, s, info in again.grade(lenient, cases(4), lambda done, total: None)}
    assert kept == found and again.requests == 0


def test_a_model_that_the_server_does_not_have(url: str, tmp_path: Path) -> None:
    judge = CachedJudge(settings(url, "someone/else"), tmp_path)
    ((_, score, _),) = judge.grade(bench(), cases(1), lambda done, total: None)
    assert score.value is None and "HTTP 400" in (score.why or "") and "someone/else" in (score.why or "")


def test_an_address_that_the_server_does_not_have(url: str, model: Path, tmp_path: Path) -> None:
    judge = CachedJudge(settings(url.removesuffix("/v1"), model), tmp_path)
    with pytest.raises(UserError, match="--judge-base-url"):
        list(judge.grade(bench(), cases(2), lambda done, total: None))
