"""Whether two versions of this program give the same results: records and adapters, byte for byte.

    python -m bench.same_results make FOLDER [--command .../bin/stic-eval]
    python -m bench.same_results compare FOLDER FOLDER

`make` has a version run STIC, two methods with two seeds, and a grid of two cells on the embedded model,
small, from an empty cache. `compare` holds what two versions left against each other: records and scores but
for the time that they took, tables, plans, and the files and keys of all stages. Whoever changes how work is
planned or done runs it before and after.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_SIZE = (
    "--benchmarks", "chartqa,mmvet", "--limit", "10", "-o", "stage1.images=12", "-o", "stage2.items=12",
    "-o", "stage1.batch_size=4", "-o", "stage2.batch_size=4",
    "-o", "stage1.learning_rate=0.002", "-o", "stage2.learning_rate=0.002", "--quiet",
)  # fmt: skip
COMMANDS = {
    "plan": ("run", "--method", "stic", *_SIZE, "--output", "run", "--dry-run"),
    "run": ("run", "--method", "stic", *_SIZE, "--output", "run"),
    "seeds": ("run", "--method", "stic,sft", "--seed", "0", "--seed", "1", *_SIZE, "--output", "seeds"),
    "grid-plan": ("ablate", "--vary", "infusion=own,none", *_SIZE, "--output", "grid", "--dry-run"),
    "grid": ("ablate", "--vary", "infusion=own,none", *_SIZE, "--output", "grid"),
}
# What tells when and for how long something ran, or where.
_OF_TIME = {"seconds", "seconds_of", "started", "command", "run", "versions", "platform", "python"}
_DURATION = re.compile(r"\b\d[\d.,]* (s|min|h)\b")
_LEFT_OUT = {"manifest.json", "run.log", "config.yaml", "log.jsonl"}


def make(folder: Path, command: Path) -> None:
    """Has a version do all of it.

    Raises:
        RuntimeError: A command failed.
    """
    folder.mkdir(parents=True)
    environment = {
        **os.environ, "STIC_EVAL_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "160",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    for name, argv in COMMANDS.items():
        line = [str(command), *argv]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        (folder / f"{name}.txt").write_text(done.stdout, encoding="utf-8")


def differences(one: Path, other: Path) -> list[str]:
    """Files that only one has, or that hold something else; empty: the results are the same."""
    ours, theirs = (dict(_results(folder)) for folder in (one, other))
    found = [f"only in {one}: {name}" for name in sorted(ours.keys() - theirs.keys())]
    found += [f"only in {other}: {name}" for name in sorted(theirs.keys() - ours.keys())]
    return found + [f"differs: {name}" for name in sorted(ours.keys() & theirs.keys())
                    if ours[name] != theirs[name]]  # fmt: skip


def _results(folder: Path) -> Iterator[tuple[str, Any]]:
    """Relative path -> what a file holds that no clock or place decides."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in _LEFT_OUT or "sqlite" in path.name or path.suffix == ".lock":
            continue
        if path.parent.match("cache/runs"):  # which say where runs lie
            continue
        name = path.relative_to(folder).as_posix()
        if path.name == "scores.json":  # in whatever form the version writes the rest
            entries = json.loads(path.read_bytes())["variants"]
            yield name, {entry["folder"]: [entry["keys"], entry["summaries"]] for entry in entries}
        elif path.suffix == ".json":
            yield name, _timeless(json.loads(path.read_bytes()))
        elif path.suffix == ".jsonl":
            yield name, [_timeless(json.loads(line)) for line in path.read_bytes().splitlines()]
        elif path.suffix in (".txt", ".md", ".tex", ".html", ".csv"):
            yield name, _timeless(path.read_text(encoding="utf-8"))
        else:
            yield name, path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in _OF_TIME}
    if isinstance(value, str):
        return _DURATION.sub("some time", value)
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def main(argv: list[str]) -> int:
    """Makes a folder of results, or compares two."""
    if argv[:1] == ["make"] and len(argv) in (2, 4):
        command = Path(argv[3]) if len(argv) == 4 else Path(sys.executable).parent / "stic-eval"
        make(Path(argv[1]).resolve(), command.absolute())
        return 0
    if argv[:1] == ["compare"] and len(argv) == 3:
        found = differences(Path(argv[1]), Path(argv[2]))
        print("\n".join(found) or "the results are the same")
        return bool(found)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
