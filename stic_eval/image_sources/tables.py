"""The images in a data set on disk: parquet, arrow, or a folder that `save_to_disk` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.image_sources.candidates import Candidate, is_named_as_image
from stic_eval.images import ImageError
from stic_eval.saved_datasets import is_saved, open_dataset

if TYPE_CHECKING:
    from datasets import Dataset

_BYTES = ("image", "images", "img", "jpg", "jpeg", "png", "webp")  # columns of encoded images without a type


def is_table(path: Path) -> bool:
    """Whether a path is a data set: a table's file, or a folder that one was saved in."""
    return path.suffix in (".parquet", ".arrow") if path.is_file() else is_saved(path)


def table_candidates(path: Path, source: str) -> Iterator[Candidate]:
    """The images of a data set's rows, in their order.

    Args:
        source: What the data set is called.

    Raises:
        UserError: It cannot be read, or has no column of images.
    """
    dataset, column = _images_of(open_dataset(path, f"--images {path}"))
    if column is None:
        names = ", ".join(dataset.column_names)
        yield Candidate(source, path, f"has no column of images (there is {names})")
        return
    root = path if path.is_dir() else path.parent
    cells = dataset.select_columns([column])
    for row in range(len(cells)):
        cell = cells[row][column]
        several = cell if isinstance(cell, list) else [cell]
        for number, image in enumerate(several):
            name = f"{source}#{row + 1}" + (f"/{number + 1}" if len(several) > 1 else "")
            yield _candidate(image, partial(_read, cells, column, row, number, name), name, root)


def _candidate(image: Any, read: partial[bytes], name: str, root: Path) -> Candidate:
    if isinstance(image, bytes) or (isinstance(image, dict) and image.get("bytes")):
        return Candidate(name, read)
    path = image.get("path") if isinstance(image, dict) else image
    if not isinstance(path, str) or not path:
        return Candidate(name, root, "has no image")
    return Candidate(name, root / path)


def _read(cells: Dataset, column: str, row: int, number: int, name: str) -> bytes:
    cell = cells[row][column]
    image = cell[number] if isinstance(cell, list) else cell
    data = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(data, bytes):
        raise ImageError(name, "is not there any more")
    return data


def _images_of(dataset: Dataset) -> tuple[Dataset, str | None]:
    """A data set whose images are not decoded, and the column that they are in."""
    from datasets import Image, List

    named: str | None = None
    for name, feature in dataset.features.items():
        if isinstance(feature, Image):
            return dataset.cast_column(name, Image(decode=False)), name
        if isinstance(feature, List) and isinstance(feature.feature, Image):
            return dataset.cast_column(name, List(Image(decode=False))), name
        if isinstance(feature, dict) and set(feature) == {"bytes", "path"}:
            return dataset, name
        if getattr(feature, "dtype", "") in ("binary", "large_binary") and name in _BYTES:
            return dataset, name
        if getattr(feature, "dtype", "") == "string" and named is None and len(dataset):
            first = dataset[0][name]
            named = name if isinstance(first, str) and is_named_as_image(first) else None
    return dataset, named
