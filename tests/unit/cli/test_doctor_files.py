"""`doctor --cache` and `--repair`: what is damaged is named, and mended."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from stic_eval.cli.app import invoke
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key
from stic_eval.types import Response

KEY = content_key("a stage")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with answers, a stage and a canary."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("STIC_EVAL_CACHE", str(folder))
    with closing(ResponseStore(folder / "responses" / "model.sqlite")) as answers:
        answers.put_many({content_key(n): Response(f"answer {n}", 1, "stop") for n in range(300)})
    stages = StageStore(folder / "stages")
    with stages.lock("pairs", KEY):
        (stages.work_dir("pairs", KEY) / "pairs.parquet").write_bytes(b"pairs")
        stages.finish("pairs", KEY)
    (folder / "canaries").mkdir()
    (folder / "canaries" / "a.json").write_text("{}")
    return folder


def test_a_sound_cache_is_said_to_be(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["doctor", "--cache"]) == 0
    assert capsys.readouterr().out == f"ok    {cache}: 3 checked, 0 damaged\n"
    assert invoke(["doctor", "--cache", "--repair"]) == 0


def test_what_is_damaged_is_named_and_mended(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers, (stage,) = cache / "responses" / "model.sqlite", (cache / "stages").glob("pairs-*")
    data = answers.read_bytes()
    answers.write_bytes(data.replace(b"answer 100", b"answer 999"))
    (stage / "pairs.parquet").write_bytes(b"PAIRS")
    (cache / "canaries" / "a.json").write_text("[")
    assert invoke(["doctor", "--cache"]) == 1
    said = capsys.readouterr().out
    assert said.count("FAIL") == 4
    assert "FAIL  responses/model.sqlite: holds an answer that is not what was written\n" in said
    assert f"FAIL  stages/{stage.name}: pairs.parquet has changed since it was written\n" in said
    assert "FAIL  canaries/a.json: cannot be read:" in said
    assert f"FAIL  {cache}: 3 checked, 3 damaged\n" in said
    assert invoke(["doctor", "--cache", "--repair"]) == 0
    said = capsys.readouterr().out
    assert "-> 299 answers could be read and are kept; others will be asked for again\n" in said
    assert f"set aside as {stage.name}." in said
    assert not stage.exists() and not (cache / "canaries" / "a.json").exists()
    with closing(ResponseStore(answers)) as store:
        assert len(store) == 299
    assert invoke(["doctor", "--cache"]) == 0
    assert capsys.readouterr().out.count("was set aside; delete it when you no longer need it") == 2


def test_a_cache_that_is_not_there_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "nothing"))
    assert invoke(["doctor", "--cache", "--repair"]) == 0
    assert not (tmp_path / "nothing").exists()


def test_repair_alone_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["doctor", "--repair"]) == 2
    assert "give --cache as well" in capsys.readouterr().err
