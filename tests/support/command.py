"""The command in this process: to start Python and import torch anew takes longer than most commands do."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest


def run_command(*argv: str | Path, at: Path, code: int = 0, **environment: str) -> str:
    """Runs `stic-eval` in a folder, with a cache of that folder's own.

    Args:
        *argv: What stands behind `stic-eval`.
        at: The folder.
        code: The exit code that it has to have.
        **environment: What it reads of the environment.

    Returns:
        What it has printed, errors included.
    """
    from stic_eval.cli.app import invoke

    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STIC_EVAL_PLUGINS", raising=False)
        for name, value in {"STIC_EVAL_CACHE": str(at / "cache"), "COLUMNS": "200", **environment}.items():
            patch.setenv(name, value)
        patch.chdir(at)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            found = invoke([str(arg) for arg in argv])
    assert found == code, (argv, output.getvalue()[-2000:])
    return output.getvalue()
