"""Images by URL, fetched only where a flag allows it, and kept so that a second run needs no network."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stic_eval.images import ImageError, load_bytes, note_decoded
from stic_eval.store import atomic_write, cache_dir

# Photographs are far smaller; anything larger is no picture that a benchmark asks about.
MAX_BYTES = 50 * 2**20
# From connecting to the last byte, redirects included.
SECONDS = 60.0


def is_url(text: str) -> bool:
    """Whether a cell names an image on the web."""
    return text[:8].lower().startswith(("http://", "https://"))


def fetch(url: str) -> Path:
    """The image of a URL as a file in the cache, downloaded if it is not there yet.

    Raises:
        ImageError: It cannot be fetched within a minute, is larger than 50 MB, or is no image.
    """
    cached = cache_dir() / "images" / hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    if not cached.exists():
        data = _download(url)
        load_bytes(data, url)  # an error page, or half an image, must not be cached as one
        note_decoded(hashlib.sha256(data).hexdigest())
        atomic_write(cached, data)
    return cached


def _download(url: str) -> bytes:
    from huggingface_hub import is_offline_mode

    from stic_eval.models.connection import Connection, NoReply, TooLarge

    if is_offline_mode():
        raise ImageError(url, "not in the local cache; without --offline it would be downloaded")
    line = Connection(None, SECONDS, MAX_BYTES)
    try:
        status, _, data = line.get(url)
    except TooLarge as error:
        raise ImageError(url, f"is larger than {MAX_BYTES // 2**20} MB") from error
    except NoReply as error:
        raise ImageError(url, f"cannot be fetched: {error}") from error
    finally:
        line.close()
    if not 200 <= status < 300:
        raise ImageError(url, f"the server answers {status}")
    return data
