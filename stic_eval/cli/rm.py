"""`stic-eval rm`: deletes runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stic_eval.errors import UserError
from stic_eval.flags import Argument, Flag
from stic_eval.printable import printable


def rm(
    run: Annotated[list[str], Argument("Runs: their folders, or names under results/.", values="run")],
    yes: Annotated[bool, Flag("Delete without asking.", names="--yes -y")] = False,
) -> None:
    """Delete runs: scores, records, tables, report and log. Other files in their folders stay.

    Trained adapters and answers lie in the cache, which runs share; `stic-eval cache prune` frees what no
    run needs any more.
    """
    from rich.filesize import decimal

    from stic_eval.experiment import run_removal
    from stic_eval.report import runs

    seen = [run_removal.look_at(runs.find(name)) for name in run]
    found = list({one.folder.resolve(): one for one in seen}.values())
    run_removal.check_adapters([one.folder for one in found], run_removal.known_runs())
    for one in found:
        stays = f"; stays: {', '.join(one.others)}" if one.others else ""
        print(printable(f"{one.folder}: {decimal(one.size)} of results{stays}"))
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("rm: there is no terminal to ask on; give --yes to delete")
        typer.confirm(f"Delete {'this run' if len(found) == 1 else f'these {len(found)} runs'}?", abort=True)
    for one in found:
        run_removal.remove(one)
    freed = decimal(sum(one.size for one in found))
    print(f"deleted {len(found)} run{'' if len(found) == 1 else 's'}, {freed} freed")
