"""Rows in the formats that data sets come in, with images as references that decode on demand."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from stic_eval import documents
from stic_eval.contracts.benchmark import HubData
from stic_eval.errors import UserError, quote
from stic_eval.evals.image_cells import (
    PLACEHOLDER,
    Cells,
    base64_ref,
    is_image_column,
    keep_name,
    parse_paths,
    without_images,
)
from stic_eval.images import ImageError

if TYPE_CHECKING:
    from datasets import Dataset

Row = Mapping[str, Any]
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON may write half a character
# VLMEvalKit's cells this short name another row's image instead of holding one.
_SHARED_IMAGE = 64


class Broken(dict[str, Any]):
    """A line of a file that is no row: without columns, but counted, so that it can be named."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class Rows(Protocol):
    """Rows of a data set: all of them without images, and each image on demand."""

    @property
    def where(self) -> str:
        """Names the data in messages."""
        ...

    def light(self) -> Iterable[dict[str, Any]]:
        """All rows in order, with `PLACEHOLDER` for every image that is there."""
        ...

    def image(self, index: int, column: str) -> Any:
        """The image of a row's cell, as a reference or a tuple of them; what is no image, as it is.

        Raises:
            ImageError: It is missing, or may not be used.
        """
        ...


@dataclass(frozen=True)
class ListRows:
    """Rows in memory.

    Attributes:
        cells: How the images of each row are read; empty if they are references already.
    """

    where: str
    rows: Sequence[Row]
    cells: Sequence[Cells] = ()

    def light(self) -> Iterator[dict[str, Any]]:
        return (row if isinstance(row, Broken) else without_images(row) for row in self.rows)

    def image(self, index: int, column: str) -> Any:
        if not self.cells:
            return self.rows[index][column]
        get = partial(_cell, self.rows, index, column)
        return self.cells[index].read(get, f"{self.where}#{index + 1}")


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


def _cell(rows: Sequence[Row], index: int, column: str) -> Any:
    return rows[index][column]


class ArrowRows:
    """A memory-mapped `datasets.Dataset`; image cells become references that read it again."""

    def __init__(self, where: str, dataset: Dataset, cells: Cells) -> None:
        from datasets import Image as ImageFeature
        from datasets import List

        self.where, self.cells = where, cells
        self.columns = []
        for name, feature in dataset.features.items():
            if isinstance(feature, ImageFeature):
                dataset = dataset.cast_column(name, ImageFeature(decode=False))
                self.columns.append(name)
            elif isinstance(feature, List) and isinstance(feature.feature, ImageFeature):
                dataset = dataset.cast_column(name, List(ImageFeature(decode=False)))
                self.columns.append(name)
            elif _is_encoded_image(feature) or (is_image_column(name) and _is_text_or_bytes(feature)):
                self.columns.append(name)
        self.dataset = dataset
        self.pictures = dataset.select_columns(self.columns)

    def light(self) -> list[dict[str, Any]]:
        # Which images are there, without reading one of them.
        there = {name: _present(self.dataset, name) for name in self.columns}
        named = {"image", "decoded_image"} <= set(self.columns) and _is_text_or_bytes(
            self.dataset.features["image"]
        )
        names = self.pictures.select_columns(["image"]) if named else None
        others = [name for name in self.dataset.column_names if name not in self.columns]
        rows = self.dataset.select_columns(others) if others else [{} for _ in range(len(self.dataset))]
        light = []
        for index, other in enumerate(rows):
            row = {**other, **{name: PLACEHOLDER if there[name][index] else None for name in self.columns}}
            light.append(row if names is None else keep_name(row, names[index]))
        return light

    def image(self, index: int, column: str) -> Any:
        return self.cells.read(partial(self._read, index, column), f"{self.where}#{index + 1}")

    def _read(self, index: int, column: str) -> Any:
        return self.pictures[index][column]


def _is_encoded_image(feature: Any) -> bool:
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}


def _is_text_or_bytes(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string", "binary", "large_binary")


def _present(dataset: Dataset, name: str) -> list[bool]:
    """Which cells of an image column are not empty, by lengths alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = dataset.data.column(name)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return [bool(length) for length in pc.list_value_length(column).to_pylist()]
    parts = [column]
    if pa.types.is_struct(column.type):
        parts = [pc.struct_field(column, [part]) for part in ("bytes", "path")]
    there = [False] * len(column)
    for part in parts:
        if not pa.types.is_null(part.type):
            filled = pc.fill_null(pc.greater(pc.binary_length(part), 0), False).to_pylist()
            there = [one or other for one, other in zip(there, filled, strict=True)]
    return there


# ---------------------------------------------------------------- which files


def split_files(hub: HubData, folder: Path) -> list[Path]:
    """The files of the benchmark's configuration and split; all files where names tell no split.

    Raises:
        UserError: The files are of other splits, or one of several parts is not there.
    """
    for suffix in (".parquet", ".arrow", ".jsonl", ".json", ".tsv"):
        files = sorted(folder.rglob(f"*{suffix}"))
        files = [file for file in files if not file.name.startswith(("dataset_info", "state", "."))]
        if not files:
            continue
        if hub.name:
            files = [file for file in files if hub.name in file.relative_to(folder).parts] or files
        split = re.compile(rf"(?:^|[-_]){re.escape(hub.split)}(?:[-_.]|$)")
        named = [file for file in files if split.search(file.name)]
        if named:
            return _check_parts(folder, named)
        other = {"train", "validation", "val", "test", "dev"} - {hub.split}
        rest = [file for file in files if not other & set(re.split(r"[-_.]", file.name))]
        if rest:
            return _check_parts(folder, rest)
        names = ", ".join(file.name for file in files[:3])
        raise UserError(f'{folder}: no file of split "{hub.split}" (there is {names})')
    return []


_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.\w+\Z")


def _check_parts(folder: Path, files: list[Path]) -> list[Path]:
    """Refuses files of which parts are missing, as after a download that was cut short; else returns them."""
    parts: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if match := _PART.match(file.name):
            parts.setdefault((file.parent, match[1], int(match[3])), set()).add(int(match[2]))
    for (_, stem, total), there in parts.items():
        if missing := sorted(set(range(total)) - there):
            raise UserError(
                f"{folder}: {stem}-{missing[0]:05}-of-{total:05} is missing: copy all {total} files"
            )
    return files


# ---------------------------------------------------------------- JSON


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


# ---------------------------------------------------------------- TSV


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
        get = partial(_cell, self.rows, holder, "image")
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
