"""What calls of the Python API leave as it was: hub access, the caller's logging; scripts with workers."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import stic_eval as se
from stic_eval import hub_access
from stic_eval.experiment import inputs, worker
from stic_eval.experiment.progress import Reporter

if TYPE_CHECKING:
    from conftest import World

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STIC_EVAL_CACHE", str(tmp_path / "cache"))


def run_script(text: str, *, home: Path) -> subprocess.CompletedProcess[str]:
    (home / "script.py").write_text(text)
    environment = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    argv = [sys.executable, "script.py"]
    return subprocess.run(argv, cwd=home, env=environment, capture_output=True, text=True, check=False)


# ---------------------------------------------------------------- hub access


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook that has imported everything, on a machine that says nothing of the hub."""
    import datasets.config
    import huggingface_hub.constants

    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    for module in (huggingface_hub.constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)


def access() -> list[bool]:
    """What the hub's client and `datasets` go by, and worker processes will."""
    import datasets.config
    from huggingface_hub import is_offline_mode

    return [is_offline_mode(), datasets.config.HF_HUB_OFFLINE, *(os.environ.get(n) == "1" for n in OFFLINE)]


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize("call", [se.run, se.evaluate, se.train, se.load_model])
def test_offline_is_for_one_call(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[bool]] = []

    def look(config: Any) -> None:
        seen.append(access())
        raise se.UserError("seen")

    monkeypatch.setattr(inputs, "check_model", look)
    for offline in (True, False):
        with pytest.raises(se.UserError, match="seen"):
            call(model="pocket", offline=offline)
        assert access() == [False] * 5
    assert seen == [[True] * 5, [False] * 5]


@pytest.mark.usefixtures("online")
def test_offline_asks_nobody_though_the_client_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def resolve(host: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        raise socket.gaierror("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(se.UserError, match="org/nonexistent-xyz"):
        se.load_model("org/nonexistent-xyz", offline=True)
    assert asked == []


@pytest.mark.usefixtures("online")
def test_a_call_within_an_offline_call_does_not_end_it() -> None:
    with hub_access.restore_afterwards():
        hub_access.go_offline(True)
        with hub_access.restore_afterwards():
            hub_access.go_offline(True)
        with hub_access.restore_afterwards():
            hub_access.go_offline(False)
        assert access() == [True] * 5
    assert access() == [False] * 5


@pytest.mark.parametrize("before", ["", "1"])
def test_what_is_imported_meanwhile_goes_by_the_environment_afterwards(before: str, tmp_path: Path) -> None:
    done = run_script(
        f"""\
import os, sys
if {before!r}:
    os.environ["HF_HUB_OFFLINE"] = {before!r}
from stic_eval import hub_access
with hub_access.restore_afterwards():
    hub_access.go_offline(True)
    assert not {{"huggingface_hub", "datasets"}} & set(sys.modules), "imported for this alone"
    import huggingface_hub, datasets
    print(huggingface_hub.is_offline_mode(), datasets.config.HF_HUB_OFFLINE)
print(huggingface_hub.is_offline_mode(), datasets.config.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE"))
""",
        home=tmp_path,
    )
    after = f"{bool(before)} {bool(before)} {before or None}"
    assert done.stdout.splitlines() == ["True True", after], done.stderr


# ---------------------------------------------------------------- scripts


GUARD = 'put them under `if __name__ == "__main__":`'
REFUSED = f"this process is a worker that only imports the script with these calls; {GUARD}"
CALLS = {
    "run": 'se.run(model="pocket", methods=["baseline"], limit=1, jobs=2, output="run")',
    "ablate": 'se.ablate(model="pocket", vary={"stage1.beta": [0.1, 0.2]}, limit=1, output="run")',
}


@pytest.mark.parametrize("call", CALLS)
def test_a_script_without_a_guard_is_told_of_it(call: str, tmp_path: Path) -> None:
    text = f"""\
import stic_eval as se
try:
    {CALLS[call]}
except se.UserError as error:
    print(error)
    raise SystemExit(5)
"""
    done = run_script(text, home=tmp_path)
    assert done.returncode == 5, done.stderr
    said = done.stdout.splitlines()
    assert said[-1] == f"script.py: worker processes import it and come upon its calls; {GUARD}"
    assert set(said[:-1]) <= {REFUSED}, "what workers say, as far as they come to it"
    assert not (tmp_path / "run" / "scores.json").exists()


def test_a_script_with_a_guard_has_workers(tmp_path: Path) -> None:
    text = """\
import stic_eval as se
if __name__ == "__main__":
    print(se.run(model="pocket", methods=["baseline"], benchmarks=["chartqa"], dar=False, limit=1, jobs=2,
                 output="run").complete)
"""
    done = run_script(text, home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_a_call_in_a_process_that_imports_its_script_is_refused(tmp_path: Path) -> None:
    text = """\
import multiprocessing
import stic_eval as se
try:
    se.CALL()
except se.UserError as error:
    print(error)
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=print, args=("done",))
    process.start()
    process.join()
"""
    for call in ("run", "evaluate", "train", "ablate"):
        # In the parent, an option that there is not ends the call at once.
        done = run_script(text.replace("CALL()", f"{call}(zzz=1)"), home=tmp_path)
        assert done.stdout.splitlines() == [
            f'{call}: no option is called "zzz"',
            REFUSED,
            "done",
        ], done.stderr  # fmt: skip


# ---------------------------------------------------------------- logging


def given(world: World, **more: Any) -> dict[str, Any]:
    rows = {f"rows.{name}": world.folder / f"{name}.jsonl" for name in ("one", "two")}
    return {"model": "vlm", "images": "photos", "options": rows, "quiet": True, **more}


@pytest.fixture
def stream() -> Iterator[StringIO]:
    """What a caller sees who has called `logging.basicConfig(level=INFO)`."""
    root, text = logging.getLogger(), StringIO()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def state() -> list[Any]:
    """What a caller may have set of logging and warnings."""
    loggers = [logging.getLogger(name) for name in (None, "stic_eval", "stic_eval.run")]
    of_handlers = [(handler, list(handler.filters)) for handler in loggers[0].handlers]
    return [
        [(one.level, one.propagate, one.disabled, list(one.handlers), list(one.filters)) for one in loggers],
        of_handlers, warnings.showwarning,
    ]  # fmt: skip


@pytest.mark.parametrize("captured", [True, False])
def test_a_call_says_nothing_into_the_caller_s_logging(
    world: World, stream: StringIO, captured: bool
) -> None:
    logging.captureWarnings(captured)

    def answer(method: str, sample: Any) -> str:
        logging.getLogger("library").warning("a library remarks")
        warnings.warn("a library warns", stacklevel=1)
        return "yes"

    world.answer = answer
    before = state()
    try:
        result = se.run(**given(world))
        after = state()
    finally:
        logging.captureWarnings(False)
    assert stream.getvalue() == ""
    assert after == before
    log = (result.folder / "run.log").read_text()
    assert all(text in log for text in ("INFO stic_eval.run: ", "a library remarks", "a library warns"))
    logging.getLogger("caller").info("on it goes")
    assert stream.getvalue() == "on it goes\n"


def test_a_user_error_is_raised_and_nothing_else(
    world: World, stream: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.folder / "kept").mkdir()
    with pytest.raises(se.UserError) as caught:
        se.run(**given(world, images="nowhere", methods=["stic"], output="kept"))
    assert stream.getvalue() == ""
    log = (world.folder / "kept" / "run.log").read_text()
    assert "Traceback" not in log
    assert log.endswith(f"ERROR stic_eval.run: failed: {caught.value}\n")


def test_a_log_that_cannot_be_opened_leaves_nothing_behind(tmp_path: Path, stream: StringIO) -> None:
    before = state()
    with pytest.raises(OSError, match="nowhere"), Reporter(tmp_path / "nowhere" / "run.log", quiet=True):
        pass
    assert state() == before


def test_what_fails_otherwise_leaves_its_traceback_in_the_log(tmp_path: Path, stream: StringIO) -> None:
    with pytest.raises(ZeroDivisionError), Reporter(tmp_path / "run.log", quiet=True):
        _ = 1 / 0
    assert "Traceback" in (tmp_path / "run.log").read_text()
    assert stream.getvalue() == ""


def test_a_log_within_a_log_is_part_of_it(tmp_path: Path, stream: StringIO) -> None:
    before = state()
    with Reporter(tmp_path / "outer.log", quiet=True) as outer:
        with Reporter(tmp_path / "inner.log", quiet=True) as inner:
            inner.line("within")
        with Reporter(None, quiet=True) as none:
            none.line("beside")
        outer.line("again")
        warnings.warn("still captured", stacklevel=1)
    assert state() == before
    assert stream.getvalue() == ""
    said = (tmp_path / "outer.log").read_text()
    assert all(line in said for line in ("within", "beside", "again", "still captured"))
    assert "within" in (tmp_path / "inner.log").read_text()


def test_a_worker_says_nothing_into_what_its_script_has_set_up(tmp_path: Path, stream: StringIO) -> None:
    sent: list[str] = []

    def send(kind: str, value: Any) -> None:
        sent.append(value.getMessage())

    root, logger = logging.getLogger(), logging.getLogger("stic_eval.run")
    handlers, level = list(root.handlers), logger.level
    try:
        worker.begin(0, worker.Place(tmp_path, 1), send)
        logger.info("begins")
        logging.getLogger("library").warning("remarks")
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        logger.setLevel(level)
    assert sent == ["begins", "remarks"]
    assert stream.getvalue() == ""


def test_other_threads_of_the_caller_log_as_before(tmp_path: Path, stream: StringIO) -> None:
    go, done = threading.Event(), threading.Event()

    def serve() -> None:
        go.wait()
        logging.getLogger("caller").info("a request")
        done.set()

    thread = threading.Thread(target=serve)
    thread.start()
    with Reporter(tmp_path / "run.log", quiet=True) as report:
        go.set()
        done.wait()
        report.line("ours")
    thread.join()
    assert stream.getvalue() == "a request\n"


def test_loading_a_model_says_nothing_either(
    monkeypatch: pytest.MonkeyPatch, stream: StringIO, world: World
) -> None:
    before = state()
    with pytest.raises(se.UserError):
        se.load_model("pocket", adapter="nowhere")
    se.load_model("vlm")
    assert stream.getvalue() == ""
    assert state() == before
