"""Verdicts of the key-fact rule to read by eye: `python -m bench.verdicts RUN [--seed 0] [--rows 200]`.

Draws graded answers of a run's records, over all of its rows and the benchmarks that are graded by rule, and
prints each with its question, its key facts and what they count. What a reader would change of them is in
docs/pocket.md.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stic_eval.printable import printable

GRADED = ("llava_bench", "mmvet")


def records(run: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(row/benchmark, record) of every graded answer, in the order of names and rows."""
    for folder in sorted(path for path in (run / "records").iterdir() if path.is_dir()):
        for name in GRADED:
            with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
                yield from ((f"{folder.name}/{name}", json.loads(line)) for line in lines)


def drawn(run: Path, seed: int, rows: int) -> list[tuple[str, dict[str, Any]]]:
    """A random choice of graded answers, the same for the same seed and number of answers."""
    found = list(records(run))
    return random.Random(seed).sample(found, min(rows, len(found)))


def line(where: str, record: dict[str, Any]) -> str:
    """A graded answer as a line of text."""
    facts = record["meta"].get("caption", record["target"])
    texts = (
        f"{record['score']:.2f}",
        f"{where}/{record['id']}",
        record["question"],
        facts,
        record["response"],
    )
    return " | ".join(printable(" ".join(text.split())) for text in texts)


def main() -> None:
    """Prints the drawn answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=200)
    asked = parser.parse_args()
    for where, record in drawn(asked.run, asked.seed, asked.rows):
        print(line(where, record))


if __name__ == "__main__":
    main()
