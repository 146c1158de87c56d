"""A row on its way into a task's functions and back: pictures that decode when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from PIL import Image

from stic_eval.images import ref_from_pil
from stic_eval.types import ImageRef

Doc = Mapping[str, Any]


class Picture(Image.Image):
    """A row's image as a PIL image, RGB and upright, decoded when its pixels or size are looked at.

    Nearly every task only hands its images on, `convert("RGB")` first. Those stay undecoded, so that rows
    can be listed without reading gigabytes.
    """

    def __init__(self, ref: ImageRef) -> None:
        super().__init__()
        self.ref, self._mode, self.looked_at = ref, "RGB", False

    @property
    def untouched(self) -> bool:
        """Whether the picture is still the row's image."""
        return not self.looked_at or self.tobytes() == self.ref.load().tobytes()

    def load(self) -> Any:
        if not self.looked_at:
            self.looked_at = True
            decoded = self.ref.load()
            self._size, self._im = decoded.size, decoded.copy().im
        return super().load()

    @property
    def im(self) -> Any:
        if not self.looked_at:
            self.load()
        return super().im

    @im.setter
    def im(self, core: Any) -> None:
        self._im = core

    @property
    def size(self) -> tuple[int, int]:
        self.load()
        return super().size

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]

    def convert(self, mode: str | None = None, *args: Any, **kwargs: Any) -> Image.Image:
        if mode in (None, "RGB") and not self.looked_at and not args and not kwargs:
            return self
        return super().convert(mode, *args, **kwargs)

    def copy(self) -> Image.Image:
        return Picture(self.ref) if not self.looked_at else super().copy()


def decode_images(row: Doc) -> dict[str, Any]:
    """A row with its image references as PIL images, those in lists and objects included."""
    return {name: _decode_images(cell) for name, cell in row.items()}


def _decode_images(cell: Any) -> Any:
    if isinstance(cell, ImageRef):
        return Picture(cell)
    if isinstance(cell, (list, tuple)):
        return [_decode_images(item) for item in cell]
    if isinstance(cell, dict):
        return {name: _decode_images(item) for name, item in cell.items()}
    return cell


def is_media(cell: Any) -> bool:
    """Whether a cell is an image, or a list of images: what lmms-eval takes out of rows that it scores."""
    if isinstance(cell, (list, tuple)) and cell:
        return all(is_media(item) for item in cell)
    return isinstance(cell, (ImageRef, Image.Image, bytes))


def jsonable(row: Doc) -> dict[str, Any]:
    """A row without images, as JSON gives it back: scoring sees the same before it is saved and after."""
    return {str(name): _jsonable(cell) for name, cell in row.items() if not is_media(cell)}


def _jsonable(cell: Any) -> Any:
    if cell is None or isinstance(cell, (str, bool, int, float)):
        return cell
    if isinstance(cell, Mapping):
        return jsonable(cell)
    if isinstance(cell, (list, tuple)):
        return [_jsonable(item) for item in cell]
    if hasattr(cell, "tolist"):  # NumPy's
        return cell.tolist()
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


# ---------------------------------------------------------------- what a task shows


def references(visuals: Any, source: str, again: Callable[[int], Image.Image] | None) -> tuple[ImageRef, ...]:
    """What `doc_to_visual` gives as references.

    An image that is handed on as it is keeps its reference. One that the task draws on, cuts or puts
    together is named by its pixels.

    Args:
        visuals: A list of PIL images; None or empty: there is nothing to see.
        again: Makes the image of a number anew, so that its pixels need not be kept; None: they are.

    Raises:
        ValueError: It gives something else, such as the path of a video.
    """
    found = []
    for number, visual in enumerate(images_in(visuals)):
        if not isinstance(visual, Image.Image):
            kind = "a file that is not an image" if isinstance(visual, str) else type(visual).__name__
            raise ValueError(f"its task shows {kind} (video, sound?); only images can be shown here")
        if isinstance(visual, Picture) and visual.untouched:
            found.append(visual.ref)
            continue
        ref = ref_from_pil(visual, f"{source}/{number + 1}")
        if again is not None:
            ref = ImageRef(ref.sha256, ref.source, partial(_image_at, again, number))
        found.append(ref)
    return tuple(found)


def _image_at(make: Callable[[int], Image.Image], number: int) -> Image.Image:
    return ref_from_pil(make(number), "").load()


def images_in(visuals: Any) -> Iterator[Any]:
    """The images of a cell, or of what `doc_to_visual` gives: itself, or what lies in a list."""
    if isinstance(visuals, (list, tuple)):
        for visual in visuals:
            yield from images_in(visual)
    elif visuals is not None:
        yield visuals


def image_at(visuals: Any, number: int) -> Image.Image:
    """The image of a number among what `doc_to_visual` gives."""
    image: Image.Image = list(images_in(visuals))[number]
    return image


# ---------------------------------------------------------------- process_docs, row by row


class WholeSet(TypeError):
    """A task's `process_docs` does what cannot be done row by row."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} of the whole data set")


class DocRows:
    """As much of a `datasets.Dataset` as can be done row by row: `map`, `filter`, renaming and removing.

    Args:
        rows: The rows; one, or none to see what a function would do.
    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows

    def map(self, function: Any, **kwargs: Any) -> DocRows:
        """`Dataset.map`: the function's columns are put over the row's own."""
        _row_by_row("map", kwargs, ("num_proc", "desc", "remove_columns", "load_from_cache_file", "features"))
        removed = kwargs.get("remove_columns") or ()
        removed = {removed} if isinstance(removed, str) else set(removed)
        mapped = []
        for row in self.rows:
            new = function(dict(row)) or {}
            remaining = {name: cell for name, cell in row.items() if name not in removed}
            mapped.append({**remaining, **new})
        return DocRows(mapped)

    def filter(self, function: Any, **kwargs: Any) -> DocRows:
        """`Dataset.filter`."""
        _row_by_row("filter", kwargs, ("num_proc", "desc", "load_from_cache_file"))
        return DocRows([row for row in self.rows if function(dict(row))])

    def remove_columns(self, names: Any) -> DocRows:
        """`Dataset.remove_columns`."""
        gone = {names} if isinstance(names, str) else set(names)
        return DocRows([{n: cell for n, cell in row.items() if n not in gone} for row in self.rows])

    def select_columns(self, names: Any) -> DocRows:
        """`Dataset.select_columns`."""
        selected = {names} if isinstance(names, str) else set(names)
        return DocRows([{n: cell for n, cell in row.items() if n in selected} for row in self.rows])

    def rename_column(self, old: str, new: str) -> DocRows:
        """`Dataset.rename_column`."""
        return self.rename_columns({old: new})

    def rename_columns(self, names: Mapping[str, str]) -> DocRows:
        """`Dataset.rename_columns`."""
        return DocRows([{names.get(n, n): cell for n, cell in row.items()} for row in self.rows])

    def __getattr__(self, name: str) -> Any:
        raise WholeSet(f"uses {name}")

    def __len__(self) -> int:
        raise WholeSet("counts the rows")

    def __iter__(self) -> Any:
        raise WholeSet("goes over the rows")

    def __getitem__(self, key: Any) -> Any:
        raise WholeSet("takes rows out")


def _row_by_row(what: str, kwargs: Mapping[str, Any], known: Sequence[str]) -> None:
    for name, value in kwargs.items():
        if name not in known and value:
            raise WholeSet(f"uses {what}({name}=...)")
