"""docs/write-a-method.md as its reader would follow it: files written, commands run, in order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support.command import run_command

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "write-a-method.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- file: (\S+) -->\n)?```(python|console)\n(.*?)```", re.DOTALL)


def fewer(argv: list[str]) -> list[str]:
    """The command, on a quarter of the images and rows: what is computed is of the same kind."""
    small = [arg.replace("pairs.images=64", "pairs.images=16") for arg in argv]
    if "--limit" in small and "./consensus.py" in small and "stage1.images=8" not in small:
        small[small.index("--limit") + 1] = "8"
        small += ["-o", "pairs.images=16"] if "pairs.images=16" not in small else []
    return small


def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    written: set[str] = set()
    commands = 0
    for name, kind, body in BLOCK.findall(PAGE):
        if kind == "python":
            file = tmp_path / name
            before = file.read_text() + "\n\n" if name in written else ""
            file.write_text(before + body)
            written.add(name)
            continue
        for line in body.splitlines():
            assert line.startswith("$ stic-eval "), line
            run_command(*fewer(shlex.split(line)[2:]), at=tmp_path)
            commands += 1
    assert written == {"consensus.py"}
    assert commands >= 7
    table = (tmp_path / "results" / "consensus" / "table.md").read_text()
    assert "Consensus" in table
    assert re.search(r"Training cost of a seed: Consensus 80 generations, 1 step,", table)
    assert "least agreed with" in (tmp_path / "pairs" / "pairs.csv").read_text()
    (pair,) = (tmp_path / "results").glob("pocket-consensus+rlaif_v_lite-*/table.md")
    assert "RLAIF-V lite" in pair.read_text()
