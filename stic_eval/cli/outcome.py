"""How commands that run something end: with their table, and with an exit code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stic_eval.errors import Interrupted, RunError, UserError

if TYPE_CHECKING:
    from stic_eval.experiment.result import RunResult

INCOMPLETE = 3  # rows are unscored, or files were skipped


def of(work: Callable[[], RunResult]) -> int:
    """Prints what a run comes to, also one that fails or is interrupted on the way; gives the exit code."""
    try:
        result = work()
    except (UserError, RunError, Interrupted) as error:
        if error.result is not None:
            _print(error.result)
        raise
    _print(result)
    return 0 if result.complete else INCOMPLETE


def _print(result: RunResult) -> None:
    from stic_eval.cli.table import ALL_NOTES, print_table
    from stic_eval.plugins import display_path
    from stic_eval.printable import printable

    print_table(result.table.data, more=ALL_NOTES)
    folder = printable(str(display_path(result.folder)))
    print(f"\n{folder}/table.md, .tex, .html, .csv, .json; records/; run.log")
