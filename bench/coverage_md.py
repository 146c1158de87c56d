"""Writes the table of docs/statistics.md from `bench/results/coverage.json`: `python -m bench.coverage_md`.

`--check` fails if the page is not what would be written, and changes nothing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.coverage import RESULTS, SIMULATIONS, missed
from bench.rewriting import rewrite

PAGE = Path(__file__).parent.parent / "docs" / "statistics.md"
_BLOCK = re.compile(r"(<!-- coverage -->\n).*?(<!-- /coverage -->)", re.DOTALL)


def page(before: str) -> str:
    """The page with its table as the results have it."""
    text = "\n".join(lines()) + "\n"
    return _BLOCK.sub(lambda match: match[1] + text + match[2], before)


def lines() -> Iterator[str]:
    """The table, a line for each scenario, and what of the criteria is missed."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["scenarios"]
    yield f"{SIMULATIONS:,} studies each without a difference, a quarter as many with one.\n"
    yield "| rows | in | ICC | scores | seeds | luck | marks | coverage | power |"
    yield "|---|---:|---:|---|---:|---:|---:|---:|---:|"
    for row in rows:
        name = f"{row['layout']}, {row['n']:,}" if row["layout"] != "independent" else f"{row['n']:,}"
        shares = [f"{100 * row[share]:.1f} %" for share in ("marks", "coverage", "power")]
        if "rows_only" in row:
            shares[0] += f" (rows alone: {100 * row['rows_only']:.1f} %)"
        icc, luck = f"{row['icc']:g}", f"{row['luck']:g}"
        fields = [name, f"{row['clusters']:,}", icc, row["kind"], str(row["seeds"]), luck, *shares]
        yield f"| {' | '.join(fields)} |"
    found = sum(bool(missed(row)) for row in rows)
    yield (
        f"\n{len(rows) - found} of {len(rows)} scenarios meet the criteria, within two standard errors of "
        "the simulation: at most 6 % false marks; and with 200 rows or more in 30 clusters or more at least "
        "4 %, and 93 % coverage."
    )


def main(argv: list[str]) -> int:
    """Writes the page, or says whether it is up to date."""
    return rewrite(PAGE, page, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
