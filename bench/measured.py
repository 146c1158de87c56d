"""The tables of measurements in bench/README.md, from `bench/results/`: `python -m bench.measured`.

`--check` fails if the page is not what would be written, and changes nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.rewriting import rewrite

PAGE = Path(__file__).parent / "README.md"
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- measured -->\n", "<!-- /measured -->"
_RATIOS = ("generation", "training", "sharing", "cluster", "startup")
_FIGURES = ("pocket", "scoring", "overhead", "memory", "busy")


def page(before: str) -> str:
    """The page with its tables as the results have them."""
    head, _, rest = before.partition(BEGIN)
    return head + BEGIN + "\n".join(tables()) + "\n" + END + rest.partition(END)[2]


def tables() -> Iterator[str]:
    """Lines of all tables."""
    yield "| work | rival | ratio | goal |\n|---|---|---:|---:|"
    for name in _RATIOS:
        for row in _read(name, "ratios"):
            goal = f"{row['goal']:g}x" + (", missed" if row["ratio"] < row["goal"] else "")
            yield f"| {row['work']} | {row['rival']} | {row['ratio']:.2f}x | {goal} |"
    yield "\n| figure | measured | ceiling |\n|---|---:|---:|"
    for name in _FIGURES:
        for row in _read(name, "figures"):
            missed = ", missed" if row["value"] >= row["ceiling"] else ""
            yield f"| {row['work']} | {row['value']:.3g} {row['unit']} | {row['ceiling']:g}{missed} |"
    yield "\n| large inputs | before | measured | ceiling |\n|---|---:|---:|---:|"
    before = {row["work"]: row["value"] for row in _read("load-before", "figures")}
    for row in _read("load", "figures"):
        missed = ", missed" if row["value"] >= row["ceiling"] else ""
        figures = f"{before[row['work']]:.3g} | {row['value']:.3g} {row['unit']}"
        yield f"| {row['work']} | {figures} | {row['ceiling']:g}{missed} |"
    yield "\n| where the time goes | matrix products | attention | their speed | padding |"
    yield "|---|---:|---:|---:|---:|"
    for row in _read("limits", "limits"):
        speed = f"{row['gflops']:.0f} of {row['peak']:.0f} GFLOP/s"
        shares = [f"{row[part]:.0f} %" for part in ("products", "attention")]
        yield f"| {row['work']} | {' | '.join(shares)} | {speed} | {row['padding']:.0f} % |"
    yield "\n| what a step asks of the device | operations | of them a layer | new tensors | waits |"
    yield "|---|---:|---:|---:|---:|"
    for row in _read("launches", "launches"):
        yield "| {work} | {operations} | {layer} | {tensors} | {waits} |".format(**row)


def _read(name: str, what: str) -> list[dict[str, Any]]:
    path = RESULTS / f"{name}.json"
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")).get(what, [])
    return found


def main(argv: list[str]) -> int:
    """Writes the page, or says whether it is up to date."""
    return rewrite(PAGE, page, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
