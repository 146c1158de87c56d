"""What lies in a cache or a run's folder, looked at file by file: what is damaged, and what mends it."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from stic_eval.digests import file_sha256
from stic_eval.errors import RunError, UserError, first_line
from stic_eval.stage_store import StageStore
from stic_eval.store import ResponseStore, read_jsonl

_STAGE = re.compile(r"(.+)-([0-9a-f]{16})")
ASIDE = ".damaged"  # the ending of what a repair has set aside
_AGAIN = "start the run's command again to rebuild it"


@dataclass(frozen=True)
class Finding:
    """A file or folder that has been looked at.

    Attributes:
        path: Which.
        fault: What is wrong with it; empty: nothing.
        advice: What to do about that, or what has been done.
        mended: Whether it has been done.
    """

    path: Path
    fault: str = ""
    advice: str = ""
    mended: bool = False


def check_cache(cache: Path, repair: bool = False) -> Iterator[Finding]:
    """Looks at all that a cache keeps; what is under way in it is left alone.

    Args:
        cache: Its folder.
        repair: Whether what can be mended is: answers are salvaged, damaged stages set aside.
    """
    for folder in ("responses", "judge"):
        for path in sorted((cache / folder).glob("*.sqlite")):
            yield _check_answers(path, repair)
    if (digests := cache / "digests.sqlite").exists():
        yield _check_disposable(digests, _fault_of_database(digests), repair)
    store = StageStore(cache / "stages")
    for path in sorted((cache / "stages").glob("*")):
        if path.is_dir() and (name := _STAGE.fullmatch(path.name)):
            yield _check_stage(store, path, name[1], name[2], repair)
    for path in sorted((cache / "canaries").glob("*.json")):
        yield _check_disposable(path, _fault_of_json(path), repair)
    for path in sorted((cache / "images").glob("*")):
        if re.fullmatch("[0-9a-f]{64}", path.name):
            yield _check_disposable(path, _fault_of_image(path), repair)


def set_aside(cache: Path) -> list[Path]:
    """What earlier repairs have set aside: nothing needs it any more."""
    return sorted(
        path for folder in ("responses", "judge", "stages") for path in (cache / folder).glob(f"*{ASIDE}")
    )


def check_run(folder: Path) -> Iterator[Finding]:
    """Looks at what a run's folder keeps; whatever is damaged, the run's command makes anew."""
    from stic_eval.report import runs

    yield _check_settings(folder / "config.yaml")
    if (manifest := folder / "manifest.json").exists():
        yield _finding(manifest, _fault_of_json(manifest))
    for path in sorted((folder / "training").glob("*.jsonl")):
        yield _finding(path, _fault_of_lines(path))
    try:
        scores = runs.load(folder)
    except UserError as error:
        yield Finding(folder / "scores.json", str(error), _AGAIN)
        return
    yield Finding(folder / "scores.json")
    for entry in scores.entries:
        for benchmark in entry.summaries:
            path = runs.records_path(folder, entry, benchmark)
            if runs.records_changed(path, entry, benchmark):
                yield Finding(path, "has changed since it was written", _AGAIN)
            elif path.exists():
                yield _finding(path, _fault_of_lines(path))


def _finding(path: Path, fault: str) -> Finding:
    return Finding(path, fault, _AGAIN if fault else "")


def _check_settings(path: Path) -> Finding:
    from stic_eval.config_layers import read_file
    from stic_eval.settings import RunConfig

    try:
        RunConfig.model_validate(read_file(path))
        return Finding(path)
    except (UserError, ValueError) as error:
        advice = "delete it if the run's command is known, and start that again"
        return Finding(path, f"cannot be used: {first_line(error)}", advice)


def _fault_of_lines(path: Path) -> str:
    try:
        lines = sum(1 for _ in read_jsonl(path))
        whole = path.read_bytes().endswith(b"\n")
    except (OSError, UserError) as error:
        return first_line(error)
    return "" if lines and whole else "is empty, or its last line is torn"


def _fault_of_json(path: Path) -> str:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return f"cannot be read: {first_line(error)}"
    return "" if isinstance(found, dict) else "holds no JSON object"


def _fault_of_image(path: Path) -> str:
    from stic_eval import images

    try:
        images.load_bytes(path.read_bytes(), path.name)
    except (OSError, images.ImageError) as error:
        return f"is not an image any more: {first_line(error)}"
    return ""


def _fault_of_database(path: Path) -> str:
    try:
        with closing(sqlite3.connect(path, timeout=120)) as db:
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
            return "" if said == "ok" else f"is damaged: {said}"
    except sqlite3.Error as error:
        return f"is damaged: {first_line(error)}"


def _check_disposable(path: Path, fault: str, repair: bool) -> Finding:
    """Of a file that is made again when it is needed."""
    if not fault:
        return Finding(path)
    if repair:
        with suppress(OSError):
            path.unlink()
            return Finding(path, fault, "deleted; it is made again when it is needed", True)
    return Finding(path, fault, "delete it, or give --repair: it is made again when it is needed")


def _check_answers(path: Path, repair: bool) -> Finding:
    fault = _fault_of_database(path) or _fault_of_rows(path)
    if not repair:
        advice = "give --repair, or start a run that uses it: what can be read is kept"
        return Finding(path, fault, advice if fault else "")
    try:
        with closing(ResponseStore(path)) as store:
            if _fault_of_database(path) or _fault_of_rows(path):  # else opening it has mended it
                store.mend()
            back = sum(store.take_from(aside) for aside in sorted(path.parent.glob(f"{path.name}.*{ASIDE}")))
            if fault:
                kept = f"{len(store):,} answers could be read and are kept; others will be asked for again"
                return Finding(path, fault, kept, True)
            if back:
                return Finding(path, "lacked answers that were set aside", f"{back:,} are put back", True)
            return Finding(path)
    except (UserError, RunError) as error:
        return Finding(path, fault or "cannot be opened", str(error))


def _fault_of_rows(path: Path) -> str:
    from stic_eval.response_rows import Damaged, get_rows

    try:
        with closing(sqlite3.connect(path, timeout=120)) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'checks'").fetchone():
                return ""  # of an earlier version, which kept nothing to tell by
            keys = [key for (key,) in db.execute("SELECT key FROM responses")]
            get_rows(db, keys)
    except Damaged:
        return "holds an answer that is not what was written"
    except sqlite3.Error as error:
        return f"is damaged: {first_line(error)}"
    return ""


def _check_stage(store: StageStore, path: Path, name: str, key: str, repair: bool) -> Finding:
    fault = _fault_of_stage(path, key)
    if not fault:
        return Finding(path)
    if not repair:
        return Finding(path, fault, "give --repair, or start a run that uses it, which makes it again")
    aside = path.with_name(f"{path.name}.{uuid4().hex[:8]}{ASIDE}")
    try:
        with store.lock(name, key):
            if not _fault_of_stage(path, key):  # another process was faster
                return Finding(path)
            os.rename(path, aside)
    except (OSError, UserError) as error:
        return Finding(path, fault, f"cannot be set aside: {first_line(error)}")
    return Finding(path, fault, f"set aside as {aside.name}; it is made again when it is needed", True)


def _fault_of_stage(path: Path, key: str) -> str:
    try:
        manifest: Mapping[str, Any] = json.loads((path / "manifest.json").read_bytes())
        files, sums = dict(manifest["files"]), dict(manifest.get("sha256") or {})
        if not str(manifest["key"]).startswith(key):
            return "its manifest.json is of another stage"
        for file, size in files.items():
            if (path / file).stat().st_size != size or sums.get(file, "") not in (
                "",
                file_sha256(path / file),
            ):
                return f"{file} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"its manifest.json cannot be read: {first_line(error)}"
    return ""
