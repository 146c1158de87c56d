"""docs/write-a-method.md as its reader would follow it: files written, commands run, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "write-a-method.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- file: (\S+) -->\n)?```(python|console)\n(.*?)```", re.DOTALL)


def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "STIC_EVAL_CACHE": str(tmp_path / "cache"), "PATH": path}
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
            assert line.startswith("$ "), line
            done = subprocess.run(
                line[2:], shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
            commands += 1
    assert written == {"consensus.py"}
    assert commands >= 7
    table = (tmp_path / "results" / "consensus" / "table.md").read_text()
    assert "Consensus" in table
    assert re.search(r"Training cost of a seed: Consensus 320 generations, [1-4] steps", table)
    assert "least agreed with" in (tmp_path / "pairs" / "pairs.csv").read_text()
    (pair,) = (tmp_path / "results").glob("pocket-consensus+rlaif_v_lite-*/table.md")
    assert "RLAIF-V lite" in pair.read_text()
