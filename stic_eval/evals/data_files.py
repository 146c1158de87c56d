"""Which files of a folder hold a benchmark's configuration and split, and whether they are all there."""

from __future__ import annotations

import re
from pathlib import Path

from stic_eval.contracts.benchmark import HubData
from stic_eval.errors import UserError


def split_files(hub: HubData, folder: Path) -> list[Path]:
    """The files of the benchmark's configuration and split; all files where names tell no split.

    Raises:
        UserError: The files are of other splits, or one of several parts is not there.
    """
    for suffix in (".parquet", ".arrow", ".jsonl", ".json", ".tsv"):
        files = sorted(folder.rglob(f"*{suffix}"))
        files = [file for file in files if not file.name.startswith(("dataset_info", "state", "."))]
        if not files:
            continue
        if hub.name:
            files = [file for file in files if hub.name in file.relative_to(folder).parts] or files
        split = re.compile(rf"(?:^|[-_]){re.escape(hub.split)}(?:[-_.]|$)")
        named = [file for file in files if split.search(file.name)]
        if named:
            return _check_parts(folder, named)
        other = {"train", "validation", "val", "test", "dev"} - {hub.split}
        rest = [file for file in files if not other & set(re.split(r"[-_.]", file.name))]
        if rest:
            return _check_parts(folder, rest)
        names = ", ".join(file.name for file in files[:3])
        raise UserError(f'{folder}: no file of split "{hub.split}" (there is {names})')
    return []


_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.\w+\Z")


def _check_parts(folder: Path, files: list[Path]) -> list[Path]:
    """Refuses files of which parts are missing, as after a download that was cut short; else returns them."""
    parts: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if match := _PART.match(file.name):
            parts.setdefault((file.parent, match[1], int(match[3])), set()).add(int(match[2]))
    for (_, stem, total), there in parts.items():
        if missing := sorted(set(range(total)) - there):
            raise UserError(
                f"{folder}: {stem}-{missing[0]:05}-of-{total:05} is missing: copy all {total} files"
            )
    return files
