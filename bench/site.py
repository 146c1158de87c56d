"""Builds the documentation site into build/site: `python -m bench.site`; `--check` only looks at links.

The pages that mkdocs.yml names, and every file that they link to, are copied into build/pages with the
folders that they have here, so that the same links work in the repository and on the site. zensical then
builds it, strictly: a link to a page or heading that does not exist ends it. No network is needed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "build" / "pages"
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def navigation(root: Path = ROOT) -> list[str]:
    """The pages that mkdocs.yml names, in its order."""
    nav = yaml.safe_load((root / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    return list(_paths(nav))


def _paths(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    else:
        for below in part.values() if isinstance(part, dict) else part:
            yield from _paths(below)


def linked(page: str, root: Path = ROOT) -> list[str]:
    """Files that a page links to, from the repository's root."""
    text = CODE.sub("", (root / page).read_text(encoding="utf-8"))
    found = []
    for link in LINK.findall(text):
        target = link.partition("#")[0]
        if target and "://" not in target and not target.startswith("mailto:"):
            found.append(_joined(page, target))
    return list(dict.fromkeys(found))


def _joined(page: str, target: str) -> str:
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / target).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def files(root: Path = ROOT) -> tuple[list[str], list[str]]:
    """All files of the site, and what is wrong with links: `PAGE: TARGET is no file`."""
    found, faults = navigation(root), []
    for page in found:  # which grows
        for target in linked(page, root) if page.endswith(".md") else ():
            if not (root / target).is_file():
                faults.append(f"{page}: {target} is no file")
            elif target not in found:
                found.append(target)
    return found, faults


def main() -> None:
    """Copies the pages and builds the site, or only looks at the links."""
    found, faults = files()
    if faults:
        sys.exit("\n".join(faults))
    if "--check" in sys.argv[1:]:
        return
    shutil.rmtree(PAGES, ignore_errors=True)
    for name in found:
        (PAGES / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, PAGES / name)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    sys.exit(subprocess.run(command, cwd=ROOT, check=False).returncode)


if __name__ == "__main__":
    main()
