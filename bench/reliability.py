"""The campaign's results in docs/reliability.md: `python -m bench.reliability FOLDER`.

Parts of the campaign write what they come to into a folder (`STIC_EVAL_CAMPAIGN`), a JSON file each, with
`part`, `tries` and whatever else they count. They are kept in `bench/results/reliability.json`, of which the
page is made; without a folder it is made of what is kept. `--check` fails if the page is not what would be
written, and changes nothing.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.committed import ROOT
from bench.rewriting import rewrite

PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "bench" / "results" / "reliability.json"
BEGIN, END = "<!-- campaign -->\n", "<!-- /campaign -->"
# What a campaign consists of, by what names of parts begin with, and how many tries it has at least.
PARTS: Mapping[str, int] = {
    "killed at every file operation": 1,
    "killed at random times": 200,
    "power cut": 1,
    "damaged files": 1,
    "full disks": 1,
    "caches taken away": 1,
    "hostile input": 10_000,
}
_WRONG = ("lost", "failed", "wrong")  # what parts call tries that went wrong
_VERSIONS = ("stic-eval", "torch", "transformers", "peft", "pillow", "pyarrow", "datasets", "hypothesis")


def collect(folder: Path) -> list[dict[str, Any]]:
    """What the parts of a campaign have written, by name.

    Raises:
        SystemExit: There is nothing, or a file is not what a part writes.
    """
    found = []
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or not isinstance(data.get("part"), str):
            raise SystemExit(f"{path}: has no part: is it what a campaign has written?")
        found.append(data)
    if not found:
        raise SystemExit(f"{folder}: no part of a campaign has written anything there")
    return sorted(found, key=lambda part: str(part["part"]))


def facts() -> dict[str, Any]:
    """When, on what, and with which versions."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
    }


def page(before: str) -> str:
    """The page with the block of results as they are kept."""
    head, _, rest = before.partition(BEGIN)
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {"parts": []}
    return head + BEGIN + "\n".join(block(kept)) + "\n" + END + rest.partition(END)[2]


def block(kept: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the block of results."""
    parts: Sequence[Mapping[str, Any]] = kept["parts"]
    if parts:
        versions = ", ".join(f"{name} {number}" for name, number in kept["versions"].items())
        system = f"{kept['system']}, Python {kept['python']}"
        yield f"{kept['date']}, commit {kept['commit']}, {system}, {versions}."
        yield ""
        yield "| part | tries | went wrong | counted besides |"
        yield "|---|---:|---:|---|"
        for part in parts:
            wrong = sum(_number(part.get(name)) for name in _WRONG)
            tries = f"{part['tries']:,}" if "tries" in part else ""
            yield f"| {part['part']} | {tries} | {wrong:,} | {_rest(part)} |"
        yield ""
    done = {name: sum(_number(p.get("tries")) for p in parts if _is_of(p, name)) for name in PARTS}
    unrun = [name for name in PARTS if not any(_is_of(part, name) for part in parts)]
    for name, least in PARTS.items():
        if name not in unrun and done[name] < least > 1:
            yield f"Of *{name}* {done[name]:,} tries were made; a whole campaign makes {least:,}."
    yield f"Not run: {', '.join(unrun)}." if unrun else "Every part was run."


def _is_of(part: Mapping[str, Any], name: str) -> bool:
    return str(part["part"]).startswith(name)


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _rest(part: Mapping[str, Any]) -> str:
    """What a part counts besides its tries, in words."""
    said = []
    for name, value in part.items():
        if name in ("part", "tries", "first", "seconds", *_WRONG):
            continue
        if isinstance(value, Mapping):
            counts = ", ".join(f"{key}: {count:,}" for key, count in value.items())
            said.append(f"{name.replace('_', ' ')} {counts}")
        elif isinstance(value, int):
            said.append(f"{name.replace('_', ' ')} {value:,}")
    return "; ".join(said)


def main(argv: Sequence[str]) -> int:
    """Writes the page, or says whether it is up to date."""
    folders = [Path(arg) for arg in argv if not arg.startswith("-")]
    if folders:
        kept = {**facts(), "parts": [part for folder in folders for part in collect(folder)]}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return rewrite(PAGE, page, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
