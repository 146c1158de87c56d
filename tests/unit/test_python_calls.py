"""What calls of the Python API leave as it was; scripts with workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stic_eval as se
from stic_eval import hub_access
from stic_eval.experiment import inputs

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
