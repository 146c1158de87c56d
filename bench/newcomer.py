"""Follows README.md and the tutorial word for word, as somebody who has nothing installed.

python -m bench.newcomer

Clones the last commit into a new folder and runs every `sh` block of both pages there, in order, in a shell
for each page, with an empty home folder and cache. A block that follows `<!-- newcomer: skip (REASON) -->` is
left out, and named. `--list` prints what would be run. Needs git, bash, make, and python3 with pip; takes
ten minutes or more on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/first-run.md")
BLOCK = re.compile(r"(?:<!-- newcomer: skip \((?P<why>.+?)\) -->\n)?```sh\n(?P<body>.*?)```", re.DOTALL)
KEPT = re.compile(r"PATH|LANG|TERM|TMPDIR|OMP_NUM_THREADS|(PIP|SSL)_.*|(https?|no)_proxy", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """Commands of a page.

    Attributes:
        page: Where they are.
        commands: Lines of shell.
        skipped: Why they are not run; empty: they are.
    """

    page: str
    commands: str
    skipped: str


def blocks(root: Path = ROOT) -> Iterator[Block]:
    """The commands of all pages, in order."""
    for page in PAGES:
        for match in BLOCK.finditer((root / page).read_text(encoding="utf-8")):
            yield Block(page, match["body"].strip(), match["why"] or "")


def environment(home: Path) -> dict[str, str]:
    """Variables of a user who has set none but those that say where packages come from."""
    kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
    return {**kept, "HOME": str(home), "STIC_EVAL_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1"}


def follow(folder: Path) -> int:
    """Clones into a folder and runs everything; returns the first exit code that is neither 0 nor 3."""
    clone, home = folder / "stic-eval", folder / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    for page in PAGES:
        script = ["set -o pipefail"]
        for block in blocks(clone):
            if block.page != page:
                continue
            if block.skipped:
                print(f"{page}: left out: {block.commands} ({block.skipped})", flush=True)
                continue
            for line in block.commands.splitlines():
                script += [f"printf '\\n$ %s\\n' {_quoted(line)}", line, "code=$?"]
                script += ['[ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"']
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=clone,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            check=False,
        )
        print(f"\n{page}: exit code {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
        if done.returncode:
            return done.returncode
    return 0


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> int:
    """Follows the pages, or lists their commands."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    if parser.parse_args().list:
        for block in blocks():
            print(
                f"{block.page}{f' (left out: {block.skipped})' if block.skipped else ''}\n{block.commands}\n"
            )
        return 0
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder:
        return follow(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
