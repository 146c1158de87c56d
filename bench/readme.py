"""Regenerates the blocks of README.md and of docs/ that show output, by running the commands that they show.

A block is everything between `<!-- KIND: COMMAND -->` and `<!-- /KIND -->`. Of an `output` all that the
command prints is shown, of a `table` the part before the first blank line, of an `error` the line on standard
error. `--check` fails if a block is empty instead of running anything. What the main run gains in held-out
wordings is written out as well, between `<!-- gains -->` and `<!-- /gains -->`, from its wordings.json.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from bench.committed import POCKET

ROOT = Path(__file__).parent.parent
GAINS = re.compile(r"(<!-- gains -->\n)(.*?)(<!-- /gains -->)", re.DOTALL)
BLOCK = re.compile(
    r"(<!-- (?P<kind>output|table|error): (?P<command>.+?) -->\n)(?P<body>.*?)(<!-- /(?P=kind) -->)",
    re.DOTALL,
)
COLUMNS = 120


def pages() -> list[Path]:
    """README.md, and every page of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@cache
def _run(command: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line of this environment."""
    argv = shlex.split(command)
    argv[0] = str(Path(sys.executable).parent / argv[0])
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "NO_COLOR": "1"}
    done = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def output_of(command: str, kind: str = "output") -> str:
    """What a block of a kind shows of a command, as a code block.

    Raises:
        subprocess.CalledProcessError: The command failed (3, unscored or skipped rows, is no failure); or it
            did not, and an error is to be shown.
    """
    code, out, err = _run(command)
    if code not in ((1, 2) if kind == "error" else (0, 3)):
        raise subprocess.CalledProcessError(code, command, out, err)
    shown = [line.rstrip() for line in (err if kind == "error" else out).strip("\n").splitlines()]
    if kind == "table" and "" in shown:
        shown = shown[: shown.index("")]
    return "```text\n" + "\n".join([f"$ {command}", *shown]) + "\n```\n"


def gains() -> str:
    """What STIC gains on all rows of the main run and in held-out wordings, in words."""
    rows = json.loads((POCKET / "wordings.json").read_text(encoding="utf-8"))["gains"]
    found = {row["row"]: row for row in rows}
    parts = []
    for label, name in (
        ("STIC", "STIC's average gain is"),
        ("STIC + DaR", "with describe-and-respond it is"),
    ):
        every, unseen = found[label]["all"], found[label]["held_out"]
        parts.append(f"{name} {_points(every)} points, and {_points(unseen)} in held-out wordings")
    seeds = len(found["STIC"]["by_seed"])
    return textwrap.fill(f"Over {seeds} training seeds {'; '.join(parts)} (95 % intervals).", 110) + "\n"


def _points(gain: Mapping[str, float]) -> str:
    return f"{gain['delta']:+.1f} [{gain['low']:.1f}, {gain['high']:.1f}]"


def _empty(text: str) -> list[str]:
    found = [match["command"] for match in BLOCK.finditer(text) if "```text" not in match["body"]]
    return found + ["gains" for match in GAINS.finditer(text) if not match[2].strip()]


def main() -> None:
    """Rewrites the pages, or checks that they have been written."""
    if "--check" in sys.argv[1:]:
        missing = [(page.name, _empty(page.read_text(encoding="utf-8"))) for page in pages()]
        said = [f"{name}: no output yet for: {', '.join(empty)}" for name, empty in missing if empty]
        sys.exit("\n".join(said) or 0)
    for page in pages():
        old = page.read_text(encoding="utf-8")
        new = BLOCK.sub(lambda match: match[1] + output_of(match["command"], match["kind"]) + match[5], old)
        new = GAINS.sub(lambda match: match[1] + gains() + match[3], new)
        if new != old:
            page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
