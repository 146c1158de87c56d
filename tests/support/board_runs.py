"""Folders of runs for the board, made of nothing but their scores: two models, and one that is broken."""

from __future__ import annotations

import json
from pathlib import Path

from stic_eval.report import runs
from stic_eval.report.table_rows import Column
from stic_eval.types import DIRECT, Summary

HOSTILE = "=1+1</script><img src=x onerror=\"document.title='broken'\">\u202e"
STAGE = runs.TrainedStage("preference", "ab" * 32, 12.5, 300, 6)


def summary(right: int, n: int, shift: int = 0) -> Summary:
    """A benchmark of n rows, the first of them right."""
    units = {str(at + shift): (float(at < right), 1.0) for at in range(n)}
    return Summary(100 * right / n, n, 0, units, {})


def put(
    root: Path, name: str, model: str, one: tuple[int, int], two: int | None = None, shift: int = 0
) -> Path:
    """A run with a baseline and STIC, that many of ten rows right; of a second benchmark as well or not."""
    folder = root / name
    folder.mkdir(parents=True)
    columns = [Column("one", "One", "protocol p")] + ([Column("two", f"Two {HOSTILE}")] if two else [])
    entries = []
    for right, (method, title, seed) in zip(
        one, (("baseline", "Baseline", None), ("stic", f"STIC {name}", 0)), strict=True
    ):
        summaries = {"one": summary(right, 10, shift), **({"two": summary(two, 10)} if two else {})}
        stages = [] if seed is None else [STAGE]
        entries.append(runs.Entry(method if seed is None else f"{method}@seed0", method, title, DIRECT, seed,
                                  {}, summaries, stages=stages))  # fmt: skip
    (folder / "config.yaml").write_text("model: x\n")
    (folder / "manifest.json").write_text(json.dumps({"started": "2026-11-30T10:20:30+00:00"}))
    runs.save(runs.Scores(name, columns, entries, model=model), folder)
    return folder


def build(root: Path) -> Path:
    """Three runs below a folder, the first with a report, and one whose scores are torn."""
    put(root, "first", "pocket", (5, 8), 7)
    (root / "first" / "report.html").write_text("<!doctype html><title>a report</title>")
    put(root, "second #2", HOSTILE, (4, 6), 6)
    put(root, "inner/third", "pocket", (9, 9), shift=100)
    (root / "torn").mkdir()
    (root / "torn" / "config.yaml").write_text("model: x\n")
    (root / "torn" / "scores.json").write_text("{")
    return root
