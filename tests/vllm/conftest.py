"""The real vLLM, on the CPU. No part of `make test`: `make test-vllm` makes its environment and runs this."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import RESULTS, machine, write
from stic_eval.cli.app import invoke

VENV = Path(__file__).parents[2] / ".venv-vllm"
# Few and short. All greedy: what a server draws is its own. Rates that change answers in a handful of steps.
SMALL = (
    "stage1.images=4", "stage1.temperature=0", "stage1.batch_size=2", "stage1.max_new_tokens=24",
    "stage2.items=4", "stage2.temperature=0", "stage2.batch_size=2", "stage2.max_new_tokens=24",
    "stage1.learning_rate=0.003", "stage2.learning_rate=0.003", "dar.max_new_tokens=24",
)  # fmt: skip
_SEEN = pytest.StashKey[dict[str, Any]]()
_RESULTS = pytest.StashKey[dict[str, dict[str, Any]]]()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder in which `.venv-vllm` is found, with a cache of its own."""
    if not (VENV / "bin" / "vllm").is_file():
        pytest.fail(f"there is no {VENV}: `make test-vllm` makes it")
    folder = tmp_path_factory.mktemp("work")
    (folder / VENV.name).symlink_to(VENV)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("STIC_EVAL_CACHE", str(folder / "cache"))
        # Three processes of each server import thousands of modules, which pip has not compiled.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield folder


@pytest.fixture(scope="session")
def here(place: Path) -> Path:
    """A run of STIC on the embedded model in this process."""
    return _run(place, "hf")


@pytest.fixture(scope="session")
def there(place: Path) -> Path:
    """The same by vLLM."""
    return _run(place, "vllm")


def _run(place: Path, engine: str) -> Path:
    argv = ["run", "--method", "stic", "--engine", engine, "--output", engine, "--quiet"]
    argv += ["--dtype", "float32", "--device", "cpu", "--benchmarks", "textvqa", "--limit", "4"]
    assert invoke([*argv, *(part for option in SMALL for part in ("-o", option))]) == 0
    return place / engine


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where a test writes down what it has seen."""
    return request.node.stash.setdefault(_SEEN, {})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keeps what becomes of each test."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        what = item.name.removeprefix("test_").replace("_", " ")
        found = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "outcome": report.outcome}
        item.session.stash.setdefault(_RESULTS, {})[what] = found | item.stash.get(_SEEN, {})
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes bench/results/vllm.json; tests that were not run stay in it as far as versions are the same."""
    results = session.stash.get(_RESULTS, {})
    if not results or not (VENV / "bin" / "vllm").is_file():
        return
    facts, theirs = machine(), _versions()
    path = RESULTS / "vllm.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = before and (before["machine"]["versions"], before["vllm"]) == (facts["versions"], theirs)
    write("vllm", facts, {"vllm": theirs, "tests": (before["tests"] if same else {}) | results})


def _versions() -> dict[str, str]:
    """Of vLLM's environment."""
    code = (
        "import json; from importlib.metadata import version;"
        "print(json.dumps({name: version(name) for name in ('vllm', 'torch', 'transformers')}))"
    )
    done = subprocess.run([VENV / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
