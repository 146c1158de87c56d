"""What a limit on the text of a row cuts, known before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stic_eval.errors import UserError
from stic_eval.models.conversation import Turns, render, room_for, tail_of, turn_end
from stic_eval.store import atomic_write
from stic_eval.training import ranks

FILE = "cuts.json"
_NAMED = 3


@dataclass(frozen=True)
class Cuts:
    """What a limit makes of rows.

    Attributes:
        rows: Numbers of those that have an answer token left in each conversation.
        cut_rows: How many of these lose tokens.
        cut_tokens: How many they lose in all.
    """

    max_length: int
    total: int
    rows: tuple[int, ...]
    cut_rows: int
    cut_tokens: int

    @property
    def left_out(self) -> list[int]:
        """Numbers of the rows that have no answer token left."""
        return sorted(set(range(self.total)) - set(self.rows))


def cuts(processor: Any, rows: Iterable[Sequence[Turns]], max_length: int) -> Cuts:
    """Measures rows; images are not looked at, for they do not count.

    Args:
        rows: The conversations of each: one, or a pair's two with the same prompt.
    """
    end = turn_end(processor)
    rows_left, cut_rows, cut_tokens, total = [], 0, 0, 0
    for number, conversations in enumerate(rows):
        total += 1
        lost, learned = 0, []
        for turns in conversations:
            text, spans = render(processor, turns, end)
            tail, marks = tail_of(processor.tokenizer, text, spans)
            room = room_for(processor, text[: spans[0][0]], max_length)
            lost += max(0, len(tail) - room)
            learned.append(sum(marks[:room]))
        if min(learned) > 0:
            rows_left.append(number)
            cut_rows += lost > 0
            cut_tokens += lost
    return Cuts(max_length, total, tuple(rows_left), cut_rows, cut_tokens)


def report(
    found: Cuts, out: Path, stage: str, name: Callable[[int], str], log: Callable[[str], None]
) -> None:
    """Logs what is cut, and writes `cuts.json` where that is anything.

    Args:
        name: Names a row by its number.

    Raises:
        UserError: No row is left.
    """
    limit = f"max_length {found.max_length:,}"
    if found.total and not found.rows:
        raise UserError(
            f"{stage}: nothing to learn: the prompts of all {found.total:,} rows fill {limit} text tokens and"
            " leave no room for an answer; set a larger max_length, or null for none"
        )
    names = [name(row) for row in found.left_out]
    some = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    log(
        f"{stage}: {limit} text tokens: {found.cut_rows:,} of {found.total:,} rows cut, by "
        f"{found.cut_tokens:,} tokens in all; {len(names):,} left out, without an answer token"
        + (f": {some}" if names else "")
    )
    if (names or found.cut_rows) and ranks.leads():
        content = {
            "max_length": found.max_length, "rows": found.total, "cut_rows": found.cut_rows,
            "cut_tokens": found.cut_tokens, "left_out": names,
        }  # fmt: skip
        atomic_write(out / FILE, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
