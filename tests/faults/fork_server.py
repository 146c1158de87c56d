"""Commands in processes forked from one that has imported everything, with their file operations numbered.

To start Python and import torch anew takes longer than most of these commands do.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("file_operations.c")
# What a command needs at most, imported once; none of it starts a thread that a fork would lose.
IMPORTED = (
    "stic_eval.cli.run", "stic_eval.cli.ablate", "stic_eval.cli.export", "stic_eval.cli.report",
    "stic_eval.cli.import_", "stic_eval.cli.score", "stic_eval.cli.data", "stic_eval.api",
    "stic_eval.training.dpo", "stic_eval.training.sft", "stic_eval.models.hf_model",
    "stic_eval.evals.judging", "stic_eval.models.openai_client", "stic_eval.report.html_report",
    "trl.trainer.sft_trainer",
    "transformers.models.llava.modeling_llava", "transformers.models.llava.processing_llava",
    "transformers.models.clip.modeling_clip", "transformers.models.llama.modeling_llama",
    "datasets.io.parquet", "pyarrow.parquet", "peft.utils.transformers_weight_conversion",
    "matplotlib.figure", "scipy.io", "scipy.stats", "stic_eval.evals.data_preparation",
    "stic_eval.methods.stic", "stic_eval.benchmarks.chartqa", "stic_eval.benchmarks.mmvet",
    "stic_eval.models.continuous_batching", "stic_eval.models.plain_generation", "stic_eval.evals.runner",
)  # fmt: skip
# In the process of a command, before it begins: workers are forked too, every answer is kept when it comes,
# and every step of training has its checkpoint.
PREPARED = """
import multiprocessing
from stic_eval import lease
from stic_eval.experiment.executors import processes
from stic_eval.models import response_cache
from stic_eval.training import training_loop
processes.get_context = lambda kind: multiprocessing.get_context("fork")
response_cache._COMMIT_ANSWERS = 1
lease._POLL = 0.01
training_loop.CHECKPOINT_SECONDS = 0.0
"""


@dataclass(frozen=True)
class Operation:
    """A file operation: what is done, and to what, by its path below the folder that is watched."""

    kind: str
    path: str


@dataclass(frozen=True)
class Ended:
    """How a command has ended.

    Attributes:
        code: Its exit code; negative: the signal that has killed it.
        operations: What it has done to files, in order; of one that was killed the last has not been done.
        output: What it has printed.
        seconds: How long it took.
    """

    code: int
    operations: list[Operation]
    output: str
    seconds: float


@dataclass(frozen=True)
class _Order:
    argv: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    fatal: int
    fatal_seconds: float
    log: str


def compiled(folder: Path) -> Path:
    """The library that numbers file operations; needs a C compiler."""
    library = folder / "file_operations.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    return library


class ForkServer:
    """A process with everything imported, of which commands are forked: a context manager.

    Args:
        work: Where its library and logs lie.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        environment = {**os.environ, "LD_PRELOAD": str(compiled(work)), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.fork_server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(
        self,
        argv: Sequence[str | Path],
        folder: Path,
        fatal: int = 0,
        *,
        fatal_seconds: float = 0.0,
        flushed: Path | None = None,
    ) -> Ended:
        """Runs `stic-eval` in a folder, with a cache of that folder's own, and waits for its end.

        Args:
            argv: What stands behind `stic-eval`.
            folder: What is below it is watched.
            fatal: The number of the file operation at which the process is killed that comes to it; 0: none.
            fatal_seconds: The time after which the command is killed, with its workers; 0: never.
            flushed: A folder that is given what was on the disk (`power_cut`); None: nobody asks.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory(dir=self._work) as logs:
            log = Path(logs) / "log"
            environment = {"STIC_EVAL_CACHE": str(folder / "cache"), "COLUMNS": "200"}
            order = _Order([*map(str, argv)], str(folder), environment, fatal, fatal_seconds, str(log))
            began = time.monotonic()
            self._process.stdin.write(json.dumps(asdict(order)) + "\n")
            self._process.stdin.flush()
            code, seconds = int(self._process.stdout.readline()), time.monotonic() - began
            if flushed is not None:
                shutil.copytree(f"{log}.synced", flushed, dirs_exist_ok=True)
            # Of a command that was killed before it began there is neither.
            lines, output = _text(log).splitlines(), _text(Path(f"{log}.output"))
        lines.sort(key=lambda line: int(line.partition(" ")[0]))  # threads may write them out of turn
        return Ended(code, [Operation(*line.split(" ", 2)[1:]) for line in lines], output, seconds)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _serve() -> None:
    import importlib

    for name in IMPORTED:
        importlib.import_module(name)
    for line in sys.stdin:
        order = _Order(**json.loads(line))
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            os.setsid()
            os.close(told)
            os.close(ready)
            _obey(order)
        os.close(told)
        os.read(ready, 1)  # until it leads a group of its own
        os.close(ready)
        watch = threading.Timer(order.fatal_seconds, os.killpg, (child, signal.SIGKILL))
        if order.fatal_seconds:
            watch.start()
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # not reaped: its number stays its own
        watch.cancel()
        with suppress(ProcessLookupError):  # workers that it has left
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _obey(order: _Order) -> None:
    from stic_eval.cli.app import main

    output = os.open(f"{order.log}.output", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(order.environment)
    os.chdir(order.folder)
    exec(PREPARED, {})
    ctypes.CDLL(None).begin_counting(
        os.fsencode(order.folder), ctypes.c_long(order.fatal), os.fsencode(order.log)
    )
    main(order.argv)
    sys.exit()


if __name__ == "__main__":
    _serve()
    os._exit(0)  # what libraries do at their end takes them seconds
