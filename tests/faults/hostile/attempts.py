"""One try: the command on a hostile input, and everything that may never come of it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import typer

from tests.faults.hostile.watch import watching

SECRET = "sk-canary-5f1c0de"
_CPU_SECONDS = 120  # of this process; a busy machine takes longer, and no more of these
_WALL_SECONDS = 300  # what waits for a server that never ends
_MEMORY = 2 << 30  # bytes that a try may take beyond what the process had
_LINE = 1500  # characters: several quoted values and what is to be done
_BIDI = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f]")


class Endless(BaseException):
    """A try has taken more time than any may."""


_command_of = cache(typer.main.get_command)


@dataclass(frozen=True)
class Tried:
    """What came of a try."""

    code: int
    out: str
    err: str


@dataclass
class Place:
    """Folders that a try may use, others that it may not, and what has come of all tries so far.

    Attributes:
        root: Watched as a whole.
        work: Working directory, with the inputs.
        outputs: Folders below `work` that commands are told to write to.
        ports: Of servers that may be asked.
        code: Whether a user's own code is tried, whose mistakes are named and not the input's.
    """

    root: Path
    outputs: Sequence[str] = ("out", "results")
    ports: Sequence[int] = ()
    code: bool = False
    codes: Counter[int] = field(default_factory=Counter)
    tries: int = 0
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for folder in (self.work, self.root / "home", self.root / "tmp", self.root / "cache"):
            folder.mkdir(parents=True, exist_ok=True)
        import datasets  # noqa: F401 - writes a file when it is imported
        from PIL import Image

        Image.new("RGB", (8, 8), "red").save(self.secret_image)
        (self.root / "secret.txt").write_text(SECRET)
        (self.root / "secret.jsonl").write_text(json.dumps({"id": SECRET}))

    @property
    def work(self) -> Path:
        """Where commands run."""
        return self.root / "work"

    @property
    def secret_image(self) -> Path:
        """A usable image beside the working directory, which no input may reach."""
        return self.root / "secret.png"

    @property
    def canary(self) -> Path:
        """What every payload tries to make."""
        return self.root / "canary"

    def attempt(self, *argv: str | Path, tries: int = 1, codes: Sequence[int] = (0, 1, 2, 3)) -> Tried:
        """Runs the command, and asserts what holds for whatever it is given.

        Args:
            argv: What stands behind `stic-eval`.
            tries: How many inputs it is given at once.
            codes: Exit codes that may come of it.
        """
        before = self._inputs()
        environment = dict(os.environ)
        held = _resident()
        secrets = (self.secret_image, self.root / "secret.txt", self.root / "secret.jsonl")
        allowed = [self.root / "cache", self.root / "tmp", *(self.work / name for name in self.outputs)]
        err = io.StringIO()
        with _unsaid_to(err), watching(allowed, secrets, self.ports) as watch:
            tried = self._run([str(arg) for arg in argv], err)
        tried = replace(tried, err=err.getvalue())
        self.tries += tries
        self.codes[tried.code] += tries
        wrong = [*complaints(tried, codes), *watch.seen]
        wrong += [f"changed or new: {name}" for name in _differing(before, self._inputs())]
        if dict(os.environ) != environment:
            wrong.append("the environment has changed")
        if self.canary.exists():
            wrong.append("something was executed")
        if left := os.listdir(self.root / "tmp"):
            wrong.append(f"temporary files were left: {left}")
        if (taken := _peak() - held) > _MEMORY:
            wrong.append(f"{taken >> 20} MiB were taken")
        judge(wrong, argv, tried)
        return tried

    def warm(self, *argv: str | Path) -> None:
        """Runs a command of which nothing is asserted: libraries make folders and set variables once."""
        self._run([str(arg) for arg in argv], io.StringIO())
        self.clear()
        for path in (self.root / "tmp").iterdir():
            shutil.rmtree(path)

    def clear(self) -> None:
        """Takes away what commands have written."""
        for name in self.outputs:
            shutil.rmtree(self.work / name, ignore_errors=True)
        for name in ("datasets", "responses", "judge", "images"):
            shutil.rmtree(self.root / "cache" / name, ignore_errors=True)

    def _run(self, argv: list[str], err: io.StringIO) -> Tried:
        from stic_eval.cli.app import invoke

        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            self._environment(patch)
            with _in_time(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = invoke(argv)
        return Tried(code, out.getvalue(), "")

    def _environment(self, patch: pytest.MonkeyPatch) -> None:
        import datasets

        # The command is put together anew at every call, which takes longer than most tries.
        patch.setattr(typer.main, "get_command", _command_of)
        for name in ("STIC_EVAL_PLUGINS", "LMUData", "OPENAI_API_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("STIC_EVAL_CACHE", str(self.root / "cache"))
        patch.setenv("HOME", str(self.root / "home"))
        patch.setenv("MPLCONFIGDIR", str(self.root / "cache" / "matplotlib"))
        patch.setenv("CANARY_KEY", SECRET)
        patch.setenv("COLUMNS", "200")
        patch.setattr(tempfile, "tempdir", str(self.root / "tmp"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", self.root / "cache" / "datasets")
        patch.chdir(self.work)

    def _inputs(self) -> dict[str, tuple[int, int, int]]:
        """Every file that no command may touch, by size and times."""
        found = {}
        skipped = {self.root / "cache", self.root / "tmp", *(self.work / name for name in self.outputs)}
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if Path(folder, name) not in skipped]
            for name in (*files, *folders):
                stat = os.lstat(os.path.join(folder, name))
                size = -1 if name in folders else stat.st_size
                found[os.path.join(folder, name)] = (stat.st_mode, size, stat.st_mtime_ns if size >= 0 else 0)
        return found


def judge(wrong: Sequence[str], argv: Sequence[object], tried: Tried) -> None:
    """Ends a test whose command has done what none may do."""
    assert not wrong, (wrong, argv, tried.code, tried.out[-500:], tried.err[-1500:])


def complaints(tried: Tried, codes: Sequence[int] = (0, 1, 2, 3)) -> list[str]:
    """What is wrong with what a command has said, whatever it was given."""
    wrong = []
    said = tried.out + tried.err
    if tried.code not in codes:
        wrong.append(f"exit code {tried.code}")
    if "Traceback (most recent" in said or "failed unexpectedly" in said:
        wrong.append("failed unexpectedly")
    lines = tried.err.splitlines()
    if tried.code == 2 and not (len(lines) == 1 and lines[0].startswith("stic-eval: ")):
        wrong.append(f"{len(lines)} lines about a mistake")
    if (longest := max(len(line) for line in said.split("\n"))) > _LINE:
        wrong.append(f"a line of {longest} characters")
    if SECRET in said:
        wrong.append("a secret is shown")
    control = {c for c in said if unicodedata.category(c) == "Cc" and c not in "\n\t"} | set(
        _BIDI.findall(said)
    )
    if control:
        wrong.append(f"characters that drive a terminal: {sorted(control)}")
    try:
        said.encode()
    except UnicodeEncodeError:
        wrong.append("no text")
    return wrong


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))[:5]


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Ends a block that takes far longer than any input is worth: by its own time, and by the clock."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Endless(f"no end after {_CPU_SECONDS} s of computing, or {_WALL_SECONDS} s of waiting")

    previous = [signal.signal(kind, stop) for kind in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _WALL_SECONDS)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for kind, handler in zip((signal.SIGPROF, signal.SIGALRM), previous, strict=True):
            signal.signal(kind, handler)


@contextlib.contextmanager
def _unsaid_to(err: io.StringIO) -> Iterator[None]:
    """Has all that would reach a terminal reach `err`: warnings, libraries' logs, and what C writes."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said, warnings.catch_warnings():
        own = os.dup(2)
        os.dup2(said.fileno(), 2)
        handlers = [
            handler
            for logger in (*logging.root.manager.loggerDict.values(), logging.root)
            for handler in getattr(logger, "handlers", ())
            if type(handler) is logging.StreamHandler
        ]
        # Not by `setStream`, which flushes: what earlier tests were given may be closed.
        streams = [handler.stream for handler in handlers]
        for handler in handlers:
            handler.stream = err
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = lambda *what, **how: err.write(f"warning: {what[0]}\n") and None
        try:
            yield
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                handler.stream = stream
            os.dup2(own, 2)
            os.close(own)
            said.seek(0)
            err.write(said.read().decode("utf-8", "replace"))


def _resident() -> int:
    """Bytes of memory that this process has; its peak counts from now on. Linux alone says so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM") if os.path.exists("/proc/self/clear_refs") else 0


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    return 0
