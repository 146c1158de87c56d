"""`stic-eval ablate` on a tiny real model: what is shared, what fails, what is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Done, Lab

AXES = ("--vary", "infusion=own,none", "--vary", "dar=on,off")
GRID = (*AXES, "--seeds", "0,1")
ONE_SEED = (*AXES, "--seeds", "0")


def argv(lab: Lab, *extra: str) -> list[str]:
    found = lab.argv("run", "--output", "grid", "-o", "stage1.epochs=1", *extra)
    return ["ablate", *found[1:], "--benchmarks", "textvqa,chartqa", "-o", "rows.all=hub"]


def of_this_lab(lab: Lab, *extra: str) -> list[str]:
    """Without the rows of benchmarks that are not asked."""
    items = argv(lab, *extra)
    drop = next(i for i, item in enumerate(items) if item.startswith("rows.mmbench"))
    return items[: drop - 1] + items[drop + 1 :]


def scores(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return found


def results(folder: Path) -> dict[str, Any]:
    return {
        v["folder"]: {b: s["units"] for b, s in v["summaries"].items()} for v in scores(folder)["variants"]
    }


@pytest.fixture(scope="module")
def whole(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lab, Done, Done]:
    """A grid in peace, with the dry run before it."""
    here = lab.at(tmp_path_factory.mktemp("ablate"))
    plan = here.invoke(*of_this_lab(here, *GRID, "--dry-run"))
    assert sorted(p.name for p in here.folder.iterdir()) == [], "a dry run leaves nothing"
    return here, plan, here.invoke(*of_this_lab(here, *GRID, "--jobs", "2"))


def test_the_plan_says_what_sharing_saves(whole: tuple[Lab, Done, Done]) -> None:
    _, plan, _ = whole
    assert plan.code == 0, plan.err
    # own: pairs, preference, descriptions, infused_sft; none: pairs, preference, sft; each for two seeds, and
    # once with dar and once without.
    assert "one by one they would need 28 stages; shared it is 10" in plan.out
    assert "of which 0 are" in plan.out
    assert "to do: 10 stages, 9 evaluations" in plan.out


def test_cells_share_stages_and_get_a_row_each(whole: tuple[Lab, Done, Done]) -> None:
    lab, _, done = whole
    assert done.code == 0, done.err
    assert {name: len(lab.done(name)) for name in ("pairs", "preference", "sft", "infused_sft")} == {
        "pairs": 2, "preference": 2, "sft": 2, "infused_sft": 2,
    }  # fmt: skip
    found = scores(lab.folder / "grid")
    assert found["axes"] == {"infusion": ["own", "none"], "dar": ["on", "off"]}
    cells = {(v["settings"].get("infusion"), v["settings"].get("dar"), v["seed"]) for v in found["variants"]}
    expected = {(i, d, s) for i in ("own", "none") for d in ("on", "off") for s in (0, 1)}
    assert cells == expected | {(None, None, None)}
    for variant in found["variants"]:
        records = lab.folder / "grid" / "records" / variant["folder"]
        assert sorted(p.stem for p in records.iterdir()) == ["chartqa", "textvqa"]
        stages = {stage["name"]: stage for stage in variant["stages"]}
        assert bool(stages) == (variant["seed"] is not None)
        if stages:
            log = f"training/preference-{stages['preference']['key'][:16]}.jsonl"
            assert (lab.folder / "grid" / log).is_file()
    for suffix in ("md", "tex", "csv", "json"):
        assert (lab.folder / "grid" / f"table.{suffix}").is_file()
    assert "[28/28]" in done.err


def test_again_it_computes_nothing_and_says_the_same(whole: tuple[Lab, Done, Done]) -> None:
    lab, _, done = whole
    before = {p: p.stat().st_mtime_ns for p in (lab.folder / "grid" / "records").rglob("*.jsonl")}
    again = lab.invoke(*of_this_lab(lab, *GRID, "--quiet"))
    assert (again.code, again.out, again.err) == (0, done.out, "")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_another_grid_does_not_mix_into_the_folder(whole: tuple[Lab, Done, Done]) -> None:
    lab, _, _ = whole
    other = lab.invoke(*of_this_lab(lab, "--vary", "infusion=own,shuffled"))
    assert other.code == 2
    assert "holds the results of another run or grid" in other.err


@pytest.mark.campaign  # minutes
def test_a_cell_that_fails_is_named_and_the_others_are_done(whole: tuple[Lab, Done, Done]) -> None:
    lab, _, _ = whole
    line = of_this_lab(lab, "--vary", "stage1.learning_rate=0.01,1e15", "--no-dar")  # the second diverges
    line[line.index("grid")] = "failing"
    failed = lab.invoke(*line)
    assert failed.code == 1
    assert "1 of 2 cells failed, e.g. stage1.learning_rate=1000000000000000.0: " in failed.err
    assert "Traceback" not in failed.err
    variants = scores(lab.folder / "failing")["variants"]
    found = {v["settings"].get("stage1.learning_rate"): v["summaries"] for v in variants}
    assert (bool(found[0.01]), bool(found[1e15])) == (True, False)
    assert "stic+stage1.learning_rate=1000000000000000.0@seed0 (0 of 2" in failed.out


def started(lab: Lab, *extra: str) -> subprocess.Popen[str]:
    # A shell that starts tests in the background has them ignore Ctrl-C.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from stic_eval.cli.app import main; main(sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *of_this_lab(lab, *ONE_SEED, *extra)],
        cwd=lab.folder, env={**os.environ, **lab.environment}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def members(group: int) -> list[int]:
    """Processes of a session that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == group and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def wait(condition: Any, process: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.02)


def gone(group: int) -> bool:
    end = time.monotonic() + 30
    while members(group):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.campaign  # minutes; others kill, and train as a gang, at less cost
def test_killed_and_interrupted_it_ends_with_the_same_numbers(
    whole: tuple[Lab, Done, Done], tmp_path: Path
) -> None:
    reference, _, _ = whole
    lab = reference.at(tmp_path)
    # While a stage is at work.
    process = started(lab, "--jobs", "2")
    wait(lambda: lab.done("pairs"), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone(process.pid), "workers outlive their parent"
    # Ctrl-C, as a terminal sends it to all, once this start is at work and something is evaluated.
    saved = lab.folder / "grid" / "scores.json"
    before = saved.stat().st_mtime_ns if saved.is_file() else 0
    process = started(lab)
    folder = lab.folder / "grid"
    wait(lambda: saved.is_file() and saved.stat().st_mtime_ns != before and "baseline" in results(folder)
         and results(folder)["baseline"].keys() == {"textvqa", "chartqa"}, process)  # fmt: skip
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err
    assert "Baseline" in out, "the table of what is done"
    assert gone(process.pid)
    done = lab.invoke(*of_this_lab(lab, *ONE_SEED))
    assert done.code == 0, done.err
    whole_grid = results(reference.folder / "grid")
    assert results(folder) == {name: whole_grid[name] for name in results(folder)}
    assert len(results(folder)) == 5
