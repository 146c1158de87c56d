"""Answers in logs of Inspect: `.eval` (a zip of samples) and `.json`.

Of an answer the text of the first choice counts; what a model reasoned before it is apart. An answer under
several epochs is taken from the first.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stic_eval.documents import from_json
from stic_eval.errors import UserError

_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST = 256 << 20  # bytes of one sample, unpacked


def is_log(data: Any) -> bool:
    """Whether JSON is a log: what was evaluated, and its samples."""
    return isinstance(data, Mapping) and isinstance(data.get("eval"), Mapping) and "samples" in data


def log_rows(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The answers of a log in JSON, and where each stands.

    Raises:
        UserError: It has no samples, as of `log_samples=False`.
    """
    samples = data["samples"]
    if not isinstance(samples, list) or not samples:
        raise UserError("the log holds no samples; evaluate with log_samples=True")
    yield from _rows((f"sample {number}", sample) for number, sample in enumerate(samples, 1))


def zipped_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The answers of a `.eval` file, and where each stands.

    Raises:
        UserError: It is no such file, or packed in a way that this Python cannot unpack.
    """
    with zipfile.ZipFile(path) as log:
        entries = [entry for entry in log.infolist() if _is_sample(entry.filename)]
        entries.sort(key=lambda entry: entry.filename)
        if not entries:
            raise UserError(f"--predictions {path}: the log holds no samples")
        if any(entry.compress_type not in _STORED for entry in entries):
            raise UserError(
                f"--predictions {path}: is packed with a newer method; "
                "`inspect log convert --to json --output-dir DIR FILE` gives one that is read"
            )
        yield from _rows((entry.filename, _sample(log, entry, path)) for entry in entries)


def _is_sample(name: str) -> bool:
    return name.startswith("samples/") and name.endswith(".json")


def _sample(log: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Any:
    if entry.file_size > _MOST:
        raise UserError(f"--predictions {path}, {entry.filename}: is larger than {_MOST >> 20} MiB")
    return from_json(log.read(entry))


def _rows(samples: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    seen: set[str] = set()
    for where, sample in samples:
        if not isinstance(sample, Mapping) or sample.get("id") is None:
            raise UserError(f"{where}: not a sample with an id")
        name = str(sample["id"])
        if name in seen:  # a later epoch
            continue
        seen.add(name)
        text, thinking = _answer(sample.get("output"))
        row: dict[str, Any] = {"id": sample["id"], "response": text}
        if thinking:
            row |= {"thinking": thinking, "unclosed": False}
        yield where, row


def _answer(output: Any) -> tuple[str | None, str]:
    """Text and reasoning of the first choice; no text where the model was not asked or failed."""
    choices = output.get("choices") if isinstance(output, Mapping) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        return content, ""
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    texts = [str(part["text"]) for part in parts if part.get("type") == "text" and part.get("text")]
    thoughts = [
        str(part["reasoning"]) for part in parts if part.get("type") == "reasoning" and part.get("reasoning")
    ]
    return ("\n".join(texts) if parts else None), "\n".join(thoughts)
