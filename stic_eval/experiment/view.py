"""How far work is: one line for each cell or variant, live on a terminal, plain in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from stic_eval.experiment.events import Event
from stic_eval.experiment.progress import moving
from stic_eval.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_PLAIN_SECONDS = 30.0  # between two plain lines about one task


@dataclass
class BoardLine:
    """A cell or variant: its label, and the ids of its tasks in the order in which they come."""

    label: str
    tasks: tuple[str, ...]
    note: str = ""  # how it came out, once it is done


@dataclass
class Board:
    """The state of all tasks, and how long the rest will take.

    Attributes:
        lines: The cells of a grid, or the variants of a run.
        work: Task -> what it takes by a rough estimate, in seconds; its kind is the id's first word.
        jobs: Workers.
        kind: What a line is.
        names: Task -> what it is called.
    """

    lines: Sequence[BoardLine]
    work: Mapping[str, float]
    jobs: int
    kind: str = "cell"
    names: Mapping[str, str] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[str, tuple[float, str, int, int | None]] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """Takes in an event."""
        if event.kind == "started":
            self.running[event.task] = (time.monotonic(), "", 0, None)
        elif event.kind == "progress" and event.task in self.running:
            self.running[event.task] = (self.running[event.task][0], *event.value)
        elif event.kind in ("done", "failed"):
            self.running.pop(event.task, None)
            if event.kind == "done":
                self.done[event.task] = event.seconds
            else:
                self.failed[event.task] = str(event.value)

    def is_finished(self, line: BoardLine) -> bool:
        """Whether nothing of a line is left to do."""
        return all(task in self.done or task in self.failed for task in line.tasks)

    def seconds_left(self, line: BoardLine) -> float | None:
        """Seconds until a line is done, if tasks go on in their order; None before any has finished."""
        if not self.done:
            return None
        total, wanted = 0.0, set(line.tasks) - self.done.keys() - self.failed.keys()
        for task in self.work:
            if not wanted:
                break
            wanted.discard(task)
            if task not in self.done and task not in self.failed:
                elapsed = time.monotonic() - self.running[task][0] if task in self.running else 0.0
                total += max(0.0, self._seconds(task) - elapsed)
        return total / self.jobs

    def _seconds(self, task: str) -> float:
        """What a task takes, by how the finished ones of its kind, or else all, went."""
        kind = kind_of(task)
        seen = [t for t in self.done if kind_of(t) == kind] or list(self.done)
        guessed = sum(self.work.get(t, 0.0) for t in seen)
        return self.work[task] * (sum(self.done[t] for t in seen) / guessed if guessed else 1.0)

    def state(self, line: BoardLine) -> str:
        """What a line is at, in words."""
        broken = next((self.failed[t] for t in line.tasks if t in self.failed), None)
        if broken is not None:
            return f"failed: {broken}"
        if self.is_finished(line):
            return line.note or "done"
        active = [(t, self.running[t]) for t in line.tasks if t in self.running]
        if not active:
            return "waits"
        task, (_, what, done, total) = active[0]
        of = f" {done}/{total}" if total else ""
        more = f" (+{len(active) - 1})" if len(active) > 1 else ""
        return f"{what or kind_of(task)}{of}{more}"

    def share(self, line: BoardLine) -> float:
        """How much of a line is done, from 0 to 1."""
        done = 0.0
        for task in line.tasks:
            if task in self.done:
                done += 1
            elif task in self.running:
                _, _, part, total = self.running[task]
                done += part / total if total else 0.0
        return done / len(line.tasks) if line.tasks else 1.0


def kind_of(task: str) -> str:
    """The kind of a task: its id's first word."""
    return task.partition(" ")[0]


class View:
    """Shows a board while the block runs.

    Args:
        board: What is shown.
        quiet: Nothing is.
        stream: Where.
    """

    def __init__(self, board: Board, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.board, self.quiet, self._stream = board, quiet, stream or sys.stderr
        self._live: object | None = None
        self._said: dict[str, float] = {}

    def __enter__(self) -> View:
        if not self.quiet and (console := moving(self._stream)) is not None:
            from rich.live import Live

            live = Live(self, console=console, refresh_per_second=4, transient=True)
            live.start()
            self._live = live
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()  # type: ignore[attr-defined]
            self._live = None

    def line(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        text = " ".join(printable(text).split("\n"))
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, style="dim")  # type: ignore[attr-defined]
        else:
            print(text, file=self._stream, flush=True)

    def see(self, event: Event) -> None:
        """Takes in an event, and says what is worth a plain line."""
        begun = event.task in self.board.running  # else it only needed one that failed
        self.board.see(event)
        name = self.board.names.get(event.task, event.task)
        count = f"[{len(self.board.done) + len(self.board.failed)}/{len(self.board.work)}]"
        if event.kind == "line":
            self.line(str(event.value))
        elif event.kind == "failed" and begun:
            self.line(f"{count} {name}: failed: {event.value}")
        elif event.kind == "done":
            self.line(f"{count} {name}: {event.seconds:.1f} s")
        elif event.kind == "progress" and self._live is None:
            what, done, total = event.value
            now = time.monotonic()
            if total and now - self._said.setdefault(event.task, now) > _PLAIN_SECONDS:
                self._said[event.task] = now
                self.line(f"{count} {name}: {what} {done}/{total}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        grid.add_column(self.board.kind, overflow="ellipsis", no_wrap=True, ratio=3)
        grid.add_column("", width=14)
        grid.add_column("at", overflow="ellipsis", no_wrap=True, ratio=2)
        grid.add_column("left", justify="right", width=7)
        for line in self._visible_lines(max(3, (options.height or console.height) - 4)):
            left = None if self.board.is_finished(line) else self.board.seconds_left(line)
            grid.add_row(
                Text(printable(line.label)),
                ProgressBar(total=1.0, completed=self.board.share(line), width=14),
                Text(printable(self.board.state(line))),
                "" if left is None else _clock(left),
            )
        yield grid
        hidden = len(self.board.lines) - grid.row_count
        if hidden:
            done = sum(self.board.is_finished(line) for line in self.board.lines)
            yield Text(
                f"{len(self.board.lines)} {self.board.kind}s, {done} done, {hidden} not shown", style="dim"
            )

    def _visible_lines(self, room: int) -> list[BoardLine]:
        """The lines that there is room for: those at work first, then those that wait, in their order."""
        lines = list(self.board.lines)
        if len(lines) <= room:
            return lines

        def rank(line: BoardLine) -> int:
            if any(task in self.board.running for task in line.tasks):
                return 0
            return 2 if self.board.is_finished(line) else 1

        places = sorted(range(len(lines)), key=lambda n: (rank(lines[n]), n))[:room]
        return [lines[n] for n in sorted(places)]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
