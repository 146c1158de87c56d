"""Axes, their values, and the cells that they span.

An axis is a setting by its path (`stage1.beta`), by a short name where that is unambiguous (`beta`),
or one of `corruption`, `dar` and `method`. A value is one for that setting, or a name that stands for
several settings at once (YAML only).
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stic_eval import config_layers, documents, registry
from stic_eval.dar_setting import DESCRIBE
from stic_eval.errors import UserError, quote, shorten
from stic_eval.report.table_rows import setting as text
from stic_eval.setting_paths import of_the_run, paths, require
from stic_eval.settings import RunConfig
from stic_eval.store import content_key

# What of a run may differ between cells; the rest decides what they have in common.
_OF_THE_RUN = ("dar", "solvers", "solver_options", "training", "prompts", "images", "sft_data", "image_root")
BASELINE = "baseline"
MOST_CELLS = 10_000


@dataclass(frozen=True)
class Value:
    """One value of an axis.

    Attributes:
        label: As printed and kept: a number, a truth value or a text.
        options: What it sets, as `-o` has it.
        method: What it evaluates; None: the grid's.
        solver: What alone it answers by; None: what the run says.
    """

    label: str | int | float | bool
    options: tuple[str, ...] = ()
    method: str | None = None
    solver: str | None = None


@dataclass(frozen=True)
class Axis:
    """What is varied, and its values in order."""

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class GridCell:
    """One combination: axis -> value."""

    values: Mapping[str, Value]
    method: str

    @property
    def settings(self) -> dict[str, Any]:
        """Axis -> printed value."""
        return {axis: value.label for axis, value in self.values.items()}

    @property
    def options(self) -> list[str]:
        """What the cell sets, as `-o` has it."""
        return [option for value in self.values.values() for option in value.options]

    @property
    def solver(self) -> str | None:
        """The solver that the cell's values name; see `Value.solver`."""
        return next((v.solver for v in self.values.values() if v.solver is not None), None)

    @property
    def label(self) -> str:
        """The cell as tables print it: `corruption=blur, p_corrupt=0.5`."""
        return ", ".join(f"{axis}={text(value)}" for axis, value in self.settings.items()) or self.method

    @property
    def slug(self) -> str:
        """A name for files that no other cell of the grid has."""
        label = self.label.replace(", ", "+")
        plain = re.sub(r"[^\w.=+-]+", "_", label)
        whole = len(plain) <= 100 and plain == label
        return plain if whole else f"{plain[:80]}-{content_key(self.settings)[:8]}"


@dataclass(frozen=True)
class Grid:
    """The cells of an ablation with their settings.

    Attributes:
        base: The default's settings, with the ablation's folder as output.
        options: What `-o` was given for all of them.
    """

    base: RunConfig
    cells: tuple[GridCell, ...]
    configs: tuple[RunConfig, ...]
    options: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Content key: of the settings of all cells, but for where output goes."""
        pairs = [[cell.settings, config.key] for cell, config in zip(self.cells, self.configs, strict=True)]
        return content_key([self.base.key, pairs])


def parse_axis(item: str, methods: Sequence[str]) -> Axis:
    """`--vary NAME=VALUE,VALUE,...` as an axis; the values are a YAML list, with or without its brackets.

    Args:
        methods: Methods that the grid evaluates, whose options a short name may mean.

    Raises:
        UserError: It has no such form, or names nothing that there is.
    """
    name, equals, values = (part.strip() for part in item.partition("="))
    if not equals or not name or not values:
        raise UserError(f"--vary {shorten(item)}: expected AXIS=VALUE,VALUE,...")
    try:
        parsed = documents.from_yaml(values if values.startswith("[") else f"[{values}]")
    except ValueError as error:
        raise UserError(f"--vary {shorten(item)}: the values are not valid YAML") from error
    if not isinstance(parsed, list):
        raise UserError(f"--vary {shorten(item)}: expected AXIS=VALUE,VALUE,...")
    numbers = [_read(value) if isinstance(value, str) else value for value in parsed]
    return axis(name, numbers, methods, f"--vary {shorten(item)}")


def _read(part: str) -> Any:
    """Parses a value as JSON, where alone `1e-5` is a number, else as YAML; else it stays as it is."""
    for read in (documents.from_json, documents.from_yaml):
        try:
            return read(part)
        except ValueError:
            continue
    return part


def axis(name: str, values: object, methods: Sequence[str], where: str) -> Axis:
    """An axis from its name and its values: a list, or a mapping of names to what they set.

    Raises:
        UserError: Names `where`.
    """
    if isinstance(values, Mapping):
        found = [_named_value(label, sets, methods, where) for label, sets in values.items()]
    elif isinstance(values, Sequence) and not isinstance(values, str):
        found = [_value(name, value, methods, where) for value in values]
    else:
        raise UserError(f"{where}: {name}: give a list of values, or a mapping of names to settings")
    labels = [text(value.label) for value in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise UserError(f"{where}: {name} has {', '.join(twice)} more than once")
    if not found:
        raise UserError(f"{where}: {name} has no values")
    return Axis(name, tuple(found))


def label(value: Any) -> str | int | float | bool:
    """What a value is called: itself, or its text where it is more than a number, a truth value or a text."""
    return "none" if value is None else value if isinstance(value, (str, int, float, bool)) else text(value)


def _named_value(name: Any, sets: object, methods: Sequence[str], where: str) -> Value:
    if not isinstance(sets, Mapping):
        raise UserError(f"{where}: {text(name)}: expected `setting: value` lines")
    parts = [_value(str(path), value, methods, where) for path, value in sets.items()]
    methods_named = [part.method for part in parts if part.method is not None]
    answers = [part.solver for part in parts if part.solver is not None]
    return Value(
        label(name),
        tuple(option for part in parts for option in part.options),
        methods_named[0] if methods_named else None,
        answers[0] if answers else None,
    )


def _value(name: str, value: Any, methods: Sequence[str], where: str) -> Value:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {name}: {quote(value)} is not a number, truth value or text") from None
    if name in ("method", "dar", "corruption") and not isinstance(value, (str, bool)):
        raise UserError(f"{where}: {name}: {text(value)} is not a name")
    if name == "method":
        name = registry.methods().get(str(value)).name
        return Value(name, method=name)
    if name == "dar":
        on = {"on": True, "off": False, True: True, False: False}.get(value)
        if on is None:
            raise UserError(f"{where}: dar is on or off, not {text(value)}")
        return Value("on" if on else "off", solver=DESCRIBE if on else "direct")
    if name == "corruption":
        weights = {"low_res": 0.5, "jitter": 0.5} if value == "both" else {value: 1.0}
        known = ["both", *registry.corruptions().names()]
        if value not in known:
            raise UserError(
                f"{where}: {value} is not a corruption{registry.suggest(str(value), known)} "
                f"(there are {', '.join(known)})"
            )
        return Value(str(value), (f"stage1.corruptions={json.dumps(weights)}",))
    path = resolve(name, methods, where)
    return Value(label(value), (f"{path}={json.dumps(value)}",))


def resolve(name: str, methods: Sequence[str], where: str) -> str:
    """The path of a setting by its full path, or by the end of it where only one path ends so.

    Raises:
        UserError: There is none, or there are several.
    """
    head = name.partition(".")[0]
    if of_the_run(name):
        if head not in _OF_THE_RUN:
            raise UserError(
                f"{where}: {head} is the same for all cells (may differ: settings of the method, "
                f"{', '.join(_OF_THE_RUN)})" + (": give --seeds" if head == "seeds" else "")
            )
        require(name, where)
        return name
    if name in ("seed", "seeds"):
        raise UserError(f"{where}: give --seeds; every cell is trained with each")
    configs = [registry.methods().get(method).config for method in methods]
    if any(config_layers.has(name, config) for config in configs):
        return name
    known = list(dict.fromkeys(path for config in configs for path in config_layers.paths(config)))
    known += [path for path in paths() if path.startswith(("dar.", "training."))]
    ends = [path for path in known if path.endswith(f".{name}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UserError(f"{where}: {name} may be {' or '.join(ends)}: give one of them")
    advice = registry.suggest(name, [*known, "corruption", "dar", "method"])
    raise UserError(
        f'{where}: no setting of {", ".join(methods)} is called "{name}"{advice} '
        f"(`stic-eval show {methods[0]}` lists them)"
    )


def cells(
    axes: Sequence[Axis],
    method: str,
    *,
    default: Mapping[str, Value],
    one_at_a_time: bool = False,
    exclude: Sequence[str] = (),
) -> list[GridCell]:
    """The cells of a grid: all combinations, or the default and every single departure from it.

    Args:
        method: What cells evaluate that do not say.
        default: Axis -> the value that the others are departures from.
        one_at_a_time: The latter.
        exclude: Conditions, e.g. `p_corrupt=0 corruption!=both`: cells for which all parts of one hold
            are left out. `=a,b` is any of them.

    Raises:
        UserError: A condition is not of that form, or nothing is left.
    """
    if one_at_a_time:
        combinations = [dict(default)]
        combinations += [
            {**default, axis.name: value}
            for axis in axes
            for value in axis.values
            if value != default[axis.name]
        ]
    else:
        names = [axis.name for axis in axes]
        if (count := math.prod(len(axis.values) for axis in axes)) > MOST_CELLS:
            raise UserError(f"--vary: {count:,} cells; vary less, or one at a time (at most {MOST_CELLS:,})")
        combinations = [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*(axis.values for axis in axes))
        ]
    conditions = [_condition(item, axes) for item in exclude]
    found = []
    for values in combinations:
        if not any(all((values[n].label in wanted) == same for n, wanted, same in c) for c in conditions):
            chosen = next((v.method for v in values.values() if v.method is not None), method)
            found.append(GridCell(values, chosen))
    if not found:
        raise UserError("--exclude: no cell is left")
    return found


_Condition = list[tuple[str, frozenset[Any], bool]]


def _condition(item: str, axes: Sequence[Axis]) -> _Condition:
    """A condition's parts: (axis, values, whether the cell's has to be one of them)."""
    known = {axis.name: [value.label for value in axis.values] for axis in axes}
    parts: _Condition = []
    for part in item.split():
        match = re.fullmatch(r"([^=!]+)(!?=)(.+)", part)
        if match is None:
            raise UserError(f"--exclude {item}: expected AXIS=VALUE or AXIS!=VALUE, several with blanks")
        name, sign, values = match.groups()
        if name not in known:
            raise UserError(f"--exclude {item}: no axis is called {name}{registry.suggest(name, [*known])}")
        wanted = [_find_value(value, known[name], f"--exclude {item}: {name}") for value in values.split(",")]
        parts.append((name, frozenset(wanted), sign == "="))
    if not parts:
        raise UserError("--exclude: is empty")
    return parts


def _find_value(written: str, labels: Sequence[Any], where: str) -> Any:
    """The value of an axis that is written like this: by its text, or as a number (`0` is `0.0`)."""
    for value in labels:
        if text(value) == written:
            return value
    read = _read(written)
    number = isinstance(read, (int, float)) and not isinstance(read, bool)
    for value in labels:
        if (number or type(value) is type(read)) and not isinstance(value, bool) and value == read:
            return value
    shown = [text(value) for value in labels]
    raise UserError(f"{where} has no value {written}{registry.suggest(written, shown)} ({', '.join(shown)})")
