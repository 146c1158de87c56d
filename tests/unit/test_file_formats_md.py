"""docs/file-formats.md names every format, and its commands have flags that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from stic_eval.cli.app import invoke
from stic_eval.training.pair_formats import PairFormat
from stic_eval.training.published_pairs import PUBLISHED

PAGE = (Path(__file__).parents[2] / "docs" / "file-formats.md").read_text(encoding="utf-8")


def test_every_format_of_pairs_is_there() -> None:
    for name, _, _ in PUBLISHED:
        assert f"| {name.removesuffix(chr(39) + 's')} |" in PAGE
    for to in get_args(PairFormat):
        assert f"| `{to}` |" in PAGE


def test_every_flag_is_one_of_its_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    commands: dict[str, set[str]] = {}
    for words in re.findall(r"`stic-eval ([^`]+)`", PAGE):
        name = re.match(r"(import pairs|export pairs|data check|\w+)", words)
        assert name
        commands.setdefault(name[1], set()).update(re.findall(r" (--[\w-]+)", words))
    assert {"train", "run", "eval", "score", "import pairs", "export pairs", "data check"} == commands.keys()
    for name, flags in commands.items():
        assert invoke([*name.split(), "--help"]) == 0
        said = capsys.readouterr().out
        assert [flag for flag in flags if flag not in said] == []
