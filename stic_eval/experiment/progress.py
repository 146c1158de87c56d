"""What a person sees of long work: a live line with rate and ETA, plain lines in a pipe, and run.log."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from stic_eval.errors import UserError
from stic_eval.experiment.pace import Pace
from stic_eval.library_messages import STANDARD_ERROR
from stic_eval.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_LOGGER = "stic_eval.run"
_PLAIN_SECONDS = 15.0  # time between two plain lines about one piece of work


class Step:
    """One piece of work with a known or unknown number of items."""

    def __init__(self, report: Reporter, name: str, total: int | None) -> None:
        self._report, self.name, self.total, self.done = report, name, total, 0
        self._start = self._said = time.monotonic()
        self._pace = Pace(self._start)
        self._task = report.live.add_task(name, total=total, pace=self._pace) if report.live else None

    def update(self, done: int, total: int | None = None) -> None:
        """Sets the number of items done, and their total if it has become known."""
        self.done, self.total = done, total if total is not None else self.total
        self._pace.see(time.monotonic(), done)
        if self._report.live and self._task is not None:
            self._report.live.update(self._task, completed=done, total=self.total)
        elif time.monotonic() - self._said >= _PLAIN_SECONDS:
            self._said = time.monotonic()
            self._report.plain(self._line())

    def finish(self) -> None:
        """Ends the step: the live line goes, a plain line stays."""
        if self._report.live and self._task is not None:
            self._report.live.remove_task(self._task)
        elapsed = time.monotonic() - self._start
        count = f"{self.done} in " if self.done else ""
        self._report.line(f"{self.name}: {count}{elapsed:.1f} s")

    def _line(self) -> str:
        of = f"/{self.total}" if self.total else ""
        pace = self._pace.text(time.monotonic(), self.total)
        return f"{self.name}: {self.done}{of}{', ' if pace else ''}{pace}"


Update = Callable[[int, int | None], None]


class _LogFile(logging.FileHandler):
    """A run's log, which is no handler of whoever calls."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Says once that lines are lost: of a full disk whatever is to be kept there says the rest."""
        error = sys.exception()
        if isinstance(error, OSError) and not self._failed:
            self._failed = True
            print(f"{self.baseFilename}: lines of the log are lost: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        """Closes the file; what cannot be written any more is lost."""
        with suppress(OSError):
            super().close()


class _Warnings(logging.Handler):
    """Warnings of this program on their way to the terminal; errors end the command, which says so."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self._show(record.getMessage())


@contextmanager
def spare_callers_handlers() -> Iterator[None]:
    """Keeps what is logged while the block runs from handlers that a caller has given to the root logger.

    What its other threads log meanwhile is theirs, and is passed on.
    """
    theirs = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}

    def is_theirs(record: logging.LogRecord) -> bool:
        return record.process == os.getpid() and record.thread in theirs

    handlers = [one for one in logging.getLogger().handlers if not isinstance(one, _LogFile)]
    for handler in handlers:
        handler.addFilter(is_theirs)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_theirs)


class Reporter:
    """Progress on stderr, or by a notebook's widgets, and a log file: a context manager.

    It leaves logging and warnings as they were. Lines reach the log files of all that are open.

    Args:
        log_file: Every line with its time; None for no file.
        verbose: Log lines go to the terminal too.
        quiet: Nothing but warnings and errors goes to the terminal.
        stream: Where progress goes; stderr.
    """

    def __init__(
        self,
        log_file: Path | None,
        *,
        verbose: bool = False,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.verbose, self.quiet = verbose, quiet
        self.live: Progress | None = None
        self.log_file = log_file
        self._stream = stream or sys.stderr
        self._logger = logging.getLogger(_LOGGER)
        self._around = ExitStack()

    def __enter__(self) -> Reporter:
        with ExitStack() as around:  # which is undone if the file cannot be opened
            around.enter_context(spare_callers_handlers())
            if self.log_file:
                around.enter_context(_logged(self.log_file))
            else:
                around.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            told = _Warnings(self._print)
            self._logger.addHandler(told)
            around.callback(self._logger.removeHandler, told)
            around.callback(self._logger.setLevel, self._logger.level)
            self._logger.setLevel(logging.INFO)
            self._around = around.pop_all()
        if not self.quiet and (console := moving(self._stream)) is not None:
            self.live = _live(console)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()
            self.live = None
        if self.log_file and isinstance(error, UserError):
            self._logger.error("failed: %s", _one_line(str(error)))
        elif self.log_file and error is not None and not isinstance(error, KeyboardInterrupt):
            self._logger.error("failed", exc_info=error)
        self._around.close()

    def hand_over(self) -> None:
        """Leaves the terminal to other output; the log goes on."""
        if self.live:
            self.live.stop()
        self.quiet, self.live = True, None

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Step]:
        """Shows a piece of work while the block runs."""
        step = Step(self, name, total)
        yield step
        step.finish()

    @contextmanager
    def updates(self, name: str, total: int | None = None) -> Iterator[Update]:
        """A step as the machinery below sees it: a function of (items done, items in all)."""
        with self.step(name, total) as step:
            yield step.update

    def log(self, line: str) -> None:
        """A line for the log file, and for the terminal with -v."""
        self._logger.info(_one_line(line))
        if self.verbose and not self.quiet:
            self._print(line)

    def line(self, line: str) -> None:
        """A line for the log file and the terminal."""
        self._logger.info(_one_line(line))
        self.plain(line)

    def plain(self, line: str) -> None:
        """A line for the terminal alone."""
        if not self.quiet:
            self._print(line)

    def _print(self, line: str) -> None:
        line = _one_line(line)
        with STANDARD_ERROR:
            if self.live:
                self.live.console.print(line, markup=False, highlight=False, style="dim")
            else:
                print(line, file=self._stream, flush=True)


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Has what is logged, and warnings, written into a file while the block runs."""
    handler, root, show = _LogFile(path), logging.getLogger(), warnings.showwarning
    root.addHandler(handler)
    logging.captureWarnings(True)
    captured_here = warnings.showwarning is not show
    try:
        yield
    finally:
        if captured_here:
            logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()


def _one_line(line: str) -> str:
    """Makes text one line: names of files may hold line breaks."""
    return " ".join(printable(line).split("\n"))


def moving(stream: TextIO) -> Console | None:
    """Where what moves can be shown: a terminal, or a notebook that has widgets; None: lines have to do."""
    if not stream.isatty() and (stream is not sys.stderr or "IPython" not in sys.modules):
        return None
    from rich.console import Console

    if stream.isatty():
        return Console(file=stream)
    console = Console()
    return console if console.is_jupyter and find_spec("ipywidgets") is not None else None


def _live(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
    )
    from rich.progress import Task as RichTask
    from rich.text import Text

    class PaceColumn(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            pace: Pace = task.fields["pace"]
            total = None if task.total is None else round(task.total)
            return Text(pace.text(time.monotonic(), total), style="dim")

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        PaceColumn(),
        console=console,
        transient=True,
    )
