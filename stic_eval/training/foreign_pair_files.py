"""Where preference pairs that were made elsewhere lie: rows of JSON, JSONL, parquet, or a saved data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stic_eval.documents import from_json, open_regular, read_text
from stic_eval.errors import UserError, first_line
from stic_eval.saved_datasets import check_arrow

_BATCH = 16  # rows with their images in memory


class Unread(Exception):
    """A row, or what stands in its place, that cannot be used, and why."""


def listed_file(folder: Path) -> Path:
    """The file that a folder's dataset_info.json describes as preference data."""
    path = folder / "dataset_info.json"
    try:
        data = from_json(read_text(path))
        files = {
            name: str(info["file_name"])
            for name, info in data.items()
            if isinstance(info, dict) and info.get("ranking") and info.get("file_name")
        }
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if len(files) != 1:
        found = f"describes {len(files)} files of pairs" + (f" ({', '.join(files)})" if files else "")
        raise UserError(f"{path}: {found}; give the file itself")
    file = folder / next(iter(files.values()))
    if not os.path.isfile(file) or not file.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: names {file.name}, which is not a file in this folder")
    return file


def raw_rows(path: Path) -> Iterable[Any]:
    """Rows as they come: objects, or why one is none.

    Raises:
        UserError: The file is of no known kind.
    """
    if path.is_dir():
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            return _read_saved(path)
        files = sorted(path.rglob("*.parquet"))
        if not files:
            raise UserError(
                f"{path}: holds neither parquet files, nor a saved data set, nor dataset_info.json"
            )
        return (row for file in files for row in _parquet(file))
    try:
        file = open_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        binary = file.read(4) == b"PAR1"
    return _parquet(path) if binary else _json(path)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as file, pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as parquet: {first_line(error)}") from error


def _read_saved(path: Path) -> Iterator[Any]:
    from datasets import DatasetDict, load_from_disk

    try:
        table = load_from_disk(str(path))
        if isinstance(table, DatasetDict):
            table = table["train"] if "train" in table else next(iter(table.values()))
        for batch in check_arrow(table).with_format("arrow").iter(batch_size=_BATCH):
            yield from batch.to_pylist()
    except UserError:
        raise
    except Exception as error:  # pyarrow's and datasets' own kinds
        raise UserError(f"{path}: cannot be read as a saved data set: {first_line(error)}") from error


def _json(path: Path) -> list[Any]:
    try:
        text = read_text(path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is neither JSON nor parquet") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    if text.lstrip()[:1] == "[":
        try:
            data = from_json(text)
        except ValueError as error:
            raise UserError(f"{path}: is not valid JSON: {first_line(error)}") from error
        return list(data)
    # Not splitlines(): strings of JSON may hold Unicode's own line separators.
    rows = [_line(line) for line in text.split("\n") if line.strip()]
    if rows and isinstance(rows[0], Unread) and _is_object(text):
        raise UserError(f"{path}: holds one object, not rows; give a list of rows, or an object on each line")
    return rows


def _is_object(text: str) -> bool:
    try:
        return isinstance(from_json(text), dict)
    except ValueError:
        return False


def _line(line: str) -> Any:
    try:
        return from_json(line)
    except ValueError as error:
        return Unread(f"is not valid JSON: {first_line(error)}")
