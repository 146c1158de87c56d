"""The image files that a file of rows names: part of the rows, though they lie beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stic_eval.evals.image_cells import LONGEST_PATH, is_image_column, parse_paths
from stic_eval.evals.json_files import json_file
from stic_eval.evals.tsv_files import tsv_file


def images_beside(path: Path, root: Path | None = None) -> list[Path]:
    """The images that a file of rows names by paths from its folder on, as far as they are there.

    Args:
        path: A JSON, JSONL, TSV, parquet or arrow file.
        root: Folder that paths start at; None: the file's.

    Raises:
        UserError: The file cannot be read.
        OSError, ValueError: A file cannot be read, or is no parquet or arrow file.
    """
    names = sorted({name for cell in _cells(path) for name in _paths_in(cell) if len(name) <= LONGEST_PATH})
    start = root or path.parent
    return [start / name for name in names if os.path.isfile(start / name)]


def _cells(path: Path) -> Iterator[Any]:
    if path.suffix in (".json", ".jsonl"):
        for row in json_file(path):
            yield from (cell for name, cell in row.items() if is_image_column(name))
    elif path.suffix == ".tsv":
        with path.open("rb") as file:
            if b"image_path" not in file.readline():
                return
        yield from (parse_paths(row["image_path"]) for row in tsv_file(path) if row.get("image_path"))
    elif path.suffix in (".parquet", ".arrow"):
        yield from _texts(path)


def _paths_in(cell: Any) -> Iterator[str]:
    """What a cell may name: a path, a list of cells, or `datasets`' `{"bytes": ..., "path": ...}`."""
    if isinstance(cell, str):
        yield cell
    elif isinstance(cell, Mapping):
        yield from _paths_in(cell.get("path"))
    elif isinstance(cell, list):
        for part in cell:
            yield from _paths_in(part)


def _texts(path: Path) -> Iterator[str]:
    """The texts in the image columns of a table; encoded images are not read."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        leaves = [file.schema.column(number) for number in range(len(file.schema))]
        texts = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
        table = file.read([text for text in texts if is_image_column(text.partition(".")[0])])
    else:
        from datasets import Dataset

        table = Dataset.from_file(str(path)).data
    todo = [table.column(name) for name in table.column_names if is_image_column(name)]
    while todo:
        column = todo.pop()
        if pa.types.is_struct(column.type):
            todo += [pc.struct_field(column, [field.name]) for field in column.type if field.name == "path"]
        elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            todo.append(pc.list_flatten(column))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            yield from (text for text in column.to_pylist() if text is not None)
