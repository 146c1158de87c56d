"""`cache`, `cache prune` and `rm`: what is freed, and what is never."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stic_eval import lease
from stic_eval.cli.app import invoke
from stic_eval.report import runs
from stic_eval.report.runs import Entry, Scores, TrainedStage
from stic_eval.report.table_rows import Column
from stic_eval.settings import RunConfig
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, content_key
from stic_eval.types import DIRECT, Response, Summary

MODEL = "0123456789abcdef"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An old cache with answers, replies and two stages, and a working directory beside it."""
    folder, work = tmp_path / "cache", tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    for name in (f"responses/{MODEL}.sqlite", "judge/replies.sqlite"):
        with closing(ResponseStore(folder / name)) as answers:
            answers.put_many({content_key(1): Response("answer", 1, "stop")})
    put_stage(folder, "sft")
    put_stage(folder, "preference")
    age(folder)
    return folder


def put_stage(cache: Path, name: str) -> Path:
    stages = StageStore(cache / "stages")
    with stages.lock(name, content_key(name)):
        (stages.work_dir(name, content_key(name)) / "adapter").mkdir()
        (stages.work_dir(name, content_key(name)) / "adapter" / "weights").write_bytes(b"x" * 1000)
        return stages.finish(name, content_key(name))


def age(folder: Path, days: int = 60) -> None:
    then = time.time() - days * 86400
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def put_run(folder: Path, *, finished: bool = True, stages: tuple[str, ...] = (), **settings: Any) -> Path:
    """A run's folder with a log, and with scores if it is finished."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(RunConfig(**settings).to_yaml())
    (folder / "run.log").write_text("log\n")
    if finished:
        summary = Summary(50.0, 1, 0, {"7": (0.5, 1.0)}, {})
        made = [TrainedStage(name, content_key(name), 1.0, 0, 1, kind="item_training") for name in stages]
        entry = Entry("sft", "sft", "SFT only", DIRECT, 0, {}, {"one": summary}, stages=made)
        runs.save(Scores(folder.name, [Column("one", "One")], [entry]), folder)
    return folder


def claim(cache: Path, folder: Path, *stages: str, evaluates: bool = True) -> Path:
    """What a run has written into the cache, long ago."""
    path = cache / "runs" / f"{folder.name}.json"
    path.parent.mkdir(exist_ok=True)
    names = [f"{name}-{content_key(name)[:16]}" for name in stages]
    data = {"folder": str(folder.absolute()), "stages": names, "responses": f"{MODEL}.sqlite"}
    path.write_text(json.dumps(data | {"evaluates": evaluates}))
    age(path.parent)
    return path


def left(cache: Path) -> set[str]:
    """Stages, and kinds of answers, that a cache still has."""
    stages = {path.name.partition("-")[0] for path in (cache / "stages").iterdir()}
    return stages | {path.parent.name for path in cache.glob("*/*.sqlite")}


def prune(*more: str) -> int:
    return invoke(["cache", "prune", "--older-than", "30d", *more])


def test_a_cache_says_what_lies_where(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = put_run(Path("results/fresh"))
    (fresh / "cache").mkdir()
    (fresh / "cache" / "one").write_bytes(b"x" * 2000)
    assert invoke(["cache"]) == 0
    said = capsys.readouterr().out
    then = time.strftime("%Y-%m-%d", time.localtime(time.time() - 60 * 86400))
    lines = {line.split()[0]: line for line in said.splitlines() if line}
    assert f"{cache}: " in said
    assert lines["stages"].split()[-2:] == [then, then] and " 2 " in lines["stages"]
    assert {"responses", "judge"} < lines.keys()
    assert "results/fresh/cache: 2.0 kB, own cache (--fresh)" in said


def test_what_no_run_needs_goes_and_only_when_that_is_wanted(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_run(Path("results/mine"), stages=("sft",))
    assert prune() == 0
    said = capsys.readouterr().out
    assert "stages/preference-" in said and f"responses/{MODEL}.sqlite" in said
    assert "kept: stages/sft-" in said and "results/mine refers to it" in said
    assert "--yes frees them" in said
    assert left(cache) == {"sft", "preference", "responses", "judge"}
    assert prune("--yes") == 0
    assert " freed" in capsys.readouterr().out
    assert left(cache) == {"sft", "judge"}
    assert prune("--yes") == 0
    assert "0 bytes in 0 items can be freed\n" in capsys.readouterr().out


def test_runs_are_known_wherever_their_folders_lie_until_they_are_deleted(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = put_run(tmp_path / "elsewhere" / "run")  # which says nothing of stages itself
    path = claim(cache, run, "sft", "preference")
    assert prune("--yes") == 0
    assert left(cache) == {"sft", "preference", "judge"}
    (run / "notes.txt").write_text("mine")
    assert invoke(["rm", str(run), "--yes"]) == 0
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    assert "stays: notes.txt" in capsys.readouterr().out
    assert path.exists(), "under another name than the command gives it"
    assert prune("--yes") == 0
    assert f"gone: {run}" in capsys.readouterr().out
    assert left(cache) == {"judge"} and not path.exists()


@pytest.mark.parametrize("how", ["unfinished", "at work", "trained only"])
def test_what_a_run_still_needs_stays(
    cache: Path, tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = put_run(tmp_path / "run", finished=how == "at work", stages=("sft",))
    claim(cache, run, "sft", evaluates=how != "trained only")
    if how == "trained only":
        (run / "manifest.json").write_text('{"seconds": 1.0}')
        shutil.rmtree(run / "records", ignore_errors=True)
        assert invoke(["ls", "runs", str(run)]) == 0
        assert "trained, not evaluated" in capsys.readouterr().out
    expected = {"sft", "responses", "judge"}
    if how == "at work":
        with lease.hold(run / ".lease"):
            assert prune("--yes") == 0
    else:
        assert prune("--yes") == 0
        expected -= {"responses"} if how == "trained only" else set()  # which has its adapter
    assert left(cache) == expected


def test_of_an_unfinished_run_that_says_nothing_everything_is_kept(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_run(Path("results/begun"), finished=False)
    aside = cache / "stages" / "sft-0123456789abcdef.01234567.damaged"
    aside.mkdir()
    (aside / "weights").touch()
    age(cache)
    assert prune("--yes") == 0
    assert not aside.exists(), "nobody needs what was set aside"
    assert left(cache) == {"sft", "preference", "responses", "judge"}
    assert "results/begun is unfinished" in capsys.readouterr().out


def test_settings_that_lie_in_a_folder_are_no_run(cache: Path) -> None:
    Path("results/mine").mkdir(parents=True)
    Path("results/mine/config.yaml").write_text("model: pocket\n")
    assert prune("--yes") == 0
    assert left(cache) == {"judge"}


@pytest.mark.parametrize("start", [".", "results", "elsewhere"])
def test_an_adapter_that_a_run_was_given_out_of_the_cache_stays(
    cache: Path, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = (cache / "stages").glob("preference-*")
    given = folder / "adapter" if start == "results" else os.path.relpath(folder / "adapter")
    run = put_run(Path("results/given"), adapters=[given]).absolute()
    claim(cache, run)
    if start == "elsewhere":
        Path(start).mkdir()
        monkeypatch.chdir(start)
    assert prune("--yes") == 0
    assert left(cache) == {"preference", "judge"}


def test_what_another_process_makes_stays(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages, key = StageStore(cache / "stages"), content_key("sft")
    attempt = cache / "stages" / f"sft-{key[:16]}.0123abcd.work"
    attempt.mkdir()
    (attempt / "checkpoint").touch()
    age(attempt)
    with stages.lock("sft", key):
        assert prune("--yes") == 0
        assert attempt.is_dir() and left(cache) == {"sft", "judge"}
    assert f"process {os.getpid()} on" in capsys.readouterr().out
    assert prune("--yes") == 0
    assert not attempt.exists() and left(cache) == {"judge"}


def test_a_run_on_another_machine_is_not_taken_for_gone(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = claim(cache, tmp_path / "theirs", "sft")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "elsewhere"}))
    age(cache)
    assert prune("--yes") == 0
    assert left(cache) == {"sft", "responses", "judge"} and path.exists()
    assert "theirs is not seen here, and may lie on elsewhere" in capsys.readouterr().out
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": socket.gethostname()}))
    age(cache)
    assert prune("--yes") == 0
    assert left(cache) == {"judge"} and not path.exists()


def test_what_was_used_lately_stays(cache: Path, tmp_path: Path) -> None:
    os.utime(claim(cache, put_run(tmp_path / "run"), "sft"))
    assert prune("--yes") == 0
    assert left(cache) == {"sft", "responses", "judge"}


@pytest.mark.parametrize("text", ["30", "d", "-1d", "1y", ""])
def test_an_age_is_a_number_with_a_unit(cache: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["cache", "prune", f"--older-than={text}"]) == 2
    assert "give a number of hours, days or weeks: 12h, 30d, 4w" in capsys.readouterr().err


def test_a_run_is_deleted_by_its_name_and_asks_before(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = put_run(Path("results/one")), put_run(Path("results/grid/two"))
    claim(cache, one)
    assert invoke(["rm", "one"]) == 2
    assert "give --yes to delete" in capsys.readouterr().err
    assert invoke(["rm", "one", "grid/two", "results/one", "-y"]) == 0
    assert "deleted 2 runs" in capsys.readouterr().out
    assert not one.exists() and not two.exists()
    assert invoke(["rm", "one", "-y"]) == 2


def test_what_is_no_run_or_at_work_or_needed_is_refused(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Path("results/settings")
    settings.mkdir(parents=True)
    (settings / "config.yaml").write_text("model: pocket\n")
    run = put_run(Path("results/run"))
    link = Path("results/link")
    link.symlink_to("run")
    adapter = run / "cache" / "stages" / "sft-1" / "adapter"
    adapter.mkdir(parents=True)
    for argv, why in ((["results"], 'no run is called "results"'), (["settings"], "holds no run"),
                      (["link"], "is a link to")):  # fmt: skip
        assert invoke(["rm", *argv, "run", "--yes"]) == 2
        assert why in capsys.readouterr().err and run.is_dir()
    with lease.hold(run / ".lease"):
        assert invoke(["rm", "run", "--yes"]) == 2
    assert f"process {os.getpid()} on" in capsys.readouterr().err
    put_run(Path("results/other"), adapters=[adapter])
    assert invoke(["rm", "run", "--yes"]) == 2
    assert "results/other evaluates an adapter in it" in capsys.readouterr().err
    assert (run / "scores.json").exists()
    assert invoke(["rm", "run", "other", "--yes"]) == 0
    assert not run.exists() and link.is_symlink()
