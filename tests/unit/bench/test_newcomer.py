"""`make newcomer`: blocks are run in order in a fresh clone, and a failure ends it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench import newcomer

PAGE = """\
```sh
echo first > found; export NOTE=kept
```
<!-- newcomer: skip (it takes hours) -->
```sh
exit 5
```
```text
exit 6
```
```sh
test -f found && [ $NOTE = kept ] && [ -z "$SECRET" ]
(exit 3)
```
"""


@pytest.mark.parametrize(("more", "code"), [("", 0), ("```sh\n(exit 7)\nexit 8\n```\n", 7)])
def test_blocks_are_run_in_a_fresh_clone(
    more: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "README.md").write_text(PAGE + more)
    (root / "docs" / "first-run.md").write_text("```sh\npwd\n```\n")
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "pages"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(newcomer, "ROOT", root)
    monkeypatch.setenv("SECRET", "value")
    (tmp_path / "work").mkdir()
    assert newcomer.follow(tmp_path / "work") == code
    said = capfd.readouterr().out
    assert "README.md: left out: exit 5 (it takes hours)" in said
    assert (str(tmp_path / "work" / "stic-eval") in said) == (code == 0)
    assert not (root / "found").exists()


def test_pages_have_commands_to_follow() -> None:
    found = list(newcomer.blocks())
    assert {block.page for block in found} == set(newcomer.PAGES)
    assert [block.commands.split()[:2] for block in found if block.skipped] == [["make", "test"]]
