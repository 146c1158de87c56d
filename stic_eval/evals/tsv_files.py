"""Rows of VLMEvalKit's TSV files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from stic_eval import documents
from stic_eval.errors import UserError
from stic_eval.evals.image_cells import PLACEHOLDER, Cells, base64_ref, parse_paths
from stic_eval.evals.rows import Broken, cell_of
from stic_eval.images import ImageError

# VLMEvalKit's cells this short name another row's image instead of holding one.
_SHARED_IMAGE = 64


@dataclass(frozen=True)
class TsvRows:
    """Rows of VLMEvalKit's TSV.

    An image is base64, or the index of the row that holds it; without a column `image` it is the
    file that `image_path` names.

    Attributes:
        rows: The rows as they are, all text.
        holders: Index cell -> number of the row that holds an image under it.
    """

    where: str
    rows: Sequence[dict[str, Any]]
    cells: Cells
    holders: Mapping[str, int] = field(default_factory=dict)

    def light(self) -> list[dict[str, Any]]:
        light: list[dict[str, Any]] = []
        for row in self.rows:
            if isinstance(row, Broken):
                light.append(row)
            elif "image" in row or "image_path" in row:
                cell = row.get("image") or row.get("image_path")
                light.append({**row, "image": PLACEHOLDER if cell else None})
            else:
                light.append(row)
        return light

    def image(self, index: int, column: str) -> Any:
        cell = self.rows[index].get("image")
        if not cell:
            paths = parse_paths(self.rows[index]["image_path"])
            if len(paths) != 1:
                raise ImageError("column image_path", f"names {len(paths)} images; one is expected")
            return self.cells.read(lambda: paths[0], self.where)
        holder = index if len(cell) > _SHARED_IMAGE else self.holders.get(cell)
        if holder is None:
            raise ImageError(f"of row {cell}", "there is no such row, or it has no image")
        get = partial(cell_of, self.rows, holder, "image")
        source = f"{self.where}#{self.rows[holder]['index']}"
        # Text is never a path here, however it begins.
        return base64_ref(get, source)


def tsv_rows(where: str, files: Sequence[Path], remote: bool = False) -> TsvRows:
    """Rows of VLMEvalKit's TSVs.

    Raises:
        UserError: A file is no TSV, or has no column `index`.
    """
    rows: list[dict[str, Any]] = []
    for path in files:
        rows += tsv_file(path)
    holders: dict[str, int] = {}
    for number, row in enumerate(rows):
        if len(row.get("image") or "") > _SHARED_IMAGE:
            holders.setdefault(row["index"], number)
    return TsvRows(where, rows, Cells(files[0].parent, remote), holders)


def tsv_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a VLMEvalKit TSV as they are, all text; one with too many or too few cells is `Broken`.

    Raises:
        UserError: The file is no TSV, or has no column `index`.
    """
    with TextIOWrapper(documents.open_regular(path), "utf-8-sig", newline="") as file:
        old = csv.field_size_limit(1 << 30)  # a cell holds a whole image
        try:
            reader = csv.DictReader(file, delimiter="\t")
            rows: list[dict[Any, Any]] = list(reader)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not a TSV file: {error}") from error
        finally:
            csv.field_size_limit(old)
    if rows and "index" not in rows[0]:
        raise UserError(f'{path}: column "index" is missing')
    columns = len(reader.fieldnames or ())
    return [_check_row(row, columns) for row in rows]


def _check_row(row: dict[Any, Any], columns: int) -> dict[str, Any]:
    """A row; `Broken` if it has more or fewer cells than columns, as cells would end up in other columns."""
    if None in row:
        return Broken(f"has {columns + len(row[None])} cells, but there are {columns} columns")
    if None in row.values():
        there = sum(cell is not None for cell in row.values())
        return Broken(f"has {there} cells, but there are {columns} columns")
    return row
