"""The benches measure what they say. That it is fast, `make bench` shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import pocket


def python(code: str, folder: Path) -> tuple[float, float, str]:
    return pocket.watched([sys.executable, "-S", "-c", code], folder, os.environ)


def test_memory_is_that_of_the_command_and_not_of_one_before_it(tmp_path: Path) -> None:
    # In a process of its own: until it starts its program, a child counts its parent's memory as its own.
    code = """
import os, sys
from pathlib import Path
from bench.pocket import watched
def run(code): return watched([sys.executable, "-S", "-c", code], Path(sys.argv[1]), os.environ)
_, large, said = run("import os; data = b'x' * 300_000_000; print(os.getcwd())")
_, small, _ = run("")
assert said.strip() == sys.argv[1], said
assert 0.3 < large < 0.4, large
assert small < large - 0.2, small
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_command_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    python("raise SystemExit(3)", tmp_path)  # rows are unscored
    with pytest.raises(RuntimeError, match="exit code 1\nout of luck"):
        python("raise SystemExit('out of luck')", tmp_path)


def test_a_ceiling_is_an_upper_bound() -> None:
    assert pocket.Measured("work", "s", 9.9, 10).as_dict()["below"] is True
    assert pocket.Measured("work", "s", 10, 10).as_dict()["below"] is False
