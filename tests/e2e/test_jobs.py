"""`stic-eval run --jobs`: workers come to what one process comes to; their parent alone writes the folder."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stic_eval.experiment import parts

if TYPE_CHECKING:
    from conftest import Finished, Lab

    from stic_eval.experiment.graph import Task


def records(run: Path) -> dict[str, list[Any]]:
    """Records but for the time that they took."""
    return {
        path.relative_to(run).as_posix(): [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in path.read_text().splitlines()
        ]
        for path in run.glob("records/*/*.jsonl")
    }


def keys(lab: Lab) -> set[str]:
    """Keys of the answers that a run has stored."""
    (path,) = (lab.folder / "cache" / "responses").glob("*.sqlite")
    with closing(sqlite3.connect(path)) as store:
        return {key for (key,) in store.execute("select key from responses")}


def test_two_workers_come_to_the_same(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    argv = [*finished.argv, "--seed", "0", "--seed", "1", "--jobs", "2", "--output", "run"]
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    # Two seeds of four stages, each evaluated in two ways, and the baseline in two, on three benchmarks.
    assert "[26/26]" in done.err and "STIC + DaR, seed 1: evaluate ChartQA" in done.err
    ours, theirs = records(tmp_path / "run"), records(finished.folder)
    assert {name.replace("@seed0", ""): rows for name, rows in ours.items() if "@seed1" not in name} == theirs
    for stage in ("preference", "infused_sft"):
        (whole,) = finished.lab.done(stage)
        found = lab.stages / whole.name / "adapter" / "adapter_model.safetensors"
        assert found.read_bytes() == (whole / "adapter" / "adapter_model.safetensors").read_bytes()
    log = (tmp_path / "run" / "run.log").read_text()
    assert "stage preference: begins in" in log and "answers by" in log
    # The answers are there for whoever asks next, and nothing is left to do.
    again = lab.invoke(*finished.argv, "--seed", "0", "--seed", "1", "--output", "run")
    assert (again.code, again.out) == (0, done.out)
    assert records(tmp_path / "run") == ours


def test_what_fails_in_a_worker_ends_the_command_as_it_would_here(finished: Finished, tmp_path: Path) -> None:
    lab = finished.lab.at(tmp_path)
    common = ("run", "--method", "stic", "--no-dar", "-o", "stage1.learning_rate=1e15", "--quiet")
    said = []
    for jobs in ("1", "2"):
        argv = lab.argv(*common, "--jobs", jobs, "--output", f"run{jobs}", leave=("stage1.learning_rate",))
        done = lab.invoke(*argv)
        assert done.code == 1
        assert "Baseline" in done.out, "what does not depend on it is done"
        said.append(done.err.replace(f"run{jobs}/run.log", "run.log"))
    assert said[0] == said[1]
    assert "training has diverged" in said[0] and len(said[0].splitlines()) == 1


@pytest.mark.campaign  # half a minute
def test_workers_ask_for_a_share_each_of_stages_and_rows(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = finished.lab.at(tmp_path)
    divided: list[Task] = []
    divide = parts.divide

    def divide_and_note(tasks: Iterable[Task], workers: int) -> Iterator[Task]:
        divided.extend(divide(tasks, workers))
        return iter(divided)

    monkeypatch.setattr(parts, "LEAST", 2)
    monkeypatch.setattr(parts, "divide", divide_and_note)
    argv = lab.argv("run", "--method", "stic", "--no-dar", "--jobs", "3", "--output", "run")
    done = lab.invoke(*argv)
    assert done.code == 0, done.err
    kinds = {task.id.partition(" ")[0] for task in divided if task.part is not None}
    assert kinds == {"pairs", "descriptions", "evaluate"}
    assert "asks nothing more ahead" not in (tmp_path / "run" / "run.log").read_text()
    ours, theirs = records(tmp_path / "run"), records(finished.folder)
    assert ours == {name: theirs[name] for name in ours} and len(ours) < len(theirs)
    # What a part asks is what the whole task asks.
    assert keys(lab) < keys(finished.lab)
