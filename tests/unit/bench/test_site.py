"""The documentation site: links lead to files, every page is in the navigation, the page of commands is current."""

from __future__ import annotations

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
    (tmp_path / "docs" / "a.md").write_text("[b](../b.md#x) [c](c.md) `[code](d.md)` [web](https://example.org)")
    (tmp_path / "b.md").touch()
    assert site.files(tmp_path) == (["docs/a.md", "b.md"], ["docs/a.md: docs/c.md is no file"])


def test_commands_are_those_of_the_command_line() -> None:
    assert commands_md.PAGE.read_text(encoding="utf-8") == commands_md.page()
