"""Rows in the formats that data sets come in, with images as references that decode on demand."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from stic_eval.errors import UserError
from stic_eval.evals.benchmark import HubData
from stic_eval.images import FORMATS, MAX_PIXELS, ImageError, image_ref, to_rgb
from stic_eval.types import ImageRef

if TYPE_CHECKING:
    from datasets import Dataset

Row = Mapping[str, Any]
# VLMEvalKit's cells this short name another row's image instead of holding one.
_SHARED_IMAGE = 64


class Rows(Protocol):
    """Rows of a data set: cheap ones without images to choose from, full ones on demand."""

    @property
    def where(self) -> str:
        """Names the data in messages."""
        ...

    def light(self) -> Iterable[Row]:
        """All rows in order; image columns may be missing."""
        ...

    def full(self, index: int) -> Row:
        """One row with its images."""
        ...


@dataclass(frozen=True)
class Listed:
    """Rows in memory."""

    where: str
    rows: Sequence[Row]

    def light(self) -> Iterable[Row]:
        return self.rows

    def full(self, index: int) -> Row:
        return self.rows[index]


class Table:
    """A memory-mapped `datasets.Dataset`; image cells become references that read it again.

    Args:
        where: Names it in messages.
        dataset: The rows.
        root: Folder that images given by path must lie in; None trusts the paths.
    """

    def __init__(self, where: str, dataset: Dataset, root: Path | None = None) -> None:
        from datasets import Image as ImageFeature

        self.where = where
        self.root = root
        self.images = [name for name, feature in dataset.features.items() if _holds_images(feature)]
        for name in self.images:
            dataset = dataset.cast_column(name, ImageFeature(decode=False))
        self.dataset = dataset

    def light(self) -> Iterable[Row]:
        rows: Iterable[Row] = self.dataset.remove_columns(self.images)
        return rows

    def full(self, index: int) -> Row:
        row = dict(self.dataset[index])
        for name in self.images:
            cell = row[name]
            if cell is None:
                continue
            source = f"{self.where}#{index + 1}"
            if cell["bytes"] is None:
                row[name] = image_ref(cell["path"], self.root)
            else:
                digest = hashlib.sha256(cell["bytes"]).hexdigest()
                row[name] = ImageRef(digest, source, partial(self._decode, index, name, source))
        return row

    def _decode(self, index: int, name: str, source: str) -> Image.Image:
        return _decoded(self.dataset[index][name]["bytes"], source)


def _holds_images(feature: Any) -> bool:
    from datasets import Image as ImageFeature

    return isinstance(feature, ImageFeature) or (
        isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    )


def split_files(hub: HubData, folder: Path) -> list[Path]:
    """The files of the benchmark's configuration and split; all files where names tell no split."""
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
            return named
        other = {"train", "validation", "val", "test", "dev"} - {hub.split}
        rest = [file for file in files if not other & set(re.split(r"[-_.]", file.name))]
        if rest:
            return rest
        names = ", ".join(file.name for file in files[:3])
        raise UserError(f'{folder}: no file of split "{hub.split}" (there is {names})')
    return []


@dataclass(frozen=True)
class JsonRows:
    """Rows of JSON files; the images that they name are looked up for the rows that are used."""

    where: str
    rows: Sequence[dict[str, Any]]
    origins: Sequence[tuple[Path, int]]

    def light(self) -> Iterable[Row]:
        return self.rows

    def full(self, index: int) -> Row:
        return _with_image(self.rows[index], *self.origins[index])


def json_rows(where: str, files: Sequence[Path]) -> JsonRows:
    """Rows of JSONL files, JSON lists or JSON objects of rows; image paths start at a file's folder."""
    rows: list[dict[str, Any]] = []
    origins: list[tuple[Path, int]] = []
    for path in files:
        found = _json_file(path)
        rows += found
        origins += [(path, number) for number in range(1, len(found) + 1)]
    return JsonRows(where, rows, origins)


def _json_file(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            data = json.loads(text)
            rows = list(data.values()) if isinstance(data, dict) else data
        else:
            # Not splitlines(): JSON strings may hold Unicode line separators.
            lines = enumerate(text.split("\n"), 1)
            rows = [_json_line(path, number, line) for number, line in lines if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: expected one JSON object per row")
    return rows


def _json_line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: is not valid JSON: {error.msg}") from error


def _with_image(row: dict[str, Any], path: Path, number: int) -> Row:
    cell = row.get("image")
    if not isinstance(cell, str) or not cell:
        return row
    try:
        if len(cell) > 1024 or cell.startswith("data:"):
            return {**row, "image": _encoded_ref(cell.split(",")[-1], f"{path}#{number}")}
        return {**row, "image": image_ref(cell, root=path.parent)}
    except (ImageError, binascii.Error) as error:
        raise UserError(f"{path}: row {number}: {error}") from error


def tsv_rows(path: Path) -> list[Row]:
    """Rows of VLMEvalKit's TSV: an image is base64, or the index of the row that holds it."""
    with path.open(newline="", encoding="utf-8") as file:
        old = csv.field_size_limit(1 << 30)  # a cell holds a whole image
        try:
            rows: list[dict[str, Any]] = list(csv.DictReader(file, delimiter="\t"))
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}: is no TSV: {error}") from error
        finally:
            csv.field_size_limit(old)
    if rows and "index" not in rows[0]:
        raise UserError(f'{path}: column "index" is missing')
    refs: dict[str, ImageRef] = {}
    for number, row in enumerate(rows, 2):
        cell = row.get("image") or ""
        if len(cell) > _SHARED_IMAGE:
            try:
                refs[row["index"]] = _encoded_ref(cell, f"{path}#{row['index']}")
            except binascii.Error as error:
                raise UserError(f"{path}: line {number}: column image is not base64: {error}") from error
    for number, row in enumerate(rows, 2):
        cell = row.get("image") or ""
        if "image" in row:
            key = row["index"] if len(cell) > _SHARED_IMAGE else cell
            if cell and key not in refs:
                raise UserError(f"{path}: line {number}: column image names row {key}, which has no image")
            row["image"] = refs[key] if cell else None
    return list(rows)


# ---------------------------------------------------------------- encoded images


def _encoded_ref(text: str, source: str) -> ImageRef:
    data = base64.b64decode(text, validate=True)
    return ImageRef(hashlib.sha256(data).hexdigest(), source, partial(_decoded, data, source))


def _decoded(data: bytes, source: str) -> Image.Image:
    """Encoded bytes as upright 8-bit RGB, with the same limits as image files."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    source, f"{image.width} x {image.height} is larger than {MAX_PIXELS:,} pixels"
                )
            return to_rgb(image)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything on damaged data
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ImageError(source, f"damaged: {reason}") from error
