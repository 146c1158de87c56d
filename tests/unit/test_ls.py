"""`ls` and `doctor`: what others named cannot drive the terminal, and what is not there is not promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stic_eval.cli.app import invoke


def test_a_run_folder_cannot_drive_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results" / "run\x1b[2J\x9b2J"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    assert invoke(["ls", "runs"]) == 0
    out = capsys.readouterr().out
    assert "run\\x1b[2J\\x9b2J" in out
    assert not {"\x1b", "\x9b"} & set(out)


def test_doctor_says_whether_a_judge_can_be_asked_and_offers_nothing_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    invoke(["doctor"])
    out = capsys.readouterr().out
    assert "warn  judge: OPENAI_API_KEY is not set; prompts: " in out
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-shown")
    invoke(["doctor"])
    shown = capsys.readouterr().out
    assert "ok    judge: OPENAI_API_KEY is set; prompts: " in shown
    assert "sk-not-shown" not in shown
    assert "bitsandbytes" not in out


def test_a_reader_that_goes_away_is_no_failure() -> None:
    command = [str(Path(sys.executable).parent / "stic-eval"), "ls", "benchmarks"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()  # as `| head -0` does
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")
