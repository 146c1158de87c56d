"""Items to fine-tune on as a file, images included, for processes that did not read them themselves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval.contracts.method import SFTItem
from stic_eval.dataset_messages import quiet_datasets
from stic_eval.images import encoded_bytes, load_bytes
from stic_eval.types import ImageRef

if TYPE_CHECKING:
    from PIL.Image import Image

_ROW_GROUP = 64


def write_items(items: Sequence[SFTItem], path: Path) -> None:
    """Writes items as Parquet, each image as it was encoded.

    Raises:
        ImageError: An image's file is gone, or it cannot be decoded.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [("id", pa.string()), ("turns", pa.list_(turn)), ("image", pa.binary()), ("sha256", pa.string()),
         ("source", pa.string())]
    )  # fmt: skip
    temporary = path.with_name(f".{path.name}.tmp")
    with pq.ParquetWriter(temporary, schema) as writer:
        for first in range(0, len(items), _ROW_GROUP):
            rows = [_row(item) for item in items[first : first + _ROW_GROUP]]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    os.replace(temporary, path)


def _row(item: SFTItem) -> dict[str, Any]:
    turns = [{"role": role, "content": text} for role, text in item.turns]
    image = item.image
    return {
        "id": item.id, "turns": turns, "image": encoded_bytes(image), "sha256": image.sha256,
        "source": image.source,
    }  # fmt: skip


def read_items(path: Path, cache: Path) -> list[SFTItem]:
    """The items of such a file; images are mapped into memory and decoded when they are needed.

    Args:
        cache: Where the mapped copy goes; the caller deletes it.
    """
    from datasets import Dataset

    with quiet_datasets():
        rows = Dataset.from_parquet(str(path), cache_dir=str(cache))
    light, pictures = rows.remove_columns(["image"]), rows.select_columns(["image", "source"])

    def picture(index: int) -> Image:
        row = pictures[index]
        return load_bytes(row["image"], row["source"])

    return [
        SFTItem(
            row["id"],
            ImageRef(row["sha256"], row["source"], partial(picture, index)),
            tuple((turn["role"], turn["content"]) for turn in row["turns"]),
        )
        for index, row in enumerate(light)
    ]
