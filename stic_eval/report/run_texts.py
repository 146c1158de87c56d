"""What exports say of a run: when and with what it was made, and its texts without this machine's paths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import Any

from stic_eval.store import read_object

_UNKNOWN = "1970-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class RunOrigin:
    """When and with what a run was made.

    Attributes:
        started: ISO 8601, UTC.
        seconds: That its last start took.
        versions: Package -> version.
    """

    started: str = _UNKNOWN
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)


def origin_of(folder: Path) -> RunOrigin:
    """By a run's manifest; of one that has none, nothing is known."""
    data = read_object(folder / "manifest.json")
    versions = data.get("versions")
    named = versions.items() if isinstance(versions, dict) else ()
    try:
        seconds = float(data.get("seconds") or 0.0)
    except (TypeError, ValueError):
        seconds = 0.0
    try:
        started = datetime.fromisoformat(str(data.get("started"))).isoformat(timespec="seconds")
    except ValueError:
        started = _UNKNOWN
    return RunOrigin(
        started,
        seconds,
        {str(name): str(value) for name, value in named if value},
    )


def public_name(model: str) -> str:
    """A model's name: a hub id as it is, of a path on this machine the last part."""
    path = Path(model).expanduser()
    if PureWindowsPath(model).drive:
        return PureWindowsPath(model).name
    local = path.is_absolute() or model.startswith(".") or model.count("/") > 1 or path.exists()
    return (path.name or "model") if local else model


def target_texts(target: Any) -> str | list[str]:
    """What is right, as a text or several; anything else as JSON."""
    if isinstance(target, str):
        return target
    if isinstance(target, list) and all(isinstance(item, str) for item in target):
        return target
    return json.dumps(target, ensure_ascii=False)
