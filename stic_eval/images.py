"""Images from outside: decoded safely, named by content. Only Pillow and NumPy."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from stic_eval import image_budgets
from stic_eval.corruptions import CORRUPTIONS, corrupt, diffuse
from stic_eval.documents import open_regular
from stic_eval.errors import UserError, first_line, shorten
from stic_eval.image_budgets import MAX_BYTES, MAX_PIXELS
from stic_eval.library_messages import kept_in_log
from stic_eval.store import file_sha256
from stic_eval.types import ImageRef

__all__ = [
    "CORRUPTIONS", "FORMATS", "MAX_ASPECT", "MAX_PIXELS", "UNKNOWN_FORMAT", "Decoding", "ImageError",
    "Skipped", "bytes_ref", "check_image", "corrupt", "diffuse", "encoded_bytes", "file_name_text",
    "file_ref", "image_ref", "in_order", "is_image", "load_bytes", "load_image", "note_decoded",
    "ref_from_pil", "to_rgb",
]  # fmt: skip

T = TypeVar("T")
R = TypeVar("R")

# Image processors of common models refuse longer strips (Qwen2-VL's `smart_resize` raises above 200).
MAX_ASPECT = 200
# Nothing that starts another program (EPS) or is rarely fuzzed (PSD, FLI, ...). Pillow opens MPO as JPEG.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")
UNKNOWN_FORMAT = "not an image of a known format"


class ImageError(UserError):
    """An image that cannot be used."""

    def __init__(self, source: str, reason: str):
        super().__init__(f"image {shorten(source)}: {reason}")
        self.source = source
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that a scan left out, and why.

    Attributes:
        fault: Whether something is lost by it; not by a note that lies beside images.
    """

    source: str
    reason: str
    fault: bool = True


# ---------------------------------------------------------------- loading


def load_image(path: Path | str) -> Image.Image:
    """Decodes an image file to upright 8-bit RGB.

    The first frame of an animation is used, EXIF orientation is applied, transparency is put on
    white, 16-bit values are scaled to 8.

    Raises:
        ImageError: The file is missing, empty, too large, damaged, or no image of a known format.
    """
    with _open(path, str(path)) as image:
        return _decode(str(path), image, to_rgb)


def load_bytes(data: bytes, source: str) -> Image.Image:
    """Decodes an encoded image in memory as `load_image` does a file.

    Raises:
        ImageError: It is empty, too large, damaged, or no image of a known format.
    """
    with _open(io.BytesIO(data), source) as image:
        return _decode(source, image, to_rgb)


@contextlib.contextmanager
def _open(file: Path | str | io.BytesIO, source: str) -> Iterator[Image.Image]:
    """Opens an image, and looks at all that can be known before it is decoded."""
    try:
        handle = file if isinstance(file, io.BytesIO) else open_regular(file)
    except OSError as error:
        raise ImageError(source, error.strerror or str(error)) from error
    with handle, _opened(handle, source) as image:
        yield image


def _opened(handle: BinaryIO, source: str) -> Image.Image:
    try:
        if reason := image_budgets.unfit_file(handle):
            raise ImageError(source, reason)
        image = Image.open(handle, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(source, f"larger than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError(source, UNKNOWN_FORMAT) from error
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(source, error.strerror or f"damaged: {first_line(error)[:120]}") from error
    except Exception as error:  # decoders raise anything on hostile headers
        raise ImageError(source, f"damaged: {first_line(error)[:120]}") from error
    width, height = image.size
    large = f"{width} x {height} is larger than {MAX_PIXELS:,} pixels" if width * height > MAX_PIXELS else ""
    if reason := large or image_budgets.too_slow(image, handle):
        image.close()
        raise ImageError(source, reason)
    return image


def _decode(source: str, image: Image.Image, read: Callable[[Image.Image], T]) -> T:
    try:
        # libtiff says on standard error what is wrong with a file.
        with kept_in_log() if image.format == "TIFF" else contextlib.nullcontext():
            return read(image)
    except Exception as error:  # decoders raise anything on damaged data (SyntaxError, struct.error, ...)
        raise ImageError(source, f"damaged: {first_line(error)[:120]}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image as upright 8-bit RGB: see `load_image`."""
    image.load()
    with contextlib.suppress(Exception):  # broken EXIF is common and no reason to lose a picture
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy() if hasattr(image, "fp") else image
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """The image in the middle of a square of one colour, as wide as its longer side: nothing is cut off.

    Source: LLaVA-1.5's `image_aspect_ratio pad`, whose colour is the processor's mean. With an odd number of
    pixels to fill, the larger part is on the right or below.
    """
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    canvas = Image.new("RGB", (side, side), color)
    canvas.paste(image, ((side - width) // 2, (side - height) // 2))
    return canvas


def _to_8_bit(image: Image.Image) -> Image.Image:
    """`I;16`, `I` and `F` images as `L`: by their type's range, not their own, so that black stays black."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        top = 1.0 if np.nanmax(values, initial=0.0) <= 1.0 else 255.0
    else:
        top = 255.0 if image.mode == "I" and values.max(initial=0.0) <= 255 else 65535.0
    scaled = np.nan_to_num(values * (255.0 / top)).clip(0, 255)
    return Image.fromarray(np.round(scaled).astype(np.uint8))


def is_image(path: Path) -> bool:
    """Whether a file begins as an image of a known format; it may be damaged."""
    try:
        with _open(path, str(path)):
            return True
    except ImageError as error:
        return error.reason != UNKNOWN_FORMAT


def check_image(image: Path | bytes, source: str) -> None:
    """Decodes an image only to find what is wrong with it.

    Raises:
        ImageError: It cannot be decoded, or its sides differ too much for image processors.
    """
    opened = _open(image, str(image)) if isinstance(image, Path) else _open(io.BytesIO(image), source)
    with opened as picture:
        width, height = picture.size
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ImageError(source, f"{width} x {height}: sides differ by more than {MAX_ASPECT} times")
        # An eighth of the resolution is decoded far faster, and reads the whole file all the same.
        picture.draft(None, (max(1, width // 8), max(1, height // 8)))
        _decode(source, picture, lambda opened: opened.load())


# ---------------------------------------------------------------- references


def image_ref(path: Path | str, root: Path | str | None = None, flag: str = "") -> ImageRef:
    """A reference to an image file by its content; decoded only when it is used.

    Args:
        path: The file; relative to `root` if that is given.
        root: Folder that the file must lie in, links resolved. `source` is then relative to it.
        flag: By what the user names another root; messages say so.

    Raises:
        ImageError: The file is missing or lies outside of `root`.
    """
    path = Path(path)
    if root is None:
        return file_ref(path, file_name_text(str(path)))
    root = Path(root)
    full = root / path
    try:
        inside = full.resolve().is_relative_to(root.resolve())
    except ValueError as error:  # a NUL, or what is no text
        raise ImageError(file_name_text(str(path)), "is not a file name") from error
    except (OSError, RuntimeError) as error:  # Python before 3.13 has the latter
        raise ImageError(file_name_text(str(path)), "links in a circle") from error
    if not inside:
        advice = f" ({flag}, or /, names the folder that images must lie in)" if flag else ""
        raise ImageError(_shown(path), f"lies outside of {os.path.abspath(root)}{advice}")
    if flag and not os.path.lexists(full):
        advice = f"{flag} names the folder that paths start at"
        raise ImageError(_shown(path), f"no such file: {_shown(full)} ({advice})")
    return file_ref(full, file_name_text(Path(os.path.relpath(full, root)).as_posix()))


def _shown(path: Path) -> str:
    return shorten(file_name_text(str(path)))


def file_name_text(name: str) -> str:
    """A file's name as text that can be written: names in other encodings than the system's are not."""
    return name.encode("utf-8", "backslashreplace").decode()


def file_ref(path: Path, source: str) -> ImageRef:
    """A reference to an image file, whose content is hashed and not decoded.

    Raises:
        ImageError: It is missing, no file, or too large.
    """
    try:
        there = path.stat()
        if not stat.S_ISREG(there.st_mode):
            raise ImageError(source, "not a file")
        if there.st_size > MAX_BYTES:  # before all of it is read for its hash
            raise ImageError(source, f"larger than {MAX_BYTES >> 20} MiB")
        return ImageRef(file_sha256(path), source, partial(load_image, path))
    except OSError as error:
        raise ImageError(source, error.strerror or str(error)) from error
    except ValueError as error:  # a NUL
        raise ImageError(source, "is not a file name") from error


def bytes_ref(read: Callable[[], bytes], source: str, data: bytes | None = None) -> ImageRef:
    """A reference to an encoded image; its bytes are read now for their hash, and again when it is used.

    Args:
        data: The bytes, where they are at hand.
    """
    digest = hashlib.sha256(read() if data is None else data).hexdigest()
    return ImageRef(digest, source, partial(_load_from_reader, read, source))


def _load_from_reader(read: Callable[[], bytes], source: str) -> Image.Image:
    return load_bytes(read(), source)


def encoded_bytes(ref: ImageRef) -> bytes:
    """An image as it was encoded; as PNG where it never was a file.

    Raises:
        ImageError: Its file is gone, or it cannot be decoded.
    """
    load = ref.load
    try:
        if isinstance(load, partial) and load.func is load_image:
            return Path(load.args[0]).read_bytes()
    except OSError as error:
        raise ImageError(ref.source, error.strerror or str(error)) from error
    if isinstance(load, partial) and load.func is _load_from_reader:
        return bytes(load.args[0]())
    buffer = io.BytesIO()
    load().save(buffer, "PNG")
    return buffer.getvalue()


def ref_from_pil(image: Image.Image, source: str) -> ImageRef:
    """A reference to an image in memory, by its pixels as RGB.

    Raises:
        ImageError: The image cannot be decoded.
    """
    rgb = _decode(source, image, to_rgb)
    digest = hashlib.sha256(f"RGB {rgb.width} {rgb.height} ".encode())
    digest.update(rgb.tobytes())
    return ImageRef(digest.hexdigest(), source, lambda: rgb)


_decoded: set[str] = set()  # contents that this process has found to be whole


def note_decoded(sha256: str) -> None:
    """Remembers that an image was decoded without a fault, so that it need not be only to find one."""
    _decoded.add(sha256)


class Decoding:
    """Decodes images to find those that are damaged, each content once, whichever thread asks first.

    Args:
        fault: Gives what is wrong with a decoded image; empty: nothing. None: nothing is.
    """

    def __init__(self, fault: Callable[[Image.Image], str] | None = None) -> None:
        self._fault = fault
        self._lock = threading.Lock()
        self._known: dict[str, Future[str]] = {}

    def fault(self, ref: ImageRef) -> str:
        """What is wrong with an image; empty: nothing."""
        if self._fault is None and ref.sha256 in _decoded:
            return ""
        with self._lock:
            known = self._known.get(ref.sha256)
            mine = self._known[ref.sha256] = Future() if known is None else known
        if known is not None:
            return known.result()
        try:
            picture = ref.load()
            note_decoded(ref.sha256)
            mine.set_result(self._fault(picture) if self._fault is not None else "")
        except ImageError as error:
            mine.set_result(error.reason)
        except BaseException as error:
            mine.set_exception(error)
            raise
        return mine.result()


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results of work in a pool in the items' order, 256 of them at a time so that memory is bounded."""
    remaining = iter(items)
    while window := list(islice(remaining, 256)):
        yield from pool.map(work, window)
