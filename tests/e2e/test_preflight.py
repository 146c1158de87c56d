"""What would fail hours into a run fails in its first seconds."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stic_eval.config import load
from stic_eval.engines import openai
from stic_eval.errors import UserError
from stic_eval.settings import RunConfig

if TYPE_CHECKING:
    from conftest import Lab


def test_a_broken_row_of_the_last_benchmark_is_told_before_the_first(lab: Lab, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in lab.rows["mmbench"].read_text(encoding="utf-8").splitlines()]
    rows[3]["image"] = "images/none-of-this-name.png"
    broken = lab.rows["mmbench"].with_name("broken.jsonl")
    broken.write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = lab.at(tmp_path)
    done = here.invoke(*here.argv("eval", "-q"), "-o", f"rows.mmbench={broken}")
    assert done.code == 2
    assert "broken.jsonl" in done.err and "row 4" in done.err
    assert not list(here.folder.glob("results/*/records/*/*.jsonl"))


@pytest.mark.parametrize(
    ("names", "refused"),
    [(["base", "other"], True), (["base", "mine"], False), (["other"], False), (None, False)],
)
def test_a_name_that_a_server_does_not_have_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, names: list[str] | None, refused: bool
) -> None:
    flags = {"model": "base", "methods": ["stic"], "benchmarks": "textvqa", "engine": "openai",
             "server": {"base_url": "http://localhost:1/v1", "adapters": {"stic": "mine"}}}  # fmt: skip
    config: RunConfig = load(preset=None, file=None, flags=flags, overrides=())
    monkeypatch.setattr(openai, "list_models", lambda url, key: ("HTTP 200", names))
    engine = openai.OpenAIEngine(config, lambda name: nullcontext(), lambda: False)
    if refused:
        with pytest.raises(
            UserError, match="--adapter-name mine: the server has no such model; it has base, other"
        ):
            engine.named([None, "mine"])
    else:
        engine.named([None, "mine"])
