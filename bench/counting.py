"""Why SeVa costs points on the embedded model: `python -m bench.counting`, some minutes.

Of SeVa's pairs under the embedded model's preset, at three steps of the noise: how many count (the question
has "How many", each answer a number of its own), in how many of these the dispreferred number is the larger
one, and in how many it is 3 or 4. Then how MathVista's validation rows that count fare before and after
training, seed 0, and how many answers are then too low. Written to `results/pocket/methods/counting.json`;
`python -m bench.methods_md` shows it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.committed import METHODS
from stic_eval.cli.app import invoke
from stic_eval.errors import RunError
from stic_eval.report import runs
from stic_eval.stage_store import StageStore
from stic_eval.store import cache_dir, read_jsonl

OUT = METHODS / "counting.json"
STEPS = (300, 500, 800)
COUNTING = "How many"


def number(answer: str) -> int | None:
    """The first whole number in an answer."""
    found = re.search(r"\d+", answer)
    return int(found[0]) if found else None


def compare(pairs: Iterable[tuple[str, str, str]]) -> dict[str, int]:
    """Of (question, preferred, dispreferred): how many there are, how many count, and which way."""
    found = {"pairs": 0, "counting": 0, "larger": 0, "three_or_four": 0}
    for question, chosen, rejected in pairs:
        found["pairs"] += 1
        preferred, dispreferred = number(chosen), number(rejected)
        if COUNTING not in question or preferred is None or dispreferred is None:
            continue
        if preferred != dispreferred:
            found["counting"] += 1
            found["larger"] += dispreferred > preferred
            found["three_or_four"] += dispreferred in (3, 4)
    return found


def right(records: Iterable[Mapping[str, Any]]) -> tuple[int, int, int]:
    """How many rows that count are right, how many are answered with less, and how many there are."""
    rows = [record for record in records if COUNTING in record["question"]]
    answers = [(number(str(row["response"])), number(str(row["target"]))) for row in rows]
    low = sum(said is not None and wanted is not None and said < wanted for said, wanted in answers)
    return sum(row["score"] == 1 for row in rows), low, len(rows)


def measure(step: int, folder: Path) -> dict[str, Any]:
    """One step of the noise.

    Raises:
        RunError: The run failed.
    """
    command = ["run", "--model", "pocket", "--method", "seva", "--seed", "0", "--benchmarks", "mathvista"]
    options = ["-o", "rows=pocket:val", "-o", f"seva.pairs.step={step}", "--output", str(folder), "--quiet"]
    if invoke([*command, *options]) != 0:
        raise RunError(f"SeVa at step {step} failed; see {folder / 'run.log'}")
    entries = {entry.method: entry for entry in runs.load(folder).entries}
    made = next(stage for stage in entries["seva"].stages if stage.name == "pairs")
    rows = pq.read_table(StageStore(cache_dir() / "stages").folder("pairs", made.key) / "pairs.parquet")
    found: dict[str, Any] = {"step": step}
    found |= compare(
        (row["prompt"][0]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in rows.to_pylist()
    )
    for name, method in (("before", "baseline"), ("after", "seva")):
        records = read_jsonl(folder / "records" / entries[method].folder / "mathvista.jsonl")
        found[name], found[f"low_{name}"], found["rows"] = right(records)
    return found


def main() -> None:
    """Measures, prints and writes."""
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(step, Path(folder) / str(step)) for step in STEPS]
    print(json.dumps(found, indent=1))
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
