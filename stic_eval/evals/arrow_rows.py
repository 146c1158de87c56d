"""Rows of arrow tables: data sets that `datasets` has saved, and parquet and arrow files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.benchmark import Benchmark
from stic_eval.dataset_messages import quiet_datasets
from stic_eval.errors import UserError
from stic_eval.evals.image_cells import PLACEHOLDER, Cells, is_image_column, keep_name
from stic_eval.saved_datasets import check_arrow
from stic_eval.store import content_key, file_digests

if TYPE_CHECKING:
    from datasets import Dataset


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


@quiet_datasets()
def saved_split(benchmark: Benchmark, path: Path) -> Dataset:
    """The benchmark's split in a folder that `datasets` has saved."""
    from datasets import Dataset, load_from_disk

    split, loaded = benchmark.source.split, load_from_disk(str(path))
    if isinstance(loaded, Dataset):
        return check_arrow(loaded)
    if split not in loaded:
        raise UserError(f'{benchmark.name}: {path}: no split "{split}" in {", ".join(loaded)}')
    return check_arrow(loaded[split])


@quiet_datasets()
def arrow_dataset(files: Sequence[Path], pinned: bool) -> Dataset:
    """Parquet or arrow files as one data set.

    Args:
        pinned: Their path has the commit, by which `datasets` knows what it has read before.
    """
    from datasets import Dataset, concatenate_datasets

    if files[0].suffix == ".arrow":
        return concatenate_datasets([check_arrow(Dataset.from_file(str(file))) for file in files])
    name = None if pinned else f"rows_{content_key(file_digests(files))[:16]}"  # else by path and time
    return Dataset.from_parquet([str(file) for file in files], dataset_name=name)
