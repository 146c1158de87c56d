"""docs/reliability.md and SECURITY.md: the block is of the results; every test that is named is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench import reliability
from bench.committed import ROOT


def test_the_block_is_that_of_the_results() -> None:
    before = reliability.PAGE.read_text(encoding="utf-8")
    assert reliability.page(before) == before


def test_parts_that_were_not_run_or_not_often_enough_are_named(tmp_path: Path) -> None:
    (tmp_path / "campaign").mkdir()
    kills = {
        "part": "killed at every file operation: run",
        "tries": 1_234,
        "states": 56,
        "lost": 1,
        "first": "x",
    }
    (tmp_path / "campaign" / "kills.json").write_text(json.dumps(kills))
    inputs = {
        "part": "hostile input: rows",
        "tries": 900,
        "failed": 0,
        "exit codes": {"0": 100, "2": 800},
        "seconds": 9,
    }
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    text = "\n".join(reliability.block({**reliability.facts(), "parts": reliability.collect(tmp_path)}))
    assert "| killed at every file operation: run | 1,234 | 1 | states 56 |" in text
    assert "| hostile input: rows | 900 | 0 | exit codes 0: 100, 2: 800 |" in text
    assert "Of *hostile input* 900 tries were made; a whole campaign makes 10,000." in text
    assert "Not run: killed at random times, power cut, damaged files, full disks, caches taken away." in text
    assert "hypothesis " in text


def test_what_no_part_has_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no part of a campaign"):
        reliability.collect(tmp_path)
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(SystemExit, match="has no part"):
        reliability.collect(tmp_path)


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/reliability.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    folder, missing = ROOT, []
    for name in re.findall(r"`((?:tests/)?[\w/]*(?:test_\w+\.py|hostile/))`", text):
        path = ROOT / name if name.startswith("tests/") else folder / name
        folder = path.parent
        missing += [] if path.exists() else [name]
    assert missing == []
