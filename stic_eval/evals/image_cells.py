"""What an image column may hold, as references: paths, URLs, encoded bytes, base64 text.

Rows are chosen and scored without their images. In a row that is only looked at, an image that
is there is `PLACEHOLDER`, and one that is missing is None.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from stic_eval.documents import from_literal
from stic_eval.errors import shorten
from stic_eval.evals.remote_images import fetch, is_url
from stic_eval.images import ImageError, bytes_ref, image_ref
from stic_eval.types import ImageRef

# Where the data sets keep their images; MathVista's `image` is a name where `decoded_image` is the image.
IMAGE_COLUMNS = ("image", "decoded_image")
# Where others keep several: one a column (MMMU, BLINK), or a list of them (MuirBench).
_SEVERAL = re.compile(r"image_\d+|images|image_list")
# Longer text is no path: PATH_MAX is 4096, and no data set comes near a quarter of it.
LONGEST_PATH = 1024
# The beginnings of JPEG, PNG, GIF and WebP in base64: small images would pass for paths.
_BASE64 = re.compile(r"(?:/9j/|iVBORw0KGgo|R0lGOD|UklGR)[A-Za-z0-9+/=\s]{48,}\Z")


def _refuse() -> Image.Image:
    raise ImageError("of this row", "was not loaded: rows that are only scored come without images")


PLACEHOLDER = ImageRef("", "not loaded", _refuse)


def without_images(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with `PLACEHOLDER` for every image that is there, and None for every one that is not."""
    columns = [column for column in row if is_image_column(column)]
    if not columns:
        return dict(row)
    return keep_name(
        {**row, **{column: None if _is_empty(row[column]) else PLACEHOLDER for column in columns}}, row
    )


@lru_cache(maxsize=1024)
def is_image_column(name: str) -> bool:
    """Whether data sets keep images under this name."""
    return name in IMAGE_COLUMNS or _SEVERAL.fullmatch(name) is not None


def keep_name(light: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Puts the name back into a light row whose image lies in `decoded_image`."""
    if light.get("decoded_image") is not None and isinstance(row.get("image"), str):
        light["image"] = row["image"]
    return light


def _is_empty(cell: Any) -> bool:
    if isinstance(cell, Mapping):
        return not cell.get("bytes") and not cell.get("path")
    return cell is None or (isinstance(cell, (str, bytes, list, tuple)) and not cell)


@dataclass(frozen=True)
class Cells:
    """How the image cells of a file are read.

    Attributes:
        root: Folder that images given by path must lie in; None trusts the paths.
        remote: Whether images may be fetched from the web.
        flag: By what the user names another root; messages say so.
    """

    root: Path | None
    remote: bool = False
    flag: str = ""

    def read(self, get: Callable[[], Any], source: str) -> Any:
        """The image of a cell as a reference, or a tuple of them; whatever is no image is returned as it is.

        Args:
            get: Gives the cell, now and when the image is used.

        Raises:
            ImageError: The image is missing, lies outside of the root, or is on the web and not allowed.
        """
        cell = get()
        if isinstance(cell, (list, tuple)):
            return tuple(self.read(partial(_item, get, k), f"{source}/{k + 1}") for k in range(len(cell)))
        if isinstance(cell, Mapping) and set(cell) <= {"bytes", "path"}:
            if cell.get("bytes") is None:
                return self._text(cell.get("path"), source, get)
            return bytes_ref(partial(_bytes_of, get), source, cell["bytes"])
        if isinstance(cell, bytes):
            return bytes_ref(get, source, cell)
        return self._text(cell, source, get)

    def _text(self, cell: Any, source: str, get: Callable[[], Any]) -> Any:
        if not isinstance(cell, str):
            return cell
        if is_url(cell):
            if not self.remote:
                raise ImageError(
                    shorten(cell), "is on the web; give --allow-remote-images to have it fetched"
                )
            return replace(image_ref(fetch(cell)), source=cell)
        if cell[:5].lower() == "data:" or len(cell) > LONGEST_PATH or _BASE64.match(cell):
            return base64_ref(get, source)
        return image_ref(cell, self.root, self.flag)


def _item(get: Callable[[], Any], number: int) -> Any:
    return get()[number]


def _bytes_of(get: Callable[[], Any]) -> bytes:
    return bytes(get()["bytes"])


def base64_ref(get: Callable[[], Any], source: str) -> ImageRef:
    """A reference to an image given as base64 text or `data:` URL.

    Raises:
        ImageError: The text is no base64.
    """
    return bytes_ref(partial(_from_base64, get, source), source)


def _from_base64(get: Callable[[], Any], source: str) -> bytes:
    text = get()
    text = text["path"] if isinstance(text, Mapping) else text
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise ImageError(source, "is a data: URL without base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(source, f"is not base64: {error}") from error


def parse_paths(text: str) -> list[str]:
    """The paths of a TSV's `image_path`: one as it is, or several as a Python list's text."""
    if text.startswith("["):
        try:
            found = from_literal(text)
        except ValueError:
            return [text]
        if isinstance(found, list) and all(isinstance(path, str) for path in found):
            return found
    return [text]
