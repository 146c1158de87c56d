"""The real vLLM, on the CPU. No part of `make test`: `make test-vllm` makes its environment and runs this."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import machine, write
from stic_eval.cli.app import invoke

VENV = Path(__file__).parents[2] / ".venv-vllm"
# Few and short. All greedy: what a server draws is its own. Rates that change answers in a handful of steps.
SMALL = (
    "stage1.images=4", "stage1.temperature=0", "stage1.batch_size=2", "stage1.max_new_tokens=24",
    "stage2.items=4", "stage2.temperature=0", "stage2.batch_size=2", "stage2.max_new_tokens=24",
    "stage1.learning_rate=0.003", "stage2.learning_rate=0.003", "dar.max_new_tokens=24",
)  # fmt: skip
_TESTS = pytest.StashKey[int]()
_SEEN = pytest.StashKey[dict[str, Any]]()


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
        yield folder


@pytest.fixture(scope="session")
def runs(place: Path) -> dict[str, Path]:
    """Folders of one run on the embedded model, by vLLM and in this process."""
    found = {}
    for engine in ("vllm", "hf"):
        argv = ["run", "--method", "stic", "--engine", engine, "--output", engine, "--quiet"]
        argv += ["--dtype", "float32", "--device", "cpu", "--benchmarks", "textvqa", "--limit", "4"]
        assert invoke([*argv, *(part for option in SMALL for part in ("-o", option))]) == 0
        found[engine] = place / engine
    return found


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where a test writes down what it has seen."""
    what = request.node.name.removeprefix("test_").replace("_", " ")
    found: dict[str, Any] = request.session.stash[_SEEN].setdefault(what, {})
    return found


def pytest_collection_finish(session: pytest.Session) -> None:
    """Counts the tests, all of which a result has to have."""
    session.stash[_TESTS], session.stash[_SEEN] = len(session.items), {}


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Writes bench/results/vllm.json, if all have passed."""
    seen = session.stash.get(_SEEN, {})
    if exitstatus == 0 and seen and len(seen) == session.stash[_TESTS]:
        write("vllm", machine(), {"vllm": _versions(), "seen": seen})


def _versions() -> dict[str, str]:
    """Of vLLM's environment."""
    code = (
        "import json; from importlib.metadata import version;"
        "print(json.dumps({name: version(name) for name in ('vllm', 'torch', 'transformers')}))"
    )
    done = subprocess.run([VENV / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
