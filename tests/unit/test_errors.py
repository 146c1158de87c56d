"""Code of others that raises what is no exception, and disks that fail, on their way to one line."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from stic_eval import plugins
from stic_eval.cli.app import invoke
from stic_eval.errors import (
    Contained,
    RunError,
    Stopped,
    UserError,
    headline,
    storage_failure,
    write_failure,
)
from stic_eval.evals.runner import verdict_of
from tests.unit.conftest import benchmark


class Own(BaseException):
    """What no library knows."""


@pytest.mark.parametrize("error", [SystemExit("bye"), GeneratorExit("bye"), Own("bye")])
def test_what_is_no_exception_becomes_one_and_keeps_its_name_and_place(error: BaseException) -> None:
    with pytest.raises(Stopped) as caught, Contained():
        raise error
    assert headline(caught.value) == f"{type(error).__name__}: bye"
    place = plugins.locate(caught.value, [Path(__file__)])
    assert place is not None and place[0] == Path(__file__)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_exceptions_and_interruptions_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, Contained():
        raise error
    assert caught.value is error


def test_a_score_that_leaves_the_program_is_a_failed_sample() -> None:
    from dataclasses import replace

    from stic_eval.types import Sample

    def leave(*_: object) -> None:
        raise SystemExit(0)

    odd = replace(benchmark("one"), score=leave)  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"sample 7: scoring failed: .*SystemExit: 0"):
        verdict_of(odd, Sample("7", (), "?", "a"), "a")


PLUGIN = """
from pydantic import BaseModel, ConfigDict

from stic_eval.contracts.method import Method


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")


def plan(options, data):
    raise {error}


method = Method("odd", "Odd", plan, Options)
"""


@pytest.mark.parametrize("error", ["SystemExit(0)", "GeneratorExit", "BaseException('x' * 100_000)"])
def test_a_plan_that_leaves_the_program_is_one_line(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))
    Path("odd.py").write_text(PLUGIN.format(error=error))
    assert invoke(["run", "--method", "./odd.py", "--benchmarks", "chartqa", "--dry-run"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "odd.py, line 12" in line and error.partition("(")[0] in line and len(line) < 1000


def test_a_full_disk_is_told_from_a_folder_that_may_not_be_written() -> None:
    full, denied = OSError(errno.ENOSPC, "No space left on device"), PermissionError(errno.EACCES, "denied")
    assert isinstance(write_failure("a", full), RunError)
    assert isinstance(write_failure("a", denied), UserError)
    assert str(write_failure("a", full)) == (
        "cannot write a: no space is left there; free some, and start the same command again: it goes on"
    )


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "there"),
        sqlite3.OperationalError("database or disk is full"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_seen_through_what_libraries_make_of_it(error: Exception) -> None:
    wrapped = ValueError("cannot save")
    wrapped.__cause__ = error
    for one in (error, wrapped):
        assert "no space is left there" in storage_failure(one)
    assert storage_failure(ValueError("no space for jokes")) == ""
    assert storage_failure(FileNotFoundError(errno.ENOENT, "there is none")) == ""
