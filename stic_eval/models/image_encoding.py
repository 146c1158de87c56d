"""Images as the bytes of a file, for whoever decodes them elsewhere: a server, or a file of pairs."""

from __future__ import annotations

import hashlib
import io
from functools import partial

from stic_eval.errors import UserError
from stic_eval.images import encoded_bytes, load_image
from stic_eval.types import ImageRef

_ORIENTATION = 0x0112  # EXIF
_PNG_DEPTH = 24  # where a PNG says how many bits a channel has


def encode_image(image: ImageRef) -> bytes:
    """An image as a file's bytes that any reader decodes to the pixels the model has seen.

    A plain upright RGB JPEG or PNG is kept as it is; everything else (other colours, transparency,
    turned by EXIF, animated, drawn) becomes a PNG of what it was decoded to.

    Raises:
        UserError: The file has changed since it was found, or has become unreadable; or there is noise
            on it that no file can hold.
    """
    if image.diffusion is not None:
        raise UserError(f"image {image.source}: noise on a model's own input cannot be put into a file")
    if isinstance(image.load, partial):  # of a file, or of bytes in a data set
        data = encoded_bytes(image)
        if hashlib.sha256(data).hexdigest() == image.sha256:
            if _is_plain_picture(data):
                return data
        elif image.load.func is load_image:
            raise UserError(f"image {image.source}: has changed since it was found; start again")
    buffer = io.BytesIO()
    image.load().save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def media_type(data: bytes) -> str:
    """What `encode_image` gave, as a media type."""
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def _is_plain_picture(data: bytes) -> bool:
    """Whether every reader sees the same upright 8-bit RGB picture in a file."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as opened:
            return (
                opened.mode == "RGB"
                and "transparency" not in opened.info
                and getattr(opened, "n_frames", 1) == 1
                and opened.getexif().get(_ORIENTATION, 1) == 1
                and (opened.format == "JPEG" or (opened.format == "PNG" and data[_PNG_DEPTH] == 8))
            )
    except Exception:  # of another format, or damaged: then decoding it says so
        return False
