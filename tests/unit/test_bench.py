"""The benches measure what they say. That it is fast, `make bench` shows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench import pocket


def python(code: str, folder: Path) -> tuple[float, float, str]:
    return pocket.watched([sys.executable, "-S", "-c", code], folder, os.environ)


def test_memory_is_that_of_the_command_and_not_of_one_before_it(tmp_path: Path) -> None:
    _, large, said = python("import os; data = b'x' * 300_000_000; print(os.getcwd())", tmp_path)
    _, small, _ = python("", tmp_path)
    assert said.strip() == str(tmp_path)
    assert 0.3 < large < 0.4
    assert small < large - 0.2


def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    python("raise SystemExit(3)", tmp_path)  # rows are unscored
    with pytest.raises(RuntimeError, match="exit code 1\nout of luck"):
        python("raise SystemExit('out of luck')", tmp_path)


def test_a_ceiling_is_an_upper_bound() -> None:
    assert pocket.Measured("work", "s", 9.9, 10).as_dict()["below"] is True
    assert pocket.Measured("work", "s", 10, 10).as_dict()["below"] is False
