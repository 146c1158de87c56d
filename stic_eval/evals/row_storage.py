"""Rows as a table stores them: which of them no table holds, or gives back as they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from stic_eval.errors import first_line
from stic_eval.evals.image_cells import PLACEHOLDER
from stic_eval.evals.opened_rows import OpenedRows, to_sample
from stic_eval.evals.row_faults import Fault
from stic_eval.types import Sample

if TYPE_CHECKING:
    from pyarrow import DataType, Schema
    from pyarrow import Table as ArrowTable

Row = Mapping[str, Any]
_SCALARS = (str, int, float)
# What has to be the same when a row is read again; its images are looked at when they are written.
COMPARED = ("id", "question", "target", "choices", "group", "meta")


def unlike_when_stored(opened: OpenedRows, good: Mapping[int, Sample]) -> list[tuple[int, Fault]]:
    """Rows, by index from 0, that no table with the others holds, or that come out of one as other samples.

    Args:
        opened: The rows.
        good: Index -> sample, of those that are fit otherwise.
    """
    rows = {index: _without_images(opened.light[index]) for index in good}
    found = dict(_unfit_cells(rows))
    left = [index for index in rows if index not in found]
    if left:
        for index, row in zip(left, _read_back([rows[index] for index in left]), strict=True):
            images = {name: cell for name, cell in opened.light[index].items() if cell is PLACEHOLDER}
            if fault := _difference(opened, index, good[index], {**row, **images}):
                found[index] = fault
    return sorted(found.items(), key=lambda item: item[0])


def _without_images(row: Row) -> dict[str, Any]:
    return {name: cell for name, cell in row.items() if cell is not PLACEHOLDER}


def _difference(opened: OpenedRows, index: int, before: Sample, row: Row) -> Fault | None:
    try:
        after = to_sample(opened, index, row)
    except Exception as error:  # a benchmark is a user's own code
        return Fault("", f"cannot be read any more once a table has held it: {first_line(error)}")
    names = [name for name in COMPARED if not same(getattr(before, name), getattr(after, name))]
    return Fault("", f"its {names[0]} is another one once a table has held it") if names else None


def same(one: Any, other: Any) -> bool:
    """Whether two parts of samples are the same; NaN is NaN."""
    return bool(one == other) or repr(one) == repr(other)


def _unfit_cells(rows: Mapping[int, Row]) -> Iterator[tuple[int, Fault]]:
    """Rows with cells that do not go with those of most others in a column."""
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        cells = {index: row.get(name) for index, row in rows.items()}
        if storable(list(cells.values())):
            continue
        kinds = Counter(_kind(cell) for cell in cells.values() if cell is not None)
        most = kinds.most_common(1)[0][0]
        alike = [index for index, cell in cells.items() if cell is None or _kind(cell) == most]
        for index, cell in cells.items():
            if cell is not None and _kind(cell) != most:
                yield index, Fault(name, f"is a {_kind(cell)}, where most rows have a {most}")
        for index in _not_together(alike, cells):
            yield index, Fault(name, f"is a {most} that no table holds together with those of other rows")


def _kind(cell: Any) -> str:
    if isinstance(cell, _SCALARS):
        return "single value"
    return "list" if isinstance(cell, list) else "mapping" if isinstance(cell, dict) else type(cell).__name__


def _not_together(indices: Sequence[int], cells: Mapping[int, Any]) -> Iterator[int]:
    """Those that a column cannot have, found by halves; of what does not go together, what comes later."""
    fit: list[Any] = []
    todo = [list(indices)]
    while todo:
        part = todo.pop()
        some = [cells[index] for index in part]
        if storable([*fit, *some]):
            fit += some
        elif len(part) == 1:
            yield part[0]
        else:
            middle = len(part) // 2
            todo += [part[middle:], part[:middle]]


# ---------------------------------------------------------------- tables


def storable(cells: Sequence[Any]) -> bool:
    """Whether a column of a table can have these cells."""
    return column_type(cells) is not None


def column_type(cells: Sequence[Any]) -> DataType | None:
    """The type of a column; of numbers and texts together, or lists of these, that of text. None: none."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        kind = pa.array(cells).type
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    except (pa.ArrowException, OverflowError, TypeError, ValueError, RecursionError):
        kind = _as_text(cells)
    try:
        if kind is not None:
            parquet.write_table(pa.table({"cell": pa.array([], kind)}), BytesIO())
    except pa.ArrowException:  # a mapping without keys, for one
        return None
    return kind


def _as_text(cells: Sequence[Any]) -> DataType | None:
    """The type of a column of different scalars, or lists of them, once all are text; else nothing."""
    import pyarrow as pa

    there = [cell for cell in cells if cell is not None]
    if all(isinstance(cell, _SCALARS) for cell in there):
        return pa.string()
    if all(isinstance(cell, list) and all(isinstance(item, _SCALARS) for item in cell) for cell in there):
        return pa.list_(pa.string())
    return None


def table(rows: Sequence[Row], schema: Schema) -> ArrowTable:
    """Rows as a table with these columns."""
    import pyarrow as pa

    def fit(cell: Any, kind: DataType) -> Any:
        if pa.types.is_string(kind) and isinstance(cell, _SCALARS):
            return str(cell)
        if pa.types.is_list(kind) and isinstance(cell, list):
            return [fit(item, kind.value_type) for item in cell]
        return cell

    columns = {field.name: [fit(row.get(field.name), field.type) for row in rows] for field in schema}
    return pa.table(columns, schema=schema)


def _read_back(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as a table gives them back, which has all columns in each."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    schema = pa.schema([(name, column_type([row.get(name) for row in rows])) for name in names])
    return list(table(rows, schema).to_pylist()) if names else [{} for _ in rows]
