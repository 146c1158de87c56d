"""Images that a file names: one a line, or a JSON array such as the STIC authors' `6k_coco_names.json`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stic_eval.documents import from_json, read_bytes
from stic_eval.errors import UserError, first_line, shorten
from stic_eval.image_budgets import MAX_BYTES
from stic_eval.image_sources.candidates import Candidate
from stic_eval.images import is_image

# Under what names objects of a list keep an image's name: LLaVA's data, COCO's annotations, webdata sets.
_KEYS = ("image", "file_name", "image_path", "path")


def list_candidates(path: Path, root: Path | None) -> Iterator[Candidate]:
    """The images that a file names, in its order; the file itself if it is an image.

    Names start at `root`, or where nothing is there at the list's own folder. A name that stands there
    again is left out, and nothing is lost by it.

    Raises:
        UserError: It is neither a list nor an image.
    """
    try:
        data = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise UserError(f"--images {path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError
    except ValueError:
        if not is_image(path):
            raise UserError(
                f"--images {path}: neither a folder, nor a list of images, nor an image"
            ) from None
        yield Candidate(path.name, path)  # decoded with the others
        return
    seen: set[str] = set()
    for name in _names(path, text):
        if name in seen:
            yield Candidate(shorten(name), path, "named before", fault=False)
            continue
        seen.add(name)
        yield _candidate(name, path, root)


def _candidate(name: str, path: Path, root: Path | None) -> Candidate:
    tried = [folder / name for folder in (root, path.parent) if folder is not None]
    file = next((file for file in tried if os.path.exists(file)), None)
    if file is not None:
        return Candidate(shorten(name), file)
    places = " or ".join(dict.fromkeys(shorten(str(file)) for file in tried))
    return Candidate(
        shorten(name), tried[0], f"no such file: {places} (--image-root names the folder that names start at)"
    )


def _names(path: Path, text: str) -> Iterable[str]:
    if path.suffix == ".jsonl":
        lines = [line for line in text.split("\n") if line.strip()]
        return [_name(path, number, _value(path, line)) for number, line in enumerate(lines, 1)]
    if path.suffix == ".json" or text.lstrip()[:1] == "[":
        data = _value(path, text)
        if isinstance(data, dict) and isinstance(data.get("images"), list):  # COCO's annotations
            data = data["images"]
        if not isinstance(data, list):
            raise UserError(
                f"--images {path}: holds no list; give a JSON array of names, or one name per line"
            )
        return [_name(path, number, value) for number, value in enumerate(data, 1)]
    entries = (line.strip() for line in text.splitlines())
    return [entry for entry in entries if entry and not entry.startswith("#")]


def _value(path: Path, text: str) -> Any:
    try:
        return from_json(text)
    except ValueError as error:
        raise UserError(f"--images {path}: is not valid JSON: {first_line(error)}") from error


def _name(path: Path, number: int, value: Any) -> str:
    found = value
    if isinstance(value, dict):
        found = next((value[key] for key in _KEYS if isinstance(value.get(key), str)), None)
    if not isinstance(found, str) or not found.strip():
        raise UserError(
            f"--images {path}, entry {number}: is not the name of an image; give names, or objects with "
            "one of "
            f"{', '.join(_KEYS)}"
        )
    return found.strip()
