"""Where a benchmark's rows come from: the pocket world, the hub, VLMEvalKit's folder, or a local copy.

All give rows in the schema of the real data set. Images become references by content that decode
only when somebody needs the pixels, so that a data set larger than memory can be listed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from stic_eval.contracts.benchmark import Benchmark, HubId
from stic_eval.dataset_messages import quiet_datasets
from stic_eval.errors import Contained, UserError, first_line
from stic_eval.evals import hub
from stic_eval.evals.formats import (
    ArrowRows,
    Broken,
    ListRows,
    PassingRows,
    Row,
    Rows,
    json_rows,
    split_files,
    tsv_rows,
)
from stic_eval.evals.image_cells import IMAGE_COLUMNS, PLACEHOLDER, Cells
from stic_eval.evals.image_roots import with_root
from stic_eval.evals.released_folders import describe, layout_rows
from stic_eval.evals.row_faults import RAISED, Fault, fault_line, faults, naming, shorten
from stic_eval.images import ImageError, ref_from_pil
from stic_eval.saved_datasets import check_arrow
from stic_eval.store import content_key, file_digests
from stic_eval.types import ImageRef, Sample

if TYPE_CHECKING:
    from datasets import Dataset

# (id and commit that rows were had under, lines on what was in the way of others).
HubUse = Callable[[HubId, Sequence[str]], None]
# Sources that are no path. `vlmeval` is the benchmark's own file in VLMEvalKit's folder.
NAMED = ("hub", "vlmeval", "pocket", "pocket:val")


def samples(
    benchmark: Benchmark,
    source: str | Path | Rows = "hub",
    *,
    limit: float | None = None,
    images: bool = True,
    remote: bool = False,
    root: Path | None = None,
    hub_use: HubUse | None = None,
) -> list[Sample]:
    """The benchmark's samples, in the order of the data set.

    Args:
        source: `pocket` (embedded test rows; `pocket:val`: rows to choose settings on), `hub`
            (the benchmark's own data set, pinned), `vlmeval` (its TSV in `$LMUData`), or a local
            folder of parquet, arrow or JSONL files or in one of the benchmark's layouts, such a
            file, or a VLMEvalKit TSV. Or rows in memory: `formats.Listed`.
        limit: At most so many samples, or below 1 that share of them. The choice is pseudo-random
            and depends on the data alone: the same limit gives the same samples everywhere, a larger
            one contains a smaller one's, and units (MMBench's rotations) stay whole. At least one
            unit is kept.
        images: Whether images are read. Without, nothing is looked for or decoded, rows may lack
            the column, and an image that a row does have is a reference that cannot be loaded.
        remote: Whether images may be fetched from the web.
        root: Folder that paths of images start at and must stay in; None: that of their file. `/` takes
            absolute paths.
        hub_use: Is told of rows from the hub under which id they were had, and what was in the way.

    Raises:
        UserError: No such data, a row that does not fit the schema (named with its column), a row
            without image, or ids that occur twice.
    """
    if limit is None and not images:
        return list(samples_without_images(benchmark, source, hub_use=hub_use))
    opened = open_rows(benchmark, source, remote=remote, root=root, hub_use=hub_use)
    for index in opened.kept:
        if isinstance(row := opened.light[index], Broken):
            raise UserError(f"{opened.name(index)}: {row.why}")
    chosen = opened.kept if limit is None else _choose(opened, limit)
    return list(_samples(opened, ((index, opened.light[index]) for index in chosen), images))


def samples_without_images(
    benchmark: Benchmark, source: str | Path | Rows = "hub", *, hub_use: HubUse | None = None
) -> Iterator[Sample]:
    """The benchmark's samples one by one, of JSONL files without holding what was read; see `samples`.

    Raises:
        UserError: As of `samples`, at the first row that does not fit.
    """
    opened = _find_rows(benchmark, source, hub_use=hub_use, images=False)
    return _samples(opened, _passing(opened), images=False)


def _samples(
    opened: OpenedRows, rows: Iterable[tuple[int, dict[str, Any]]], images: bool
) -> Iterator[Sample]:
    seen: dict[str, int] = {}
    for index, light in rows:
        row, missing = with_images(opened, index) if images else (light, [])
        if missing:
            raise UserError(f"{opened.name(index)}: {missing[0]}")
        try:
            sample = to_sample(opened, index, row)
        except RAISED as error:
            line = fault_line(opened.name(index), error)
            raise UserError(f"{line} (`stic-eval data check` names every such row)") from error
        if images and (absent := no_image(opened.benchmark, sample, row)):
            raise UserError(f"{opened.name(index)}: {absent}")
        if sample.id in seen:
            pair = f"rows {seen[sample.id] + 1} and {index + 1}"
            where = f"{opened.benchmark.name}: {opened.rows.where}"
            raise UserError(f"{where}: {pair} have the same id {sample.id}")
        seen[sample.id] = index
        yield sample


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
    raise ValueError(f"an image was expected, not {shorten(cell)}")


# ---------------------------------------------------------------- from rows to samples


@dataclass(frozen=True)
class OpenedRows:
    """A benchmark's rows, listed but not read.

    Attributes:
        light: All of them without images; what is no row is `Broken`.
        kept: Numbers, from 0, of those that belong to the benchmark's variant.
        at: Of rows from the hub: their id and commit.
    """

    benchmark: Benchmark
    source: str
    rows: Rows
    light: list[dict[str, Any]]
    kept: Sequence[int]
    at: HubId | None = None

    def name(self, index: int) -> str:
        """A row in messages; people count from 1."""
        return f"{self.benchmark.name}: {self.rows.where}: row {index + 1}"


def open_rows(
    benchmark: Benchmark,
    source: str | Path | Rows,
    *,
    remote: bool = False,
    root: Path | None = None,
    hub_use: HubUse | None = None,
) -> OpenedRows:
    """Finds and lists a benchmark's rows; see `samples`.

    Raises:
        UserError: No such data, no rows, or none of the benchmark's variant.
    """
    found = _find_rows(benchmark, source, remote=remote, root=root, hub_use=hub_use)
    light = list(found.rows.light())
    if not light:
        raise _nothing_there(found, 0)
    opened = replace(found, light=light, kept=range(len(light)))
    if benchmark.keep is None:
        return opened
    indices = []
    for index, row in enumerate(light):
        if (kept := _of_variant(benchmark, row)) is not None:
            light[index] = kept
            indices.append(index)
    if not indices:
        raise _nothing_there(opened, len(light))
    return replace(opened, kept=indices)


def _find_rows(
    benchmark: Benchmark,
    source: str | Path | Rows,
    *,
    remote: bool = False,
    root: Path | None = None,
    hub_use: HubUse | None = None,
    images: bool = True,
) -> OpenedRows:
    """A benchmark's rows before they are listed; see `samples`."""
    at: HubId | None = None
    if str(source) == "hub" and isinstance(source, (str, Path)):
        lines: list[str] = []
        rows, at = _hub(benchmark, remote, lines.append)
        if hub_use is not None:
            hub_use(at, lines)
    else:
        rows = _open(benchmark, source, remote, images) if isinstance(source, (str, Path)) else source
        rows = with_root(rows, root, f"-o rows.{benchmark.name}.root=DIR")
    return OpenedRows(benchmark, str(source) if isinstance(source, (str, Path)) else "", rows, [], (), at)


def _passing(found: OpenedRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of the benchmark's variant with their numbers from 0, one after the other.

    Raises:
        UserError: One is no row, or there are none.
    """
    count = kept = 0
    for index, row in enumerate(found.rows.light()):
        count += 1
        if (chosen := _of_variant(found.benchmark, row)) is None:
            continue
        if isinstance(chosen, Broken):
            raise UserError(f"{found.name(index)}: {chosen.why}")
        kept += 1
        yield index, chosen
    if not kept:
        raise _nothing_there(found, count)


def _of_variant(benchmark: Benchmark, row: dict[str, Any]) -> dict[str, Any] | None:
    """A row of the benchmark's variant, `Broken` where nobody can tell; None for any other."""
    if benchmark.keep is None or isinstance(row, Broken):
        return row
    try:
        with Contained():
            return row if benchmark.keep(_PaddedRow(row)) else None
    except Exception as error:  # a benchmark is a user's own code, and the row anything
        return Broken(str(faults(error)[0]))


def _nothing_there(found: OpenedRows, count: int) -> UserError:
    """Why there is nothing to ask, of so many rows."""
    where, variant = f"{found.benchmark.name}: {found.rows.where}", found.benchmark.variant
    if not count:
        return UserError(f"{where} has no rows")
    of_variant = f' of its variant "{variant}"' if variant else ""
    return UserError(f"{where}: none of the {count} rows is one{of_variant}")


def with_images(opened: OpenedRows, index: int) -> tuple[dict[str, Any], list[Fault]]:
    """A row with its images, and what is wrong with those that stay placeholders."""
    row = dict(opened.light[index])
    found: list[Fault] = []
    for column in [name for name, cell in row.items() if cell is PLACEHOLDER]:
        try:
            row[column] = opened.rows.image(index, column)
        except ImageError as error:
            found.append(replace(faults(error)[0], column=column))
    return row, found


def to_sample(opened: OpenedRows, index: int, row: Row) -> Sample:
    """The sample of a row.

    Raises:
        Exception: One of `faults.RAISED` if the row does not fit.
    """
    with Contained():
        sample = opened.benchmark.to_sample(_PaddedRow(row))
        _check_kinds(sample)
    if not sample.id:
        sample = replace(sample, id=str(index))
    if is_pocket(opened.source):
        sample = replace(sample, meta={**sample.meta, "rows": "pocket"})
    return sample


def _check_kinds(sample: Any) -> None:
    """Refuses a sample whose parts are not of the kinds that a benchmark's contract names."""
    if not isinstance(sample, Sample):
        raise TypeError(f"the benchmark gives a {type(sample).__name__}, not a Sample")
    parts: Any = sample  # whatever its annotations say
    if not isinstance(parts.id, str):
        raise TypeError("the benchmark gives a sample whose id is not text")
    if not isinstance(parts.question, str):
        raise TypeError("the benchmark gives a sample whose question is not text")
    if not isinstance(parts.choices, (list, tuple)) or not _are(str, parts.choices):
        raise TypeError("the benchmark gives a sample whose choices is not text")
    # Nearly always dicts, which are faster to tell than other mappings.
    if not isinstance(parts.group, (dict, Mapping)) or not isinstance(parts.meta, (dict, Mapping)):
        raise TypeError("the benchmark gives a sample whose group or meta is not a mapping")
    if not isinstance(parts.images, tuple) or not _are(ImageRef, parts.images):
        raise TypeError("the benchmark gives a sample whose images are not references")


def _are(kind: type, parts: Sequence[Any]) -> bool:
    return not parts or all(isinstance(part, kind) for part in parts)


def no_image(benchmark: Benchmark, sample: Sample, row: Row) -> Fault | None:
    """What is wrong with a sample without image in a benchmark whose every row has one."""
    if sample.images or not benchmark.images:
        return None
    column = next((name for name in IMAGE_COLUMNS if name in row), None)
    return Fault(column, "is empty") if column else Fault(IMAGE_COLUMNS[0], "is missing")


class _PaddedRow(dict[str, Any]):
    """A row that gives None for an image that there is no column of; `in` and `get` tell the truth."""

    def __missing__(self, column: str) -> None:
        if column != "image":
            raise KeyError(column)


def _choose(opened: OpenedRows, limit: float) -> list[int]:
    if limit <= 0 or (limit > 1 and limit != int(limit)):
        raise UserError(f"--limit {limit}: give a number of rows (1 or more) or a fraction between 0 and 1")
    benchmark = opened.benchmark
    budget = max(1, round(limit * len(opened.kept))) if limit < 1 else int(limit)
    units: dict[str, list[int]] = {}
    for index in opened.kept:
        with naming(opened.name(index)):
            unit = str(index) if benchmark.unit is None else benchmark.unit(opened.light[index])
        units.setdefault(unit, []).append(index)
    # The first rows of a data set are no sample of it: ChartQA begins with all human questions.
    name = benchmark.rows_like or benchmark.name
    shuffled = sorted(units, key=lambda unit: hashlib.sha256(f"{name}/{unit}".encode()).digest())
    chosen: list[int] = []
    for unit in shuffled:
        if chosen and len(chosen) + len(units[unit]) > budget:
            break
        chosen += units[unit]
    return sorted(chosen)


# ---------------------------------------------------------------- the sources


def _open(benchmark: Benchmark, source: str | Path, remote: bool, images: bool = True) -> Rows:
    if is_pocket(str(source)):
        from stic_eval.pocket.rows import benchmark_rows

        split: Literal["val", "test"] = "val" if str(source).endswith(":val") else "test"
        name = benchmark.rows_like or benchmark.name
        try:
            return ListRows(f"the pocket {split} rows", benchmark_rows(name, split))
        except KeyError:
            raise UserError(
                f"{benchmark.name}: the pocket world has no rows for it; give its own: "
                f"-o rows.{benchmark.name}=FILE"
            ) from None
    path = local_path(benchmark, source)
    assert path is not None
    return _local(benchmark, path, remote, images=images)


def local_path(benchmark: Benchmark, source: str | Path) -> Path | None:
    """The file or folder that a source names; None for the hub and the pocket world.

    Raises:
        UserError: It is not there.
    """
    if str(source) == "hub" or is_pocket(str(source)):
        return None
    if str(source) == "vlmeval":
        return _vlmeval(benchmark)
    path = Path(source)
    if not path.exists():
        names = ", ".join(f"`{name}`" for name in NAMED[:3])
        raise UserError(f"{benchmark.name}: {path}: no such file or folder (nor is it one of {names})")
    return path


def _vlmeval(benchmark: Benchmark) -> Path:
    if not benchmark.vlmeval:
        raise UserError(f"{benchmark.name}: VLMEvalKit has no file for it that could be read here")
    folder = Path(os.environ.get("LMUData") or "~/LMUData").expanduser()  # noqa: SIM112
    if not (folder / benchmark.vlmeval).is_file():
        raise UserError(
            f"{benchmark.name}: {folder} holds no {benchmark.vlmeval}: put VLMEvalKit's file there, "
            "or set LMUData to the folder that it is in"
        )
    return folder / benchmark.vlmeval


def _hub(benchmark: Benchmark, remote: bool, tell: hub.Tell) -> tuple[Rows, HubId]:
    """Rows of the first copy that can be read: one that a download has left half may be whole elsewhere."""
    source = benchmark.source
    unread: UserError | None = None
    try:
        for at, found in hub.find(benchmark.name, source, tell):
            where = hub.label_of(source, at)
            if not isinstance(found, Path):
                return ArrowRows(where, found, Cells(None, remote)), at
            try:
                return _local(benchmark, found, remote, where), at
            except UserError as error:
                unread = unread or error
    except UserError as error:
        raise unread or error from error
    assert unread is not None  # `find` gives something or raises
    raise unread


def _local(
    benchmark: Benchmark, path: Path, remote: bool, where: str | None = None, images: bool = True
) -> Rows:
    pinned, where = where is not None, where or str(path)
    cells = Cells(path if path.is_dir() else path.parent, remote)
    try:
        if path.is_dir() and ((path / "state.json").exists() or (path / "dataset_dict.json").exists()):
            return ArrowRows(where, _saved_dataset(benchmark, path), cells)
        if path.is_dir() and (rows := layout_rows(benchmark, path, remote)) is not None:
            return rows
        files = split_files(benchmark.source, path) if path.is_dir() else [path]
        kind = files[0].suffix if files else ""
        if kind in (".parquet", ".arrow"):
            return ArrowRows(where, _arrow_dataset(files, pinned), cells)
        if kind == ".jsonl" and not images:
            return PassingRows(where, files)
        if kind in (".jsonl", ".json"):
            return json_rows(where, files, remote)
        if kind == ".tsv":
            return tsv_rows(where, files, remote)
    except UserError:
        raise
    except Exception as error:  # pyarrow's and datasets' own kinds
        reason = first_line(error.__cause__ or error)
        raise UserError(f"{benchmark.name}: {path}: cannot be read: {reason}") from error
    raise UserError(
        f"{benchmark.name}: {path}: holds no parquet, arrow, JSON, JSONL or TSV file"
        f"{describe(benchmark.layouts) if path.is_dir() else ''}"
    )


@quiet_datasets()
def _saved_dataset(benchmark: Benchmark, path: Path) -> Dataset:
    """The benchmark's split in a folder that `datasets` has saved."""
    from datasets import Dataset, load_from_disk

    split, loaded = benchmark.source.split, load_from_disk(str(path))
    if isinstance(loaded, Dataset):
        return check_arrow(loaded)
    if split not in loaded:
        raise UserError(f'{benchmark.name}: {path}: no split "{split}" in {", ".join(loaded)}')
    return check_arrow(loaded[split])


@quiet_datasets()
def _arrow_dataset(files: Sequence[Path], pinned: bool) -> Dataset:
    """Parquet or arrow files as one data set.

    Args:
        pinned: Their path has the commit, by which `datasets` knows what it has read before.
    """
    from datasets import Dataset, concatenate_datasets

    if files[0].suffix == ".arrow":
        return concatenate_datasets([check_arrow(Dataset.from_file(str(file))) for file in files])
    name = None if pinned else f"rows_{content_key(file_digests(files))[:16]}"  # else by path and time
    return Dataset.from_parquet([str(file) for file in files], dataset_name=name)
