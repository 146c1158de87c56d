"""Writes the table of docs/clusters.md: `python -m bench.clusters_md`; `--check` changes nothing.

It is made by `stic_eval/engines/costs.py`, of figures of data sheets: nothing of it was measured.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

from bench.committed import ROOT
from bench.rewriting import rewrite
from stic_eval.cli.dryrun import duration
from stic_eval.engines.costs import (
    GPUS,
    Answers,
    Rows,
    Size,
    seconds_of_answers,
    seconds_of_loading,
    seconds_of_rows,
)
from stic_eval.experiment.estimates import ANSWER, DESCRIPTION, IMAGE, QUESTION

PAGE = ROOT / "docs" / "clusters.md"
SHOWN = ("A100", "H100")
SIZE = Size(7.06e9)  # LLaVA-1.5-7B in bfloat16
IMAGES, ITEMS, EVALUATED = 6_000, 5_000, 15_124
_PROMPT, _ROW = IMAGE + QUESTION, IMAGE + QUESTION + DESCRIPTION


class Step(NamedTuple):
    """A line of the table: what is asked and trained."""

    name: str
    work: Sequence[Answers | Rows]


STEPS = (
    Step("`pairs`", [Answers(2 * IMAGES, _PROMPT, DESCRIPTION)]),
    Step("`preference`", [Rows(IMAGES, _ROW, 2, reference=True)]),
    Step("`descriptions`", [Answers(ITEMS, _PROMPT, DESCRIPTION, adapter=True)]),
    Step("`infused_sft`", [Rows(ITEMS, _ROW)]),
    Step("evaluate, direct", [Answers(EVALUATED, _PROMPT, ANSWER, adapter=True)]),
    Step(
        "evaluate, describing first",
        [
            Answers(EVALUATED, _PROMPT, DESCRIPTION, adapter=True),
            Answers(EVALUATED, _PROMPT + DESCRIPTION, ANSWER, adapter=True),
        ],
    ),
)


def page(before: str) -> str:
    """The page with its table as it is now."""
    block = re.compile(r"(<!-- costs -->\n).*?(<!-- /costs -->)", re.DOTALL)
    parts = block.split(before)
    return f"{parts[0]}{parts[1]}{table()}\n{parts[2]}{parts[3]}"


def table() -> str:
    """What each stage takes of a GPU."""
    gpus = [gpu for gpu in GPUS if gpu.name in SHOWN]
    lines = [
        f"| stage | answers | rows trained | {' | '.join(gpu.name for gpu in gpus)} |",
        f"|---|---:|---:|{'---:|' * len(gpus)}",
    ]
    for step in STEPS:
        answers = sum(one.count for one in step.work if isinstance(one, Answers))
        rows = sum(one.count for one in step.work if isinstance(one, Rows))
        took = []
        for gpu in gpus:
            each = (
                seconds_of_answers(one, SIZE, gpu)
                if isinstance(one, Answers)
                else seconds_of_rows(one, SIZE, gpu)
                for one in step.work
            )
            took.append(duration(seconds_of_loading(SIZE) + sum(each)))
        counts = (f"{count:,}" if count else "" for count in (answers, rows))
        lines.append(f"| {' | '.join((step.name, *counts, *took))} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Writes the page, or looks whether it is up to date."""
    return rewrite(PAGE, page, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
