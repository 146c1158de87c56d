"""What a person sees of a grid at work."""

from __future__ import annotations

import io

from rich.console import Console

from stic_eval.experiment.events import Event
from stic_eval.experiment.view import Board, BoardLine, View


def board() -> Board:
    lines = [
        BoardLine("p=0", ("pairs a", "evaluate p0")),
        BoardLine("p=1", ("pairs a", "train b", "evaluate p1")),
    ]
    work = {"pairs a": 10.0, "train b": 20.0, "evaluate p0": 5.0, "evaluate p1": 5.0}
    return Board(lines, work, 1, names={"train b": "p=1: train, seed 0"})


def test_cells_share_what_they_share() -> None:
    seen = board()
    first, second = seen.lines
    assert [seen.state(line) for line in seen.lines] == ["waits", "waits"]
    assert seen.seconds_left(first) is None  # nothing is known yet
    seen.see(Event("started", "pairs a"))
    seen.see(Event("progress", "pairs a", ("ask for pairs", 3, 6)))
    assert [seen.state(line) for line in seen.lines] == ["ask for pairs 3/6"] * 2
    assert (seen.share(first), seen.share(second)) == (0.25, 1 / 6)
    seen.see(Event("done", "pairs a", seconds=20.0))  # twice as long as thought: so is the rest
    assert seen.seconds_left(first) == 2 * (20 + 5)  # in their order: `train b` comes before `evaluate p0`
    assert seen.seconds_left(second) == 2 * (20 + 5 + 5)


def test_a_failed_cell_says_why_and_the_other_goes_on() -> None:
    seen = board()
    for event in (
        Event("done", "pairs a", seconds=1.0),
        Event("failed", "train b", "out of memory"),
        Event("failed", "evaluate p1", "out of memory"),
    ):
        seen.see(event)
    first, second = seen.lines
    assert (seen.state(first), seen.state(second)) == ("waits", "failed: out of memory")
    assert (seen.is_finished(first), seen.is_finished(second)) == (False, True)


def test_a_pipe_gets_plain_lines() -> None:
    out = io.StringIO()
    with View(board(), stream=out) as view:
        view.see(Event("started", "pairs a"))
        view.see(Event("done", "pairs a", seconds=1.0))
        view.see(Event("started", "train b"))
        view.see(Event("failed", "train b", "bad \x1b[31m\nnews"))
        view.see(Event("failed", "evaluate p1", "bad \x1b[31m\nnews"))  # it needed that
    assert out.getvalue().splitlines() == [
        "[1/4] pairs a: 1.0 s",
        "[2/4] p=1: train, seed 0: failed: bad \\x1b[31m news",
    ]


def test_a_terminal_with_little_room_shows_those_at_work() -> None:
    lines = [BoardLine(f"cell {n}", (f"t {n}",)) for n in range(50)]
    seen = Board(lines, {f"t {n}": 1.0 for n in range(50)}, 1)
    for n in range(40):
        seen.see(Event("done", f"t {n}", seconds=1.0))
    seen.see(Event("started", "t 45"))
    for width in (80, 120):
        console = Console(file=io.StringIO(), width=width, height=12, force_terminal=True, color_system=None)
        console.print(View(seen))
        shown = console.file.getvalue()  # type: ignore[attr-defined]
        assert "cell 45" in shown and "cell 44" in shown and "cell 3 " not in shown
        assert "50 cells, 40 done, 42 not shown" in shown
        assert max(len(line) for line in shown.splitlines()) <= width


def test_what_a_line_is_stands_above_it_and_in_the_count() -> None:
    seen = Board([BoardLine(f"STIC, seed {n}", (f"t {n}",)) for n in range(20)], {"t 0": 1.0}, 2, "variant")
    console = Console(file=io.StringIO(), width=80, height=12, force_terminal=True, color_system=None)
    console.print(View(seen))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.startswith("variant") and "20 variants, 0 done" in shown and "cell" not in shown
