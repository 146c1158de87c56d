"""Which of a table's notes a terminal shows: what can invalidate a number always, of the others a few."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

ROOM = 5  # lines below a table, beside notes that can invalidate a number

# Notes that explain a table and take nothing away from its numbers, the most wanted first. Whatever is not
# among them, such as a note that somebody else has written, can invalidate a number, and is always shown.
_RUN = r"(?:[^:;]{1,80}: )?"  # of several runs, whose note it is
_SIGNS = (r"§ .*", r"= no row's score differs.*", r"\* p < 0\.05.*")  # which stand in cells: always shown
_EXPLAINING = tuple(
    re.compile(_RUN + pattern, re.DOTALL)
    for pattern in (
        *_SIGNS,
        r"Scores in percent[;,.].*",
        r"Use the detail layout for metrics such as F1.*",
        r"Trained methods: mean over .*",
        r"Default: .*",
        r"Cells: .*",
        r"Only the stars are corrected.*",
        r"Parts are small and may overlap: .*",
        r"[^;]* by [^;]*, in (?:percent|points).*",
        r"Published: .*",
        r"One training seed.*",
        r"Average: mean of the \d+ benchmarks' percentages\.",
        r"Asked as: .*",
        r"The model's weights in (?:bfloat16|float16|float32).*",
        r"Answered by .*",
        r"Training cost of a seed: .*",
        r"Smallest difference of the average .*",
        r"better, worse: .*",
        r"detectable: .*",
        r"p: .*",
        r"Intervals?: .*",
        r"Clusters of units that are resampled .*",
        r"Stars: .*",
        r"[^;]*: n = [\d/]+(?: in [\d/]+ clusters?)?(?:; (?!\d).*)?\.",
        r"Preference loss: .*",
        r"Trained on images padded .*",
        r"Rows with training\.images=.*",
        r"Text in training \((?!.*left out).*",
        r"Rounding: in \w+, 0 of .*",
        r"\d+ of \d+ answers come after thinking.*",
        r"Room for thinking: .*",
    )
)


def rank(note: str) -> int | None:
    """How much a note that explains is wanted, 0 the most; None: it can invalidate a number."""
    return next((at for at, known in enumerate(_EXPLAINING) if known.fullmatch(note)), None)


def choose(notes: Sequence[str], width: int) -> tuple[list[str], int]:
    """The notes that are shown below a table, in their order, and how many others there are.

    What can invalidate a number is always shown and takes no room. The others have `ROOM` lines. Those that
    explain a sign come first, and are never left out; where others are, one line says so.

    Args:
        notes: All of them, each one line.
        width: Columns of the terminal.
    """
    ranks = {note: rank(note) for note in notes}
    explaining = sorted(
        (note for note in ranks if ranks[note] is not None), key=lambda note: ranks[note] or 0
    )
    lines = {note: len(textwrap.wrap(note, max(20, width))) for note in explaining}
    room = ROOM if sum(lines.values()) <= ROOM else ROOM - 1
    shown = set[str]()
    for note in explaining:
        if lines[note] <= room or (ranks[note] or 0) < len(_SIGNS):
            shown.add(note)
            room -= lines[note]
    chosen = [note for note in ranks if ranks[note] is None or note in shown]
    return chosen, len(ranks) - len(chosen)


def lines(notes: Sequence[str], width: int, more: str) -> list[str]:
    """What is printed of notes: those that are shown, and what shows the others, if there are any.

    Args:
        notes: All of them, each one line.
        width: Columns of the terminal.
        more: What shows all.
    """
    shown, left_out = choose(notes, width)
    several = "1 more note" if left_out == 1 else f"{left_out} more notes"
    return [*shown, f"{several}: {more}"] if left_out else shown
