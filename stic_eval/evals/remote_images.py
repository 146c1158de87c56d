"""Images by URL, fetched only where a flag allows it, and kept so that a second run needs no network."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stic_eval.images import ImageError, load_bytes
from stic_eval.store import atomic_write, cache_dir

# Photographs are far smaller; anything larger is no picture that a benchmark asks about.
MAX_BYTES = 50 * 2**20
REDIRECTS = 5
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0


def is_url(text: str) -> bool:
    """Whether a cell names an image on the web."""
    return text[:8].lower().startswith(("http://", "https://"))


def fetch(url: str) -> Path:
    """The image of a URL as a file in the cache, downloaded if it is not there yet.

    Raises:
        ImageError: It cannot be fetched, is larger than 50 MB, or is no image.
    """
    cached = cache_dir() / "images" / hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    if not cached.exists():
        data = _download(url)
        load_bytes(data, url)  # an error page must not be cached as an image
        atomic_write(cached, data)
    return cached


def _download(url: str) -> bytes:
    import httpx2
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        raise ImageError(url, "not in the local cache; without --offline it would be downloaded")
    data = bytearray()
    try:
        # Redirects to anything but http and https have no transport and are refused by the client.
        with (
            httpx2.Client(
                follow_redirects=True,
                max_redirects=REDIRECTS,
                timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            ) as client,
            client.stream("GET", url) as response,
        ):
            if not response.is_success:
                raise ImageError(url, f"the server answers {response.status_code}")
            for part in response.iter_bytes():
                data += part
                if len(data) > MAX_BYTES:
                    raise ImageError(url, f"is larger than {MAX_BYTES // 2**20} MB")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ImageError(url, f"cannot be fetched: {str(error) or type(error).__name__}") from error
    return bytes(data)
