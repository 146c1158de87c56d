"""A benchmark's data as parquet files: checked, in one format, with its images in it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from stic_eval import durable_files, lease
from stic_eval.dataset_messages import quiet_datasets
from stic_eval.errors import RunError, UserError, write_failure
from stic_eval.evals.arrow_rows import ArrowRows
from stic_eval.evals.data_check import ID_COLUMNS, DataCheck
from stic_eval.evals.data_places import NAMED
from stic_eval.evals.image_cells import PLACEHOLDER, Cells
from stic_eval.evals.opened_rows import OpenedRows
from stic_eval.evals.row_storage import COMPARED, column_type, same, table
from stic_eval.evals.sources import samples
from stic_eval.images import encoded_bytes
from stic_eval.store import file_sha256
from stic_eval.types import Sample

if TYPE_CHECKING:
    from datasets import Features
    from pyarrow import Schema

# Hub data sets have files of about this size; a row group is what readers load at once.
SHARD_BYTES = 500 * 10**6  # at which a file is closed
GROUP_BYTES = 32 * 2**20


@dataclass(frozen=True)
class PreparedData:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    rows: int


def prepare(
    checked: DataCheck, to: Path, *, progress: Callable[[int, int], None] | None = None
) -> PreparedData:
    """Writes the rows without problems as `<split>-00000-of-0000N.parquet`, and `manifest.json`.

    Columns stay as they are; images are embedded as they were encoded. What was written is read
    back and compared. The folder appears whole or not at all.

    Args:
        to: The folder, which does not exist yet or is empty.
        progress: Called with (rows written, rows in all).

    Raises:
        UserError: The folder is taken or cannot be written; a column that no table can hold.
        RunError: The disk is full, or fails.
        RunError: What was read back differs.
    """
    if not checked.samples:
        raise UserError(f"{checked.opened.benchmark.name}: no row is fit to be written")
    with _atomic_folder(to) as work:
        files = _write(checked, work, progress)
        _compare(checked, work, files)
        manifest = _manifest(checked, work, files)
        (work / "manifest.json").write_text(
            json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )
    return PreparedData(to, tuple(files), len(checked.samples))


def refuse_taken(to: Path) -> None:
    """Refuses a folder that something lies in, before any work is done for it.

    Raises:
        UserError: Names it.
    """
    durable_files.sweep_once(to.parent)  # of one that was killed when all was written
    lease.sweep(to.parent)
    if to.is_dir() and any(to.iterdir()):
        raise UserError(f"--output {to}: is not empty; give a new folder")
    if to.exists() and not to.is_dir():
        raise UserError(f"--output {to}: is a file; give a new folder")


@contextmanager
def _atomic_folder(to: Path) -> Iterator[Path]:
    """A folder beside the one that is asked for, which takes its place when the block ends well."""
    to = to.absolute()

    def refuse(holder: str) -> None:
        raise UserError(f"--output {to}: {holder} is writing it")

    try:
        durable_files.make_folder(to.parent)
        with (
            lease.hold(to.with_name(f".{to.name}.lease"), refuse),
            durable_files.temporary_folder(to) as work,
        ):
            yield work
            refuse_taken(to)
            durable_files.publish(work, to)
    except OSError as error:
        raise write_failure(f"{to} (--to)", error) from error


# ---------------------------------------------------------------- writing


def _write(checked: DataCheck, work: Path, progress: Callable[[int, int], None] | None) -> dict[str, int]:
    """Writes the files; their names, and the rows in each."""
    from pyarrow import parquet

    opened = checked.opened
    indices = list(checked.samples)
    images = _image_columns(opened, indices)
    rows = _rows_with_ids(checked)
    several = [
        name
        for name in images
        if isinstance(_embed_images(opened, _first(opened, indices, name), name), list)
    ]
    schema = _schema(rows, images, several)
    counts: list[int] = []
    writer = None
    size = SHARD_BYTES
    group: list[dict[str, Any]] = []
    held = 0

    def flush() -> None:
        nonlocal held
        if writer is not None and group:
            writer.write_table(table(group, schema))
            group.clear()
            held = 0

    for done, (index, light) in enumerate(zip(indices, rows, strict=True), start=1):
        if size >= SHARD_BYTES:
            flush()
            if writer is not None:
                writer.close()
            writer = parquet.ParquetWriter(work / f"{len(counts)}.parquet", schema)
            counts.append(0)
            size = 0
        cells = {column: _embed_images(opened, index, column) for column in images}
        group.append({**light, **cells})
        held += (added := sum(map(_size, cells.values())))
        size += added + 1  # a row without image is not nothing, lest files have no end
        counts[-1] += 1
        if held >= GROUP_BYTES or len(group) >= 1000:
            flush()
        if progress is not None:
            progress(done, len(indices))
    flush()
    if writer is not None:
        writer.close()
    split = opened.benchmark.source.split
    names = [f"{split}-{number:05}-of-{len(counts):05}.parquet" for number in range(len(counts))]
    for number, name in enumerate(names):
        (work / f"{number}.parquet").rename(work / name)
    return dict(zip(names, counts, strict=True))


def _image_columns(opened: OpenedRows, indices: Sequence[int]) -> list[str]:
    """The columns in which a row has an image."""
    return list(
        dict.fromkeys(
            name for index in indices for name, cell in opened.light[index].items() if cell is PLACEHOLDER
        )
    )


def _rows_with_ids(checked: DataCheck) -> list[dict[str, Any]]:
    """The rows without images; with an `id` where rows that have none would be numbered differently."""
    light = [checked.opened.light[index] for index in checked.samples]
    result = [{name: cell for name, cell in row.items() if cell is not PLACEHOLDER} for row in light]
    columns = ["id", *(name for name in ID_COLUMNS if any(name in row for row in result))]
    for position, (row, (index, sample)) in enumerate(zip(result, checked.samples.items(), strict=True)):
        if position != index and sample.id == str(index):
            row |= {name: sample.id for name in columns if row.get(name) is None}
    if any(row.get("id") is not None for row in result):
        for row, sample in zip(result, checked.samples.values(), strict=True):
            if not isinstance(row.get("id", []), (str, int, float, NoneType)):  # nothing that names a row
                row["id"] = sample.id
    return result


def _first(opened: OpenedRows, indices: Sequence[int], column: str) -> int:
    """The first row that has an image in a column."""
    return next(index for index in indices if opened.light[index].get(column) is PLACEHOLDER)


def _embed_images(opened: OpenedRows, index: int, column: str) -> Any:
    """A cell as `datasets` stores an image, or a list of them."""
    if opened.light[index].get(column) is not PLACEHOLDER:
        return None
    cell = opened.rows.image(index, column)
    stored = [
        {"bytes": encoded_bytes(ref), "path": Path(ref.source).name}
        for ref in (cell if isinstance(cell, tuple) else (cell,))
    ]
    return stored if isinstance(cell, tuple) else stored[0]


def _size(cell: Any) -> int:
    return sum(len(image["bytes"]) for image in (cell if isinstance(cell, list) else (cell,)) if image)


def _schema(rows: Sequence[Mapping[str, Any]], images: Sequence[str], several: Sequence[str] = ()) -> Schema:
    """The columns' types, with the description that `datasets` reads its features from.

    Args:
        several: Those of them with a list.

    Raises:
        UserError: Names a column whose cells no type covers.
    """
    import pyarrow as pa
    from datasets import Features, Image, List

    types = {}
    for name in dict.fromkeys(name for row in rows for name in row if name not in images):
        types[name] = column_type([row.get(name) for row in rows])
        if types[name] is None:
            raise UserError(f'column "{name}": no table holds its different kinds of cells')
    features: Features = Features.from_arrow_schema(pa.schema(types))
    features.update({name: List(Image()) if name in several else Image() for name in images})
    return features.arrow_schema


# ---------------------------------------------------------------- checking what was written


@quiet_datasets()
def _compare(checked: DataCheck, work: Path, files: Mapping[str, int]) -> None:
    """Reads what was written in the way any user will.

    Raises:
        RunError: A sample is another one than before.
    """
    from datasets import Dataset

    benchmark = checked.opened.benchmark
    cache = work / "cache"  # of `datasets`, which keeps a copy of whatever it reads
    read = Dataset.from_parquet([str(work / name) for name in files], cache_dir=str(cache))
    found = samples(benchmark, ArrowRows(str(work), read, Cells(work)))
    for number, (before, after) in enumerate(zip(checked.samples.values(), found, strict=True), start=1):
        for name in (*COMPARED, "images"):
            if not same(_of(before, name), _of(after, name)):
                raise RunError(
                    f"{benchmark.name}: row {number} is not the same when read back: its {name} differs"
                )
    shutil.rmtree(cache)


def _of(sample: Sample, name: str) -> Any:
    """A part of a sample, without what parquet files cannot have."""
    if name == "meta":
        return {key: value for key, value in sample.meta.items() if key != "rows"}  # the pocket world's mark
    if name == "images":
        return [hashlib.sha256(encoded_bytes(image)).hexdigest() for image in sample.images]
    return getattr(sample, name)


def _manifest(checked: DataCheck, work: Path, files: Mapping[str, int]) -> dict[str, Any]:
    """What lies in the folder and where it is from, without paths of this machine."""
    opened = checked.opened
    benchmark, hub = opened.benchmark, opened.benchmark.source
    named = opened.source in NAMED
    return {
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "protocol": benchmark.variant or benchmark.protocol,
        "source": opened.source if named else Path(opened.source).name,
        "revision": f"{opened.at.path}@{opened.at.revision}" if opened.at is not None else None,
        "split": hub.split,
        "rows": len(checked.samples),
        "skipped": [asdict(problem) for problem in checked.problems],
        "warnings": list(checked.warnings),
        "files": {
            name: {"rows": rows, "bytes": (work / name).stat().st_size, "sha256": file_sha256(work / name)}
            for name, rows in files.items()
        },
    }
