"""Folders in the layouts in which benchmarks' authors, or LLaVA's scripts, hand them out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stic_eval.contracts.benchmark import Benchmark, FolderLayout
from stic_eval.errors import UserError
from stic_eval.evals.image_cells import Cells
from stic_eval.evals.json_files import json_file
from stic_eval.evals.row_faults import RAISED, faults
from stic_eval.evals.rows import Broken, ListRows


def layout_rows(benchmark: Benchmark, folder: Path, remote: bool = False) -> ListRows | None:
    """The rows of a folder that has one of the benchmark's layouts; None if it has none of them.

    Image paths start at the layout's own folder of images and cannot leave it.

    Raises:
        UserError: The files of a layout are there but do not fit.
    """
    for layout in benchmark.layouts:
        files = _files(layout, folder)
        if files is None:
            continue
        where = f"{folder} ({layout.name})"
        tables = {role: json_file(path) for role, path in files.items()}
        for role, rows in tables.items():
            for number, row in enumerate(rows, 1):
                if isinstance(row, Broken):
                    raise UserError(f"{benchmark.name}: {files[role]}: row {number}: {row.why}")
        try:
            joined = [dict(row) for row in layout.join(tables)]
        except RAISED as error:
            raise UserError(f"{benchmark.name}: {where}: cannot be joined: {faults(error)[0]}") from error
        cells = Cells(folder / layout.images, remote)
        return ListRows(where, joined, [cells] * len(joined))
    return None


def _files(layout: FolderLayout, folder: Path) -> dict[str, Path] | None:
    found = {}
    for role, pattern in layout.files.items():
        matching = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        if len(matching) != 1:
            return None
        found[role] = matching[0]
    return found


def describe(layouts: Sequence[FolderLayout]) -> str:
    """What a folder in one of the layouts holds, for messages; empty without layouts."""
    return "".join(f", nor {layout.name} ({', '.join(layout.files.values())})" for layout in layouts)
