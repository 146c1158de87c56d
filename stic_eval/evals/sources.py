"""Where a benchmark's rows come from: the pocket world, the hub, or a local copy.

All give rows in the schema of the real data set. Images become references by content that decode
only when somebody needs the pixels, so that a data set larger than memory can be listed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from stic_eval.errors import UserError
from stic_eval.evals.benchmark import Benchmark
from stic_eval.evals.formats import Listed, Row, Rows, Table, json_rows, split_files, tsv_rows
from stic_eval.images import ImageError, ref_from_pil
from stic_eval.types import ImageRef, Sample


def samples(benchmark: Benchmark, source: str | Path = "hub", *, limit: float | None = None) -> list[Sample]:
    """The benchmark's samples, in the order of the data set.

    Args:
        benchmark: Which.
        source: `pocket` (embedded test rows; `pocket:val`: rows to choose settings on), `hub`
            (the benchmark's own data set, pinned), or a local folder of parquet, arrow or JSONL files,
            such a file, or a VLMEvalKit TSV.
        limit: At most so many samples, or below 1 that share of them. The choice is pseudo-random
            and depends on the data alone: the same limit gives the same samples everywhere, a larger
            one contains a smaller one's, and units (MMBench's rotations) stay whole. At least one
            unit is kept.

    Raises:
        UserError: No such data, a row that does not fit the schema (named with its column), or ids
            that occur twice.
    """
    rows = _open(benchmark, source)
    light = list(rows.light())
    if not light:
        raise UserError(f"{benchmark.name}: {rows.where} has no rows")
    chosen = range(len(light)) if limit is None else _choose(benchmark, rows.where, light, limit)
    result: list[Sample] = []
    seen: dict[str, int] = {}
    for index in chosen:
        with _naming(f"{benchmark.name}: {rows.where}: row {index + 1}"):
            sample = benchmark.to_sample(rows.full(index))
        if not sample.id:
            sample = replace(sample, id=str(index))
        if is_pocket(str(source)):
            sample = replace(sample, meta={**sample.meta, "rows": "pocket"})
        if sample.id in seen:
            pair = f"rows {seen[sample.id] + 1} and {index + 1}"
            raise UserError(f"{benchmark.name}: {rows.where}: {pair} have the same id {sample.id}")
        seen[sample.id] = index
        result.append(sample)
    return result


def is_pocket(source: str) -> bool:
    """Whether rows come from the embedded world: `pocket` (test) or `pocket:val` (to choose settings on)."""
    return source in ("pocket", "pocket:val")


def images_of(cell: Any, source: str) -> tuple[ImageRef, ...]:
    """The images of a row's cell: none, or the one as a reference.

    Args:
        cell: None, an `ImageRef`, or a PIL image as `datasets` decodes it.
        source: What the image is, for people: `textvqa/34602`.

    Raises:
        ValueError: The cell is something else, e.g. a path that nobody resolved.
    """
    if cell is None:
        return ()
    if isinstance(cell, ImageRef):
        return (cell,)
    if isinstance(cell, Image.Image):
        return (ref_from_pil(cell, source),)
    raise ValueError(f"an image was expected, not {_shortened(cell)}")


def row_id(row: Row, *columns: str) -> str:
    """The first of the columns that the row has, as text, or nothing.

    Some data sets have no id column; `samples` puts the row's number where it finds an empty id.
    """
    return next((str(row[column]) for column in columns if row.get(column) is not None), "")


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Turns what a row that does not fit raises into one line that names the row."""
    try:
        yield
    except ImageError as error:
        raise UserError(f"{where}: {error}") from error
    except KeyError as error:
        raise UserError(f'{where}: column "{error.args[0]}" is missing') from error
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{where}: {error}") from error


def _choose(benchmark: Benchmark, where: str, light: Sequence[Row], limit: float) -> list[int]:
    if limit <= 0 or (limit > 1 and limit != int(limit)):
        raise UserError(f"--limit {limit}: give a number of rows (1 or more) or a fraction between 0 and 1")
    budget = max(1, round(limit * len(light))) if limit < 1 else int(limit)
    units: dict[str, list[int]] = {}
    for index, row in enumerate(light):
        with _naming(f"{benchmark.name}: {where}: row {index + 1}"):
            unit = str(index) if benchmark.unit is None else benchmark.unit(row)
        units.setdefault(unit, []).append(index)
    # The first rows of a data set are no sample of it: ChartQA begins with all human questions.
    shuffled = sorted(units, key=lambda unit: hashlib.sha256(f"{benchmark.name}/{unit}".encode()).digest())
    chosen: list[int] = []
    for unit in shuffled:
        if chosen and len(chosen) + len(units[unit]) > budget:
            break
        chosen += units[unit]
    return sorted(chosen)


# ---------------------------------------------------------------- the sources


def _open(benchmark: Benchmark, source: str | Path) -> Rows:
    if is_pocket(str(source)):
        from stic_eval.pocket.rows import benchmark_rows

        split: Literal["val", "test"] = "val" if str(source).endswith(":val") else "test"
        try:
            return Listed(f"the pocket {split} rows", benchmark_rows(benchmark.name, split))
        except KeyError:
            raise UserError(
                f"{benchmark.name}: the pocket world has no rows for it; give its own: "
                f"-o rows.{benchmark.name}=FILE"
            ) from None
    if str(source) == "hub":
        return _hub(benchmark)
    path = Path(source)
    if not path.exists():
        raise UserError(f"{benchmark.name}: {path}: no such file or folder (nor is it `pocket` or `hub`)")
    return _local(benchmark, path)


def _hub(benchmark: Benchmark) -> Rows:
    hub = benchmark.source
    where = f"{hub.path}{f' ({hub.name})' if hub.name else ''}, split {hub.split}"
    try:
        from huggingface_hub import snapshot_download

        # Only the split's own files: `load_dataset` would fetch the training images as well.
        pattern = f"{hub.name or 'data'}/{hub.split}-*.parquet"
        folder = snapshot_download(
            hub.path, repo_type="dataset", revision=hub.revision, allow_patterns=[pattern]
        )
        if any(Path(folder).rglob("*.parquet")):
            return _local(benchmark, Path(folder), where)
        from datasets import load_dataset

        return Table(where, load_dataset(hub.path, hub.name, split=hub.split, revision=hub.revision))
    except UserError:
        raise
    except Exception as error:  # the hub's client raises a dozen kinds
        raise UserError(
            f"{benchmark.name}: cannot get {where}, revision {hub.revision}, from the hub: "
            f"{type(error).__name__}: {_first_line(error)} (a local copy of the data set works as well)"
        ) from error


def _local(benchmark: Benchmark, path: Path, where: str | None = None) -> Rows:
    from datasets import Dataset, concatenate_datasets, load_from_disk

    where = where or str(path)
    split = benchmark.source.split
    try:
        if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            loaded = load_from_disk(str(path))
            if not isinstance(loaded, Dataset) and split not in loaded:
                raise UserError(f'{benchmark.name}: {path}: no split "{split}" in {", ".join(loaded)}')
            return Table(where, loaded if isinstance(loaded, Dataset) else loaded[split], path)
        files = split_files(benchmark.source, path) if path.is_dir() else [path]
        kind = files[0].suffix if files else ""
        root = path if path.is_dir() else path.parent
        if kind == ".parquet":
            return Table(where, Dataset.from_parquet([str(file) for file in files]), root)
        if kind == ".arrow":
            parts = [Dataset.from_file(str(file)) for file in files]
            return Table(where, concatenate_datasets(parts), root)
        if kind in (".jsonl", ".json"):
            return json_rows(where, files)
        if kind == ".tsv":
            return Listed(where, [row for file in files for row in tsv_rows(file)])
    except UserError:
        raise
    except Exception as error:  # pyarrow's and datasets' own kinds
        raise UserError(f"{benchmark.name}: {path}: cannot be read: {_first_line(error)}") from error
    raise UserError(f"{benchmark.name}: {path}: holds no parquet, arrow, JSON, JSONL or TSV file")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
