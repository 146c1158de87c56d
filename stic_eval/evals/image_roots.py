"""Rows whose images start at another folder than their file's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stic_eval.evals.arrow_rows import ArrowRows
from stic_eval.evals.image_cells import Cells
from stic_eval.evals.rows import ListRows, Rows
from stic_eval.evals.tsv_files import TsvRows


def with_root(rows: Rows, root: Path | None, flag: str) -> Rows:
    """Rows whose paths of images start at a folder, and must stay in it.

    Args:
        root: The folder; None: where they start anyway.
        flag: By what the user names it; messages about images say so.
    """

    def rooted(cells: Cells) -> Cells:
        # Without a root, as of the hub's own rows, paths are trusted and nobody could give another.
        return replace(cells, root=root or cells.root, flag=flag if root or cells.root else "")

    if isinstance(rows, ArrowRows):
        rows.cells = rooted(rows.cells)
    elif isinstance(rows, TsvRows):
        return replace(rows, cells=rooted(rows.cells))
    elif isinstance(rows, ListRows):
        by_folder = {cells: rooted(cells) for cells in set(rows.cells)}
        return replace(rows, cells=[by_folder[cells] for cells in rows.cells])
    return rows
