"""`dar`, a run's setting that is short for the solver describe-and-respond and its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DESCRIBE = "describe_and_respond"  # which `dar` is short for
USES: Mapping[Any, tuple[str, ...] | None] = {
    None: None, True: ("direct", DESCRIBE), False: ("direct",), "only": (DESCRIBE,),
}  # fmt: skip


def expand(path: str, value: Any) -> tuple[str, Any]:
    """A setting in full, where it is one of `dar`, which is short for describe-and-respond's.

    `dar.use` says which rows there are: true: methods with and without it; false: without; `only`: with it;
    null: as the method says. Any other `dar.x` is the solver's option x.

    Args:
        path: Of a setting of `RunConfig`; others are given back.

    Raises:
        ValueError: `dar.use` is none of these.
    """
    head, _, option = path.partition(".")
    if head != "dar":
        return path, value
    if option not in ("", "use"):
        return f"solver_options.{DESCRIBE}.{option}", value
    if not isinstance(value, (bool, str, type(None))) or value not in USES:
        raise ValueError("dar is true, false, only or null")
    return "solvers", USES[value]


def expand_all(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer of settings without `dar`, as `expand` has it.

    Raises:
        ValueError: `dar` is no such setting, or the layer says in full as well which rows there are.
    """
    found = {key: value for key, value in layer.items() if key != "dar"}
    if "dar" in layer:
        given = layer["dar"]
        parts = dict(given) if isinstance(given, Mapping) else {"use": given}
        if "use" in parts:
            used = expand("dar.use", parts.pop("use"))[1]
            if used and found.get("solvers"):
                raise ValueError("dar and solvers both say how answers are obtained; give one")
            found["solvers"] = used or found.get("solvers")
        if parts:
            options = found.get("solver_options") or {}
            own = options.get(DESCRIBE) or {} if isinstance(options, Mapping) else None
            if not isinstance(own, Mapping):
                raise ValueError("solver_options maps a solver's name to its options")
            found["solver_options"] = {**options, DESCRIBE: {**parts, **own}}
    return found
