"""The documentation site: links lead to files, every page is in the navigation, commands are current."""

from __future__ import annotations

import re
from pathlib import Path

from bench import commands_md, site


def test_links_lead_to_files() -> None:
    assert site.files()[1] == []


def test_every_page_is_in_the_navigation() -> None:
    there = {path.relative_to(site.ROOT).as_posix() for path in (site.ROOT / "docs").glob("*.md")}
    assert there <= set(site.navigation())


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "mkdocs.yml").write_text("nav:\n  - A: docs/a.md\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(
        "[b](../b.md#x) [c](c.md) `[code](d.md)` [web](https://example.org)"
    )
    (tmp_path / "b.md").touch()
    assert site.files(tmp_path) == (["docs/a.md", "b.md"], ["docs/a.md: docs/c.md is no file"])


def test_commands_are_those_of_the_command_line() -> None:
    assert commands_md.PAGE.read_text(encoding="utf-8") == commands_md.page()


GROUPS = {"cache"}  # of commands, that do something by themselves
MADE_UP = "--training-images"  # which docs/extending.md shows how to add


def test_commands_that_pages_show_are_there_with_their_options() -> None:
    known = dict(commands_md.commands())
    wrong = []
    for page in [site.ROOT / "README.md", *sorted((site.ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
        code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
        for words in re.findall(r"(?:^|`|\$ |&& )stic-eval ([a-z][^`\n#]*)", "\n".join(code), re.MULTILINE):
            name = next((name for name in known if f"{words} ".startswith(f"{name} ")), None)
            alone = words.strip() in GROUPS
            if name is None and not alone and words.split()[0].isalpha():
                wrong.append(f"{page.name}: stic-eval {words}")
            for option in re.findall(r"(?<=\s)--?[a-z][\w-]*", words) if name else ():
                if option not in {*known[name or ""], "--help", MADE_UP}:
                    wrong.append(f"{page.name}: stic-eval {words}: {option}")
    assert wrong == []
