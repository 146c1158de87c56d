"""Rows of a data set as a benchmark gets them: without images, each of which is read on demand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from stic_eval.evals.image_cells import Cells, without_images

Row = Mapping[str, Any]


class Broken(dict[str, Any]):
    """A line of a file that is no row: without columns, but counted, so that it can be named."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why


class Rows(Protocol):
    """Rows of a data set: all of them without images, and each image on demand."""

    @property
    def where(self) -> str:
        """Names the data in messages."""
        ...

    def light(self) -> Iterable[dict[str, Any]]:
        """All rows in order, with `PLACEHOLDER` for every image that is there."""
        ...

    def image(self, index: int, column: str) -> Any:
        """The image of a row's cell, as a reference or a tuple of them; what is no image, as it is.

        Raises:
            ImageError: It is missing, or may not be used.
        """
        ...


@dataclass(frozen=True)
class ListRows:
    """Rows in memory.

    Attributes:
        cells: How the images of each row are read; empty if they are references already.
    """

    where: str
    rows: Sequence[Row]
    cells: Sequence[Cells] = ()

    def light(self) -> Iterator[dict[str, Any]]:
        return (row if isinstance(row, Broken) else without_images(row) for row in self.rows)

    def image(self, index: int, column: str) -> Any:
        if not self.cells:
            return self.rows[index][column]
        get = partial(cell_of, self.rows, index, column)
        return self.cells[index].read(get, f"{self.where}#{index + 1}")


def cell_of(rows: Sequence[Row], index: int, column: str) -> Any:
    return rows[index][column]
