"""A benchmark's rows, listed, and the sample of each.

Images become references by content that decode only when somebody needs the pixels, so that a data set
larger than memory can be listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stic_eval.contracts.benchmark import Benchmark, HubId
from stic_eval.errors import Contained, UserError
from stic_eval.evals.data_places import hub_rows, is_pocket, rows_at
from stic_eval.evals.image_cells import IMAGE_COLUMNS, PLACEHOLDER
from stic_eval.evals.image_roots import with_root
from stic_eval.evals.row_faults import Fault, faults
from stic_eval.evals.rows import Broken, Row, Rows
from stic_eval.images import ImageError
from stic_eval.types import ImageRef, Sample

# (id and commit that rows were had under, lines on what was in the way of others).
HubUse = Callable[[HubId, Sequence[str]], None]


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
    found = find_rows(benchmark, source, remote=remote, root=root, hub_use=hub_use)
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


def find_rows(
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
        rows, at = hub_rows(benchmark, remote, lines.append)
        if hub_use is not None:
            hub_use(at, lines)
    else:
        rows = rows_at(benchmark, source, remote, images) if isinstance(source, (str, Path)) else source
        rows = with_root(rows, root, f"-o rows.{benchmark.name}.root=DIR")
    return OpenedRows(benchmark, str(source) if isinstance(source, (str, Path)) else "", rows, [], (), at)


def passing(found: OpenedRows) -> Iterator[tuple[int, dict[str, Any]]]:
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
