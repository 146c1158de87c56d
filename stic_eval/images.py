"""Images from outside: decoded safely, named by content, found in folders. Only Pillow and NumPy."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import threading
import warnings
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
from stic_eval.documents import open_regular, read_bytes
from stic_eval.errors import UserError, first_line
from stic_eval.image_budgets import MAX_BYTES, MAX_PIXELS
from stic_eval.library_messages import kept_in_log
from stic_eval.store import file_sha256
from stic_eval.types import ImageRef

__all__ = [
    "CORRUPTIONS", "FORMATS", "MAX_ASPECT", "MAX_PIXELS", "Decoding", "ImageError", "Skipped", "bytes_ref",
    "corrupt", "diffuse", "encoded_bytes", "image_ref", "in_order", "load_bytes", "load_image",
    "note_decoded", "ref_from_pil", "scan_images", "to_rgb",
]  # fmt: skip

T = TypeVar("T")
R = TypeVar("R")

# Image processors of common models refuse longer strips (Qwen2-VL's `smart_resize` raises above 200).
MAX_ASPECT = 200
# Nothing that starts another program (EPS) or is rarely fuzzed (PSD, FLI, ...). Pillow opens MPO as JPEG.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")


class ImageError(UserError):
    """An image that cannot be used."""

    def __init__(self, source: str, reason: str):
        super().__init__(f"image {source}: {reason}")
        self.source = source
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that a scan left out, and why."""

    source: str
    reason: str


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
        raise ImageError(source, "not an image of a known format") from error
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


# ---------------------------------------------------------------- references


def image_ref(path: Path | str, root: Path | str | None = None) -> ImageRef:
    """A reference to an image file by its content; decoded only when it is used.

    Args:
        path: The file; relative to `root` if that is given.
        root: Folder that the file must lie in, links resolved. `source` is then relative to it.

    Raises:
        ImageError: The file is missing or lies outside of `root`.
    """
    path = Path(path)
    if root is None:
        return _file_ref(path, _text(str(path)))
    root = Path(root)
    full = root / path
    try:
        inside = full.resolve().is_relative_to(root.resolve())
    except ValueError as error:  # a NUL, or what is no text
        raise ImageError(_text(str(path)), "is no name of a file") from error
    except (OSError, RuntimeError) as error:  # Python before 3.13 has the latter
        raise ImageError(_text(str(path)), "links in a circle") from error
    if not inside:
        raise ImageError(str(path), f"lies outside of {root}")
    return _file_ref(full, _text(Path(os.path.relpath(full, root)).as_posix()))


def _text(name: str) -> str:
    """A file's name as text that can be written: names in other encodings than the system's are not."""
    return name.encode("utf-8", "backslashreplace").decode()


def _file_ref(path: Path, source: str) -> ImageRef:
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
        raise ImageError(source, "is no name of a file") from error


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


# ---------------------------------------------------------------- scanning


def scan_images(
    path: Path | str, *, progress: Callable[[int, int], None] | None = None
) -> tuple[list[ImageRef], list[Skipped]]:
    """Finds the usable images of a folder, or of a text file that lists images.

    A folder is read recursively, sorted by relative path; links that leave it are not followed. A
    list has one path a line, relative to the list's own folder, and keeps its order; blank lines and
    lines that start with `#` are ignored. Every file is decoded once, so that a damaged one is
    found now and not in the middle of training. Of files with the same content the first counts.

    Args:
        progress: Called with (files looked at, files in all).

    Returns:
        The images, and each file left out with the reason.

    Raises:
        UserError: There is no such file or folder, or it is neither a folder, nor a list, nor an image.
    """
    path = Path(path)
    if path.is_dir():
        candidates = list(_walk(path))
    elif path.is_file():
        candidates = list(_read_list(path))
    else:
        raise UserError(f"images: {path}: no such file or folder")

    images: list[ImageRef] = []
    skipped: list[Skipped] = []
    first: dict[str, str] = {}
    # Hashing and decoding release the interpreter lock. Results come in order, a window at a time.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged files: they end up in `skipped`
        for number, result in enumerate(in_order(pool, _inspect, candidates), start=1):
            if isinstance(result, Skipped):
                skipped.append(result)
            elif result.sha256 in first:
                skipped.append(Skipped(result.source, f"same content as {first[result.sha256]}"))
            else:
                first[result.sha256] = result.source
                images.append(result)
            if progress is not None:
                progress(number, len(candidates))
    return images, skipped


_Candidate = tuple[str, Path, str | None]  # source, file, reason to skip it unseen


def _walk(root: Path) -> Iterator[_Candidate]:
    inside = root.resolve()
    found: list[_Candidate] = []
    for folder, subfolders, files in os.walk(root):
        for name in subfolders + files:
            file = Path(folder, name)
            source = _text(file.relative_to(root).as_posix())
            if name in subfolders:
                if file.is_symlink():
                    found.append((source, file, "link to a folder, not followed"))
            elif file.is_symlink() and not file.exists():
                found.append((source, file, "broken link"))
            elif not _lies_in(file, inside):
                found.append((source, file, "link out of the folder"))
            else:
                found.append((source, file, None))
    yield from sorted(found, key=lambda candidate: candidate[0])


def _lies_in(file: Path, folder: Path) -> bool:
    """Whether a file lies in a folder, links followed, which may go in a circle."""
    try:
        return file.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):
        return False


def _read_list(path: Path) -> Iterator[_Candidate]:
    try:
        data = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise UserError(f"images: {path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError
    except ValueError:
        try:
            with _open(path, str(path)):
                pass
        except ImageError as error:
            raise UserError(
                f"images: {path}: neither a folder, nor a text file listing images, nor an image"
            ) from error
        yield path.name, path, None  # decoded with the others
        return
    for line in text.splitlines():
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield entry, path.parent / entry, None


def _inspect(candidate: _Candidate) -> ImageRef | Skipped:
    source, file, reason = candidate
    if reason is not None:
        return Skipped(source, reason)
    try:
        ref = _file_ref(file, source)
        with _open(file, str(file)) as image:
            width, height = image.size
            if max(width, height) > MAX_ASPECT * min(width, height):
                return Skipped(source, f"{width} x {height}: sides differ by more than {MAX_ASPECT} times")
            # An eighth of the resolution is decoded far faster, and reads the whole file all the same.
            image.draft(None, (max(1, width // 8), max(1, height // 8)))
            _decode(source, image, lambda opened: opened.load())
    except ImageError as error:
        return Skipped(source, error.reason)
    return ref


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results of work in a pool in the items' order, 256 of them at a time so that memory is bounded."""
    remaining = iter(items)
    while window := list(islice(remaining, 256)):
        yield from pool.map(work, window)
