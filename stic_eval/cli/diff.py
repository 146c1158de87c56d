"""`stic-eval diff`: how the settings of two runs differ."""

from __future__ import annotations

from typing import Annotated

from stic_eval.flags import Argument

_NAME = 44  # columns


def diff(
    a: Annotated[str, Argument("A run: its folder, or its name under results/.", metavar="A", values="run")],
    b: Annotated[str, Argument("Another run.", metavar="B", values="run")],
) -> int:
    """Show which settings of two runs differ, and what they were made with (model, rows, versions).

    The exit code is 0 if nothing differs, 1 if something does, 2 if one is no run. Scores are compared by
    `stic-eval compare`.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from stic_eval.printable import printable
    from stic_eval.report import runs, setting_differences

    folders = runs.find(a), runs.find(b)
    found = setting_differences.of_runs(*folders)
    if not found:
        print("no setting differs")
        return 0
    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    names = [one.name if one.decides else f"{one.name} (changes no result)" for one in found]
    grid.add_column(overflow="fold", min_width=min(_NAME, max(map(len, names))))  # a name is read as a whole
    for folder in folders:
        grid.add_column(Text(printable(runs.name_of(folder))), overflow="fold")
    for name, one in zip(names, found, strict=True):
        grid.add_row(*(Text(printable(text)) for text in (name, one.a, one.b)))
    Console(highlight=False).print(grid)
    return 1
