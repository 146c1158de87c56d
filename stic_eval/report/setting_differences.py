"""How the settings of two runs differ, and what they were made with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stic_eval import flags
from stic_eval.errors import UserError, fault_of, shorten
from stic_eval.store import read_object

if TYPE_CHECKING:
    from stic_eval.settings import RunConfig

_ABSENT = "-"
_NAMED = 5  # settings, in a message
_LONGEST = 60  # characters of a value, in a message
_MADE_WITH = ("model", "judge", "rows", "versions", "adapters", "pairs", "plugins")  # of a manifest
_OF_A_GRID = ("axes", "method", "seeds", "design", "exclude")
# Options of methods, benchmarks and solvers as `-o` takes them.
_SHORT = {
    "method_options": "",
    "benchmark_options": "benchmarks",
    "solver_options.describe_and_respond": "dar",
}


@dataclass(frozen=True)
class SettingDifference:
    """A setting that two runs have otherwise.

    Attributes:
        name: Its flag, or its path as `-o` takes it; of what runs were made with, its place in manifest.json.
        a: One run's value, as text.
        b: The other's.
        decides: Whether results depend on it.
    """

    name: str
    a: str
    b: str
    decides: bool = True


def read(folder: Path) -> RunConfig:
    """The complete settings that a run has saved; nothing that they name is looked up.

    Raises:
        UserError: There are none, or they cannot be used.
    """
    from stic_eval.config_layers import read_file
    from stic_eval.settings import RunConfig

    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: holds no config.yaml; is it the folder of a run?")
    try:
        return RunConfig.model_validate(read_file(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {where}: {fault_of(first)}; was it written by another version?") from error


def of_settings(a: RunConfig, b: RunConfig) -> list[SettingDifference]:
    """The settings that differ, but for the folder of the results.

    Options of a method or benchmark that only one run has are left out: that they differ goes without saying.
    """
    sides = [one.model_dump(mode="json", exclude={"output"}) for one in (a, b)]
    found = []
    for path, (one, other) in _compare(*sides).items():
        if _is_of_one_alone(path, a, b):
            continue
        decides = _decides(a, sides[0], path, other)
        found.append(SettingDifference(_name(".".join(path)), _text(one), _text(other), decides))
    return found


def _is_of_one_alone(path: Sequence[str], a: RunConfig, b: RunConfig) -> bool:
    """Whether a setting is of a method or benchmark that one of two runs does without."""
    parts = {"method_options": (a.methods, b.methods), "benchmark_options": (a.benchmarks, b.benchmarks)}
    return len(path) > 1 and any(path[1] not in names for names in parts.get(path[0], ()))


def of_runs(a: Path, b: Path) -> list[SettingDifference]:
    """What differs in the settings of two runs, in the axes of ablations, and in what they were made with.

    Raises:
        UserError: One has no settings that can be read.
    """
    found = of_settings(read(a), read(b))
    grids = [read_object(folder / "ablation.json") for folder in (a, b)]
    found += _of_objects("", *({name: grid.get(name) for name in _OF_A_GRID} for grid in grids))
    made = [read_object(folder / "manifest.json") for folder in (a, b)]
    found += _of_objects("made with ", *({name: one.get(name) for name in _MADE_WITH} for one in made))
    return found


def _of_objects(before: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[SettingDifference]:
    return [
        SettingDifference(before + ".".join(path), _text(one), _text(other))
        for path, (one, other) in _compare(a, b).items()
    ]


def in_words(there: RunConfig, here: RunConfig) -> str:
    """The settings that decide results and differ, for a message."""
    found = [one for one in of_settings(there, here) if one.decides]
    return _listed([(one.name, one.a, one.b) for one in found]) or (
        "the same ones, but an adapter's files or an engine's own settings have changed"
    )


def of_grids(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs between two ablations as ablation.json has them, for a message; empty: nothing of it."""
    sides = ({name: grid.get(name) for name in _OF_A_GRID} for grid in (there, here))
    return _listed([(".".join(path), _text(a), _text(b)) for path, (a, b) in _compare(*sides).items()])


def _listed(found: Sequence[tuple[str, str, str]]) -> str:
    parts = [f"{name}: {_cut(a)} there, {_cut(b)} here" for name, a, b in found[:_NAMED]]
    return "; ".join([*parts, *([f"and {len(found) - _NAMED} more"] if len(found) > _NAMED else [])])


def _cut(text: str) -> str:
    return shorten(text, _LONGEST)


def _compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[tuple[str, ...], tuple[Any, Any]]:
    """Path -> both values, of all that differ, in the order in which they come."""
    sides = [dict(_flatten(one)) for one in (a, b)]
    paths = dict.fromkeys(path for side in sides for path in side)
    values = {path: (sides[0].get(path), sides[1].get(path)) for path in paths}
    return {path: pair for path, pair in values.items() if pair[0] != pair[1]}


def _flatten(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from _flatten(one, (*path, str(name)))
    elif value not in ({}, None):
        yield path, value


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    if isinstance(value, list) and value and all(isinstance(one, (str, int, float)) for one in value):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _name(path: str) -> str:
    if (flag := flags.name_of(path)) is not None:
        return flag
    for long, short in _SHORT.items():
        if path.startswith(f"{long}."):
            path = f"{short}{path[len(long) :]}".lstrip(".")
    return f"-o {path}"


def _decides(a: RunConfig, data: Mapping[str, Any], path: Sequence[str], other: Any) -> bool:
    """Whether a run's key is another with the other run's value of a setting."""
    changed: dict[str, Any] = deepcopy(dict(data))
    place = changed
    for name in path[:-1]:
        if not isinstance(place.get(name), dict):
            place[name] = {}
        place = place[name]
    place[path[-1]] = other
    if other is None and len(path) > 1:
        del place[path[-1]]
    try:
        return bool(type(a).model_validate(changed).key != a.key)
    except (ValueError, UserError):  # the two values do not go without others that differ
        return True
