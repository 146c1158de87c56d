"""A small run that is whole, copies of it to damage, and the same command in them."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import build_vlm, draw_photos
from tests.faults.inputs import charts, items

OPTIONS = (
    "stage1.images=3", "stage1.batch_size=1", "stage1.max_new_tokens=4", "stage1.learning_rate=0.01",
    "stage2.items=2", "stage2.batch_size=1", "stage2.max_new_tokens=4", "stage2.learning_rate=0.01",
    "lora.r=2", "lora.alpha=4", "dar.max_new_tokens=4",
)  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Sound:
    """A finished run with its cache.

    Attributes:
        folder: Where `cache` and `run` lie; read only.
        argv: The command line of the run.
    """

    folder: Path
    argv: tuple[str, ...]

    def files(self) -> list[str]:
        """All files of cache and run but the log, by their paths below the folder."""
        found = [path for path in self.folder.rglob("*") if path.is_file() and path.name != "run.log"]
        found = [path for path in found if not path.name.endswith(("-wal", "-shm"))]
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def copy(self, to: Path, *, run: bool = True) -> Path:
        """A copy, with or without the run's folder."""
        shutil.copytree(self.folder, to, ignore=None if run else shutil.ignore_patterns("run"))
        return to


def invoke(at: Path, *argv: str) -> Done:
    """A command in this process, in a folder with a cache of its own."""
    from stic_eval.cli.app import invoke

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STIC_EVAL_CACHE", str(at / "cache"))
        patch.setenv("COLUMNS", "200")
        patch.chdir(at)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = invoke(list(argv))
    return Done(code, out.getvalue(), err.getvalue())


def numbers(at: Path) -> list[tuple[str, Any]]:
    """The rows of a run's table."""
    table = json.loads((at / "run" / "table.json").read_text())
    return [(row["label"], row["cells"]) for row in table["rows"]]


def answers(at: Path) -> dict[str, list[Any]]:
    """The records of a run but for the time that they took."""
    return {
        path.relative_to(at).as_posix(): [
            {name: value for name, value in json.loads(line).items() if name != "seconds"}
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for path in sorted((at / "run" / "records").glob("*/*.jsonl"))
    }


def make(data: Path) -> Sound:
    """Makes a run of STIC, with and without descriptions, on a tiny model and two rows."""
    model, photos = build_vlm(data / "model"), draw_photos(data / "photos", 3)
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in charts("photos")))
    (data / "items.json").write_text(json.dumps(items()))
    argv = [
        "run", "--method", "stic", "--dar", "--output", "run", "--model", str(model), "--images",
        str(photos), "--sft-data", str(data / "items.json"), "--image-root", str(photos), "--benchmarks",
        "chartqa", "-o", f"rows.chartqa={data / 'rows.jsonl'}",
    ]  # fmt: skip
    for option in OPTIONS:
        argv += ["-o", option]
    folder = data / "whole"
    folder.mkdir()
    done = invoke(folder, *argv)
    assert done.code == 0, done.err
    gc.collect()  # closes the answers, so that all of them are in one file
    return Sound(folder, tuple(argv))


def count(part: str, **counts: int) -> None:
    """Writes what a part of the campaign comes to, where `STIC_EVAL_CAMPAIGN` names a folder for it."""
    if folder := os.environ.get("STIC_EVAL_CAMPAIGN"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps({"part": part, **counts}, indent=1) + "\n"
        (Path(folder) / f"{part.replace(' ', '-')}.json").write_text(text)
