"""Regenerates the blocks of README.md that show output, by running the commands that they show.

A block is everything between `<!-- output: COMMAND -->` and `<!-- /output -->`. `--check` fails if a
block is empty instead of running anything. What the main run gains in held-out wordings is written out as
well, between `<!-- gains -->` and `<!-- /gains -->`, from its wordings.json.
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
from pathlib import Path

from bench.committed import POCKET

README = Path(__file__).parent.parent / "README.md"
GAINS = re.compile(r"(<!-- gains -->\n)(.*?)(<!-- /gains -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- output: (?P<command>.+?) -->\n)(?P<body>.*?)(<!-- /output -->)", re.DOTALL)
COLUMNS = 120


def output_of(command: str) -> str:
    """Standard output of a command line of this environment, as a code block.

    Raises:
        subprocess.CalledProcessError: The command failed; 3, unscored or skipped rows, is no failure.
    """
    argv = shlex.split(command)
    argv[0] = str(Path(sys.executable).parent / argv[0])
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "NO_COLOR": "1"}
    done = subprocess.run(
        argv, env=environment, cwd=README.parent, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode not in (0, 3):
        raise subprocess.CalledProcessError(done.returncode, argv)
    shown = [line.rstrip() for line in done.stdout.strip("\n").splitlines()]
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


def main() -> None:
    """Rewrites README.md, or checks that it has been written."""
    text = README.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        empty = [match["command"] for match in BLOCK.finditer(text) if "```text" not in match["body"]]
        empty += ["gains" for match in GAINS.finditer(text) if not match[2].strip()]
        sys.exit(f"README.md: no output yet for: {', '.join(empty)}" if empty else 0)
    new = BLOCK.sub(lambda match: match[1] + output_of(match["command"]) + match[4], text)
    new = GAINS.sub(lambda match: match[1] + gains() + match[3], new)
    README.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
