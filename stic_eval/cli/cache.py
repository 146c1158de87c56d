"""`stic-eval cache`: what the cache keeps, and freeing what no run needs."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stic_eval.cli import options as o
from stic_eval.cli.help_types import Command, Group
from stic_eval.errors import UserError, count_of
from stic_eval.flags import Flag
from stic_eval.printable import printable

if TYPE_CHECKING:
    from stic_eval.experiment.cache_contents import CacheItem, Keep

app = typer.Typer(cls=Group, help="Show what the cache keeps, and free what no run needs.")
_SECONDS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_SHOWN = 20
_KEPT = 5


@app.callback(invoke_without_command=True)
def _cache(context: typer.Context) -> None:
    """Show what the cache keeps: where it lies, how large it is, and since when; or free some of it."""
    if context.invoked_subcommand is None:
        _show()


def _show() -> None:
    from huggingface_hub import constants
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table

    from stic_eval.experiment import cache_contents, run_removal
    from stic_eval.plugins import display_path
    from stic_eval.store import cache_dir

    cache, known = cache_dir(), run_removal.known_runs()
    found = cache_contents.items(cache)
    print(printable(f"{cache}: {decimal(sum(item.size for item in found))} ($STIC_EVAL_CACHE moves it)"))
    if found:
        grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for title in ("in", "what", "items", "size", "oldest", "newest"):
            grid.add_column(title, justify="right" if title in ("items", "size") else "left")
        for kind in dict.fromkeys(item.kind for item in found):
            own = [item for item in found if item.kind == kind]
            ages = _day(min(item.made for item in own)), _day(max(item.written for item in own))
            what = cache_contents.KINDS.get(kind, "not this program's")
            size = decimal(sum(item.size for item in own))
            grid.add_row(printable(kind), what, str(len(own)), size, *ages)
        print()
        Console(highlight=False).print(grid)
    beside = {
        "own cache (--fresh)": cache_contents.own_caches(known),
        "thumbnails of a report": cache_contents.image_folders(known),
    }
    lines = [
        f"{display_path(path)}: {decimal(size)}, {what}"
        for what, paths in beside.items() for path, size in paths.items()
    ]  # fmt: skip
    hub = "models and data sets of Hugging Face, which are not this program's (`hf cache` lists them)"
    print("\n" + printable("\n".join([*lines, f"{constants.HF_HUB_CACHE}: {hub}"])))


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


@app.command("prune", cls=Command)
@o.command
def prune(
    older_than: Annotated[
        str, Flag("Free what was last used longer ago than this: hours, days or weeks.", metavar="30d|12h|4w")
    ],
    yes: Annotated[bool, Flag("Delete; without it, only say what would go.", names="--yes -y")] = False,
    runs: Annotated[
        list[Path] | None,
        Flag("Look for runs below this folder as well. Only runs of versions before 0.2 need it: later "
             "ones are known wherever they are. Repeatable.", "results", "DIR"),
    ] = None,
) -> None:  # fmt: skip
    """Free what no run needs: say what would be deleted, and with --yes delete it.

    Stages that a run's folder refers to stay, and so do answers that an unfinished run needs, whatever a
    process is at work on, and a judge's replies. Delete runs first (`stic-eval rm`).
    """
    from rich.filesize import decimal

    from stic_eval.experiment import cache_claims, cache_contents, run_removal
    from stic_eval.store import cache_dir

    before = time.time() - _seconds(older_than)
    for folder in runs or ():
        if not folder.is_dir():
            raise UserError(f"--runs {folder}: no such folder")
    cache, gone = cache_dir(), cache_claims.gone(cache_dir())
    found, kept = cache_contents.sort_out(cache, before, run_removal.known_runs(runs or ()))
    _list(cache, found, kept)
    for lost in gone.values():
        print(printable(f"gone: {lost}; nothing is kept for that run any more"))
    total = f"{decimal(sum(item.size for item in found))} in {count_of(len(found), 'item')}"
    if not yes or not found:
        print(f"{total} can be freed{'; --yes frees them' if found else ''}")
        return
    freed = [cache_contents.delete(item) for item in found]
    for path in gone:
        path.unlink(missing_ok=True)
    left = len(found) - sum(map(bool, freed))
    more = f"; {left} stay, as somebody is using them or they cannot be deleted" if left else ""
    print(f"{decimal(sum(freed))} freed{more}")


def _list(cache: Path, found: Sequence[CacheItem], kept: Sequence[Keep]) -> None:
    """Says what can go, the largest first, and what is old but stays."""
    from rich.filesize import decimal

    largest = sorted(found, key=lambda item: -item.size)
    lines = [
        f"{decimal(i.size)}  {i.path.relative_to(cache)}, of {_day(i.written)}" for i in largest[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        lines.append(f"{decimal(sum(i.size for i in largest[_SHOWN:]))}  in {len(found) - _SHOWN} more")
    lines += [
        f"kept: {keep.item.path.relative_to(cache)} ({decimal(keep.item.size)}): {keep.reason}"
        for keep in sorted(kept, key=lambda keep: -keep.item.size)[:_KEPT]
    ]
    if len(kept) > _KEPT:
        lines.append(f"kept: {len(kept) - _KEPT} more, which runs need as well")
    for line in lines:
        print(printable(line))


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([hdw])", text.strip())
    if match is None:
        raise UserError(f"--older-than {text}: give a number of hours, days or weeks: 12h, 30d, 4w")
    return int(match[1]) * _SECONDS[match[2]]
