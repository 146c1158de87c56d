"""`stic-eval compare`: two evaluated variants, sample by sample."""

from __future__ import annotations

import sys
from itertools import chain, zip_longest
from typing import Annotated, Literal

from stic_eval.errors import UserError
from stic_eval.flags import Argument, Flag
from stic_eval.printable import printable

Format = Literal["text", "md", "csv", "json"]
Which = Literal["all", "better", "worse"]


def compare(
    a: Annotated[
        str,
        Argument("A run, by folder or name; RUN:VARIANT names one of its rows.", metavar="A", values="run"),
    ],
    b: Annotated[
        str | None, Argument("Another run, or RUN:VARIANT.", "the run of A", "B", values="run")
    ] = None,
    method: Annotated[
        list[str] | None,
        Flag("Variant, e.g. stic+dar, or stic@seed1 for one seed; of an ablation default, or what sets a "
             "cell apart, e.g. corruption=blur. For two runs: one for both, or one for each. For one run: "
             "two, or one to compare with the baseline.", "the run's method, compared with the baseline"),
    ] = None,
    benchmark: Annotated[str | None, Flag("Show rows of this benchmark only.", values="benchmark")] = None,
    which: Annotated[
        Which, Flag("Show rows that B does better than A, worse, or both.", names="--flips")
    ] = "all",
    number: Annotated[int, Flag("How many rows to show.", names="-n", min=0)] = 5,
    notes: Annotated[
        bool, Flag("Print all notes, not just five lines and what can invalidate a number.")
    ] = False,
    format_: Annotated[
        Format, Flag("Output format; csv has only the numbers.", names="--format")
    ] = "text",
) -> None:  # fmt: skip
    """Compare two runs, or two variants of a run, sample by sample.

    `compare RUN` compares the run's method with its baseline, `compare RUN --method sft` another one,
    `compare RUN_A RUN_B --method stic` a variant between runs, `compare RUN:stic RUN:stic+dar` any with any,
    `compare ABLATION:default ABLATION:corruption=blur` two cells. Differences are B minus A.
    """
    from stic_eval.registry import suggest
    from stic_eval.report import compared_variants, head_to_head, head_to_head_formats
    from stic_eval.report.flips import Choice

    choice = Choice(which, number, benchmark) if number and format_ != "csv" else None
    sides = compared_variants.choose(a, b, method or ())
    for letter, side in zip("AB", sides, strict=True):
        if side.unfinished:
            line = f"warning: {letter}, {side.label} of {side.run}, is unfinished ({side.unfinished})"
            print(printable(line), file=sys.stderr)
    found = head_to_head.measure(*sides, choice)
    names = [line.name for line in found.benchmarks]
    if benchmark is not None and benchmark not in names:
        raise UserError(f'--benchmark: both have no "{benchmark}"{suggest(benchmark, names)}')
    total = sum(count for _, count in found.flips.values()) if choice is not None else None
    # In turn from each benchmark: the first few would all be of the first.
    by_name = [flips for flips, _ in found.flips.values()]
    rows = [flip for flip in chain(*zip_longest(*by_name)) if flip is not None][:number]
    if format_ == "csv":
        print(head_to_head_formats.to_csv(found), end="")
    elif format_ == "text":
        from rich.console import Console

        console = Console(highlight=False)
        more = None if notes else "--notes shows them"
        console.print(head_to_head_formats.to_rich(found, rows, total, console.width, more))
    else:
        write = head_to_head_formats.to_markdown if format_ == "md" else head_to_head_formats.to_json
        print(write(found, rows, total), end="")
