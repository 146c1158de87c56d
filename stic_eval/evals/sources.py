"""A benchmark's samples, read from any source of rows and checked, all of them or as many as a limit lets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from stic_eval.contracts.benchmark import Benchmark
from stic_eval.errors import UserError
from stic_eval.evals.opened_rows import (
    HubUse,
    OpenedRows,
    find_rows,
    no_image,
    open_rows,
    passing,
    to_sample,
    with_images,
)
from stic_eval.evals.row_faults import RAISED, fault_line, naming, shorten
from stic_eval.evals.rows import Broken, Rows
from stic_eval.images import ref_from_pil
from stic_eval.types import ImageRef, Sample


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
            file, or a VLMEvalKit TSV. Or rows in memory: `rows.ListRows`.
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
    opened = find_rows(benchmark, source, hub_use=hub_use, images=False)
    return _samples(opened, passing(opened), images=False)


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
