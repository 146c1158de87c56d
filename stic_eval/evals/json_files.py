"""Rows of JSON and JSONL files."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stic_eval import documents
from stic_eval.errors import UserError, quote
from stic_eval.evals.image_cells import PLACEHOLDER, Cells, without_images
from stic_eval.evals.rows import Broken, ListRows

HALF = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON may write half a character


@dataclass(frozen=True)
class PassingRows:
    """Rows of JSONL files without their images, read as they are gone through, and not held."""

    where: str
    files: Sequence[Path]

    def light(self) -> Iterator[dict[str, Any]]:
        for path in self.files:
            for row in json_lines(path):
                yield row if isinstance(row, Broken) else without_images(row)

    def image(self, index: int, column: str) -> Any:
        return PLACEHOLDER


def json_rows(where: str, files: Sequence[Path], remote: bool = False) -> ListRows:
    """Rows of JSONL files, JSON lists or JSON objects of rows; image paths start at a file's folder."""
    rows: list[dict[str, Any]] = []
    cells: list[Cells] = []
    for path in files:
        found = json_file(path)
        rows += found
        cells += [Cells(path.parent, remote)] * len(found)
    return ListRows(where, rows, cells)


def json_file(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file or of a JSON list; of a JSON object, see below.

    An object with a list under `data` (TextVQA) is that list; any other is an object of rows, which
    get their key under `id` unless they have one. What is no row is `Broken`.

    Raises:
        UserError: The file cannot be read, or is no such JSON.
    """
    if path.suffix != ".json":
        return list(json_lines(path))
    try:
        text = documents.read_text(path)
        data = documents.from_json(text)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if isinstance(data, dict):
        inner = data.get("data")
        data = (
            inner
            if isinstance(inner, list)
            else [{"id": key, **row} if isinstance(row, dict) else row for key, row in data.items()]
        )
    if not isinstance(data, list):
        raise UserError(f"{path}: expected a list or an object of rows")
    half = HALF.search(text) is not None
    return [_object(row, half) for row in data]


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, one after the other; what is no row is `Broken`.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        for number, line in enumerate(documents.read_lines(path), 1):
            if line.strip():
                yield _share_texts(_json_line(path, number, line))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> UserError:
    return UserError(f"{path}: cannot be read as JSON: {getattr(error, 'strerror', None) or error}")


def _share_texts(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts in lists are one object wherever they are equal.

    Annotators' answers and tokens repeat: of very many rows they would be most of the memory.
    """
    for name, cell in row.items():
        if isinstance(cell, list):
            row[name] = _interned(cell)
    return row


def _interned(cell: list[Any]) -> list[Any]:
    try:
        return list(map(sys.intern, cell))
    except TypeError:  # not all are texts
        return cell


def _json_line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        return _object(documents.from_json(line), HALF.search(line) is not None)
    except ValueError as error:
        return Broken(f"{path.name}, line {number}: is not valid JSON: {getattr(error, 'msg', error)}")


def _object(row: Any, may_be_half: bool) -> dict[str, Any]:
    """A row; `Broken` if it is none, or holds what no file, database or tokenizer takes."""
    if not isinstance(row, dict):
        return Broken("expected one JSON object per row")
    if may_be_half:
        for name, cell in row.items():
            try:
                json.dumps([name, cell], ensure_ascii=False).encode()
            except UnicodeEncodeError:
                return Broken(f"{quote(name)} holds half of a surrogate pair, which is not text")
    return row
