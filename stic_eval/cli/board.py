"""`stic-eval board`: all runs of a folder as a leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from stic_eval.cli import options as o
from stic_eval.cli.outcome import INCOMPLETE
from stic_eval.flags import Argument, Flag


def board(
    folder: Annotated[Path, Argument("Folder that holds the runs.")] = Path("results"),
    out: Annotated[
        Path | None,
        Flag(
            "Page to write; CSV and JSON go beside it, under the same name.",
            "board.html in the folder",
            names="--output --out",
        ),
    ] = None,
    open_: Annotated[bool, Flag("Open the page in the browser.", names="--open")] = False,
) -> int:
    """Write a leaderboard of all runs: models, methods, data, scores with intervals, costs."""
    import sys

    from stic_eval.errors import UserError
    from stic_eval.plugins import display_path
    from stic_eval.printable import printable
    from stic_eval.report import board as boards
    from stic_eval.report import board_formats
    from stic_eval.store import atomic_write

    page = out or folder / "board.html"
    if page.suffix.lower() != ".html":
        raise UserError(f"--output {page}: must end in .html; CSV and JSON are written beside it")
    o.check_file("--output", page)
    made = boards.gather(folder, page.parent)
    texts = {
        page: board_formats.to_html(made, folder.resolve().name),
        page.with_suffix(".csv"): board_formats.to_csv(made),
        page.with_suffix(".json"): board_formats.to_json(made),
    }
    for path, text in texts.items():
        try:
            atomic_write(path, text)
        except OSError as error:
            raise UserError(f"--output {path}: cannot be written ({error.strerror or error})") from error
    for name, reason in made.unreadable:
        print(printable(" ".join(f"not on the board: {name}: {reason}".split())), file=sys.stderr)
    if made.trained:
        which = "1 run was" if len(made.trained) == 1 else f"{len(made.trained)} runs were"
        print(f"not on the board: {which} trained, not evaluated", file=sys.stderr)
    shown = {line.run for line in made.lines}
    files = ", ".join(path.suffix for path in list(texts)[1:])
    runs = "1 run" if len(shown) == 1 else f"{len(shown)} runs"
    print(printable(f"{display_path(page)}, {files} ({runs})"))
    if open_:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return INCOMPLETE if made.unreadable else 0
