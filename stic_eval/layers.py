"""Partial configurations: merging layers, and dotted paths into nested pydantic models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from stic_eval.errors import UserError
from stic_eval.registry import suggest


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    """Dotted paths of all values in nested mappings."""
    for key, value in data.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `top` over it, mapping by mapping; neither is changed."""
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def put(data: dict[str, Any], path: str, value: Any) -> None:
    """Sets the value at a dotted path in place; a mapping is merged into one that is there."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = data.get(parent)
        data[parent] = inner = dict(inner) if isinstance(inner, dict) else {}
        data = inner
    old = data.get(last)
    data[last] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside an annotation such as `Stage1 | None`, if there is one."""
    candidates = [annotation, *get_args(annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def has(path: str, config: type[BaseModel]) -> bool:
    """Whether a dotted path names a field of a model, of one nested in it, or a key of a mapping field."""
    head, _, rest = path.partition(".")
    if head not in config.model_fields:
        return False
    inner = _nested(config.model_fields[head].annotation)
    if not rest:
        return True
    return has(rest, inner) if inner else "dict" in str(config.model_fields[head].annotation)


def paths(config: type[BaseModel], prefix: str = "") -> list[str]:
    """All dotted paths of a model, nested models included."""
    found: list[str] = []
    for name, field in config.model_fields.items():
        inner = _nested(field.annotation)
        found += [prefix + name] + (paths(inner, f"{prefix}{name}.") if inner else [])
    return found


def require(path: str, config: type[BaseModel], where: str) -> None:
    """Refuses a path that a model does not have.

    Raises:
        UserError: Names `where`, the path, and the closest one that exists.
    """
    if not has(path, config):
        raise UserError(f'{where}: unknown option "{path}"{suggest(path, paths(config))}')
