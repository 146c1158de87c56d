"""Partial configurations: reading and merging layers, and dotted paths into nested pydantic models."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from stic_eval import documents
from stic_eval.errors import UserError
from stic_eval.registry import suggest

_LARGEST = 2**53  # from which on floats skip whole numbers


def shipped_files(kind: str) -> dict[str, Traversable]:
    """Name -> YAML file, of `presets`, `prompts` or `ablations` that come with the program."""
    folder = files("stic_eval.methods") / kind
    found = [item for item in folder.iterdir() if item.name.endswith(".yaml")]
    return dict(sorted((item.name.removesuffix(".yaml"), item) for item in found))


def preset_names() -> list[str]:
    """Presets that are shipped, by file name."""
    return list(shipped_files("presets"))


def read_preset(name: str) -> dict[str, Any]:
    """Reads a shipped preset: a partial RunConfig.

    Raises:
        UserError: No such preset.
    """
    known = shipped_files("presets")
    if name not in known:
        raise UserError(
            f'--preset: no preset is called "{name}"{suggest(name, known)} '
            "(`stic-eval ls presets` lists them)"
        )
    return _mapping(known[name].read_text(encoding="utf-8"), f"preset {name}")


def read_file(path: Path) -> dict[str, Any]:
    """Reads a `--config` file: a partial RunConfig in YAML (or JSON, which is YAML).

    Raises:
        UserError: The file is missing or is no mapping.
    """
    try:
        text = documents.read_text(path, documents.SETTINGS_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--config {path}: {error.strerror if isinstance(error, OSError) else 'is not text'}"
        ) from error
    return _mapping(text, f"--config {path}")


def from_yaml(text: str, where: str) -> Any:
    """What YAML says.

    Raises:
        UserError: It is not valid; names `where`.
    """
    try:
        return documents.from_yaml(text)
    except ValueError as error:
        raise UserError(f"{where}: is not valid YAML: {' '.join(str(error).split())}") from error


def _mapping(text: str, where: str) -> dict[str, Any]:
    data = from_yaml(text, where) or {}
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected `key: value` lines, found a {type(data).__name__}")
    return data


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted paths of all values in nested mappings, and the values."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def merge(
    base: Mapping[str, Any], top: Mapping[str, Any], whole: Collection[str] = (), at: str = ""
) -> dict[str, Any]:
    """`base` with the values of `top` over it, mapping by mapping; neither is changed.

    Args:
        whole: Dotted paths of mappings that are one value: the stronger takes the weaker's place.
        at: Path of `base` itself.
    """
    merged = dict(base)
    for key, value in top.items():
        old, path = merged.get(key), f"{at}{key}"
        both = isinstance(old, dict) and isinstance(value, dict) and path not in whole
        merged[key] = merge(old or {}, value, whole, f"{path}.") if both else value
    return merged


def put(data: dict[str, Any], path: str, value: Any, whole: bool = False) -> None:
    """Sets the value at a dotted path in place; unless `whole`, a mapping is merged into one there."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = data.get(parent)
        data[parent] = inner = dict(inner) if isinstance(inner, dict) else {}
        data = inner
    old = data.get(last)
    both = isinstance(old, dict) and isinstance(value, dict) and not whole
    data[last] = merge(old or {}, value) if both else value


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside an annotation such as `Stage1 | None`, if there is one."""
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def has(path: str, config: type[BaseModel]) -> bool:
    """Whether a dotted path names a field of a model, of one nested in it, or a key of a mapping field."""
    head, _, rest = path.partition(".")
    if head not in config.model_fields:
        return False
    inner = _model_in(config.model_fields[head].annotation)
    if not rest:
        return True
    return has(rest, inner) if inner else "dict" in str(config.model_fields[head].annotation)


def mappings(config: type[BaseModel], prefix: str = "") -> list[str]:
    """Dotted paths of the fields that hold a mapping, such as weights by name."""
    found: list[str] = []
    for name, field in config.model_fields.items():
        inner = _model_in(field.annotation)
        if inner:
            found += mappings(inner, f"{prefix}{name}.")
        elif "dict" in str(field.annotation):
            found.append(prefix + name)
    return found


def paths(config: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted paths of a model, nested models included."""
    found: list[str] = []
    for name, field in config.model_fields.items():
        inner = _model_in(field.annotation)
        found += [prefix + name] + (paths(inner, f"{prefix}{name}.") if inner else [])
    return found


def require(path: str, config: type[BaseModel], where: str) -> None:
    """Refuses a path that a model does not have.

    Raises:
        UserError: Names `where`, the path, and the closest one that exists.
    """
    if not has(path, config):
        raise UserError(f'{where}: unknown option "{path}"{suggest(path, paths(config))}')


def odd_value(value: Any, path: str = "") -> tuple[str, Any] | None:
    """Path and value of the first that nothing can be done with; None: there is none.

    That is a number which is not finite, or larger than floats tell apart: keys of what is cached are JSON,
    which has no such numbers. Or it is a text with a NUL, which no file's name has.
    """
    if isinstance(value, Mapping):
        parts = [(f"{path}.{name}" if path else str(name), inner) for name, inner in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(path, inner) for inner in value]
    else:
        text = isinstance(value, (str, Path)) and "\0" in str(value)
        number = isinstance(value, (int, float)) and not abs(value) <= _LARGEST
        return (path, value) if text or number else None
    found = (odd_value(inner, inner_path) for inner_path, inner in parts)
    return next((odd for odd in found if odd is not None), None)
