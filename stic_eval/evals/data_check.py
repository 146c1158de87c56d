"""Everything that is wrong with a benchmark's data, row by row, images decoded."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stic_eval.contracts.benchmark import Benchmark
from stic_eval.errors import Contained, count_of, headline, shorten
from stic_eval.evals.data_places import is_pocket
from stic_eval.evals.image_cells import PLACEHOLDER
from stic_eval.evals.opened_rows import HubUse, OpenedRows, no_image, open_rows, to_sample
from stic_eval.evals.row_faults import Fault, faults
from stic_eval.evals.row_storage import unlike_when_stored
from stic_eval.evals.rows import Broken, Rows
from stic_eval.images import Decoding, in_order
from stic_eval.types import ImageRef, Sample

ID_COLUMNS = ("id", "question_id", "pid", "index")  # in which data sets keep a row's id


@dataclass(frozen=True, slots=True)
class RowProblem:
    """What is wrong with a row.

    Attributes:
        id: Its id, if it can be told.
        column: The column, empty if it is the whole row.
    """

    row: int
    id: str
    column: str
    message: str

    def __str__(self) -> str:
        named = f"row {self.row} (id {self.id})" if self.id else f"row {self.row}"
        return f"{named}: {Fault(self.column, self.message)}"


@dataclass(frozen=True)
class DataCheck:
    """The state of a benchmark's data.

    Attributes:
        samples: Row index, from 0 -> sample, of the rows without problems, in order.
        problems: In the order of the rows.
        warnings: What is worth knowing but wrong with no row.
    """

    opened: OpenedRows
    samples: Mapping[int, Sample]
    problems: tuple[RowProblem, ...]
    warnings: tuple[str, ...]

    @property
    def bad_rows(self) -> int:
        """How many rows have a problem."""
        return len({problem.row for problem in self.problems})


def check(
    benchmark: Benchmark,
    source: str | Path | Rows = "hub",
    *,
    images: bool = True,
    remote: bool = False,
    progress: Callable[[int, int], None] | None = None,
    root: Path | None = None,
    hub_use: HubUse | None = None,
) -> DataCheck:
    """Looks at every row of the benchmark's variant and decodes every image.

    Args:
        source: See `sources.samples`.
        images: Whether images are looked at; rows that only serve to score need none.
        progress: Called with (rows looked at, rows in all).
        root: See `sources.samples`.
        hub_use: See `sources.samples`.

    Raises:
        UserError: There is no such data, or it cannot be read as rows at all.
    """
    opened = open_rows(benchmark, source, remote=remote, root=root, hub_use=hub_use)
    problems: list[RowProblem] = []
    good: dict[int, Sample] = {}
    first: dict[str, int] = {}
    for done, (index, row, damage) in enumerate(_inspect_rows(opened, images), start=1):
        sample, found = _sample(opened, index, row, damage, images)
        name = sample.id if sample else _guess_id(opened.light[index])
        if sample and (other := first.setdefault(sample.id, index)) != index:
            found.append(Fault("", f"has the id of row {other + 1}"))
        problems += [RowProblem(index + 1, name, fault.column, fault.message) for fault in found]
        if sample and not found:
            good[index] = sample
        if progress is not None:
            progress(done, len(opened.kept))
    for index, fault in unlike_when_stored(opened, good):
        problems.append(RowProblem(index + 1, good.pop(index).id, fault.column, fault.message))
    problems.sort(key=lambda problem: problem.row)
    notes = [*_count(opened), *_rotations(benchmark, good, opened)]
    if good and all(sample.target is None for sample in good.values()):
        notes.append("no row has an answer, so all answers stay unscored")
    return DataCheck(opened, good, tuple(problems), tuple(notes))


def _inspect_rows(opened: OpenedRows, images: bool) -> Iterator[tuple[int, Mapping[str, Any], list[Fault]]]:
    """Each row with its images, and what is wrong with those; decoding releases the interpreter lock."""
    decoding = Decoding()

    def look(index: int) -> tuple[int, Mapping[str, Any], list[Fault]]:
        light = opened.light[index]
        if isinstance(light, Broken):
            return index, light, [Fault("", light.why)]
        row, found = dict(light), []
        for column in [name for name, cell in light.items() if images and cell is PLACEHOLDER]:
            try:
                row[column] = cell = opened.rows.image(index, column)
                for ref in cell if isinstance(cell, tuple) else (cell,):
                    if not isinstance(ref, ImageRef):
                        continue
                    if reason := decoding.fault(ref):
                        found.append(Fault(column, f"{ref.source}: {reason}"))
            except Exception as error:  # the cell may be anything
                found.append(replace(faults(error)[0], column=column))
        return index, row, found

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged files: they are told below
        yield from in_order(pool, look, opened.kept)


def _sample(
    opened: OpenedRows, index: int, row: Mapping[str, Any], found: list[Fault], images: bool
) -> tuple[Sample | None, list[Fault]]:
    """The sample of a row whose images were looked at, and everything that is wrong with it."""
    if isinstance(row, Broken):
        return None, found
    try:
        sample = to_sample(opened, index, row)
        absent = no_image(opened.benchmark, sample, row) if images else None
    except Exception as error:  # a benchmark is a user's own code, and the row anything
        return None, [*found, *faults(error)]
    return sample, [*found, absent] if absent else found


def _guess_id(row: Mapping[str, Any]) -> str:
    """The id of a row that fits no schema: from whatever column data sets keep it in."""
    return next((shorten(str(row[name])) for name in ID_COLUMNS if isinstance(row.get(name), (str, int))), "")


# ---------------------------------------------------------------- warnings


def _count(opened: OpenedRows) -> Iterator[str]:
    expected = opened.benchmark.source.rows
    if expected is not None and expected != len(opened.kept) and not is_pocket(opened.source):
        yield f"{count_of(len(opened.kept), 'row')}; the data set has {expected}"


def _rotations(benchmark: Benchmark, good: Mapping[int, Sample], opened: OpenedRows) -> Iterator[str]:
    """Questions that are not there under every rotation of their options: they count as if they were."""
    if benchmark.unit is None:
        return
    units: dict[str, list[Sample]] = {}
    for index, sample in good.items():
        try:
            with Contained():
                unit = benchmark.unit(opened.light[index])
        except Exception as error:  # a benchmark is a user's own code
            yield f"row {index + 1} has no unit: {headline(error)}"
            return
        units.setdefault(unit, []).append(sample)
    short = {
        unit: (len(rows), len(rows[0].choices))
        for unit, rows in units.items()
        if len(rows) < len(rows[0].choices)
    }
    if short and all(len(rows) == 1 for rows in units.values()):
        yield "no question has its rotations: circular accuracy is that of single rows"
    elif short:
        unit, (there, of) = next(iter(short.items()))
        yield f"{len(short)} of {len(units)} questions lack rotations, e.g. {unit} has {there} of {of}"
