"""An ablation's evaluations, as a worker does them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stic_eval import config
from stic_eval.ablate.grid import BASELINE, Cell
from stic_eval.cli import cells
from stic_eval.cli.progress import Reporter
from stic_eval.cli.session import Session
from stic_eval.evals.scoring.aggregate import summarize


def test_what_is_made_of_rows_that_change_meanwhile_is_not_taken_for_one_of_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    row = {"question_id": 1, "image": "0.png", "question": "?", "answers": ["yes"] * 10}
    rows.write_text(json.dumps(row) + "\n")
    flags = {"methods": [BASELINE], "benchmarks": "textvqa", "output": "out", "dar": False}
    built = config.load(flags=flags, overrides=[f"rows.textvqa={rows}"])
    grid = cells.Grid(built, (Cell({}, BASELINE),), (built,))

    def planned() -> cells.Planned:
        base, sessions = cells.sessions(grid, Reporter(None, quiet=True))
        return cells.evaluations(grid, base, sessions)[0]

    def edited(*_: Any) -> Any:
        rows.write_text(rows.read_text().replace("yes", "no"))
        return summarize([])

    before = planned().missing
    monkeypatch.setattr(Session, "evaluate", edited)
    sent: list[tuple[str, Any]] = []
    task = next(iter(cells.tasks(grid, [planned()]).values()))[0]
    cells.work(0, (grid, 1, tmp_path / "log"))(task.payload, lambda kind, value: sent.append((kind, value)))
    (key,) = [value[1] for kind, value in sent if kind == "result" and value[0] == "textvqa"]
    assert key == before["textvqa"]
    assert planned().missing["textvqa"] != key
