"""Prompt sets: one step-by-step prompt, plain ones, misleading ones; shipped, in a file, or the authors'."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from stic_eval import config_layers
from stic_eval.contracts.method import PromptSet
from stic_eval.documents import SETTINGS_BYTES, read_text
from stic_eval.errors import UserError, fault_of, first_line
from stic_eval.plugin_code import literals

_MISLEADING = ("hallu", "bad", "neg", "mislead")


def shipped_names() -> list[str]:
    """Names of the prompt sets that come with the program."""
    return sorted(_shipped_files())


def _shipped_files() -> dict[str, Traversable]:
    return {**config_layers.shipped_files("prompts"), "pocket": files("stic_eval.pocket") / "prompts.yaml"}


def load_prompts(where: str | Path | None = None) -> PromptSet:
    """Reads a prompt set.

    Args:
        where: Name of a shipped set; a YAML file with the keys of `PromptSet`; or a Python file that
            assigns prompts to names, as the authors' script does (read, never run). None: `stic`.

    Raises:
        UserError: No such set or file, or something in it does not fit.
    """
    name = "stic" if where is None else str(where)
    if name in _shipped_files():
        return _shipped(name)
    path = Path(name).expanduser()
    flag = f"--prompts {name}"
    try:
        text = read_text(path, SETTINGS_BYTES)
    except FileNotFoundError:
        raise UserError(f"{flag}: neither a file nor a built-in set ({', '.join(shipped_names())})") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise UserError(f"{flag}: cannot be read: {reason}") from error
    return _from_script(text, flag) if path.suffix == ".py" else _from_yaml(text, flag)


@cache
def _shipped(name: str) -> PromptSet:
    return _from_yaml(_shipped_files()[name].read_text(encoding="utf-8"), f"prompt set {name}")


def _from_yaml(text: str, where: str) -> PromptSet:
    data = config_layers.from_yaml(text, where)
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected the keys step_by_step, plain and misleading")
    return _validate(data, where)


def _validate(data: Mapping[str, Any], where: str) -> PromptSet:
    try:
        found = PromptSet.model_validate(data)
        found.model_dump_json()
        return found
    except PydanticSerializationError:
        raise UserError(f"{where}: holds half of a surrogate pair, which is not text") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {key}: {fault_of(first)}") from error


def _from_script(text: str, where: str) -> PromptSet:
    """Prompts of a script by what they are assigned to.

    A list under a name with `hallu`, `bad`, `neg` or `mislead` is the misleading one, the other list
    the plain one, the longest string the step-by-step prompt. Only literals count, also within functions.
    """
    try:
        assigned = list(literals(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{where}: is not valid Python: {first_line(error)}") from error
    strings: list[str] = []
    plain: dict[str, list[str]] = {}
    misleading: dict[str, list[str]] = {}
    for name, value in assigned:
        if isinstance(value, str):
            strings.append(value)
        elif isinstance(value, (list, tuple)) and value and all(isinstance(item, str) for item in value):
            bad = any(word in name.lower() for word in _MISLEADING)
            (misleading if bad else plain)[name] = list(value)
    for kind, found in (("misleading", misleading), ("plain", plain)):
        if len(found) != 1:
            names = f" ({', '.join(found)})" if found else ""
            raise UserError(
                f"{where}: expected one list of {kind} prompts, found {len(found)}{names}; the "
                "misleading one is recognised by `hallu`, `bad`, `neg` or `mislead` in its name (or "
                "write a YAML file)"
            )
    ((_, plain_list),) = plain.items()
    ((_, misleading_list),) = misleading.items()
    long = max(strings, key=len, default="")
    if len(long) <= max(map(len, plain_list)):
        raise UserError(f"{where}: no string longer than the plain prompts, so none is the step-by-step one")
    return _validate({"step_by_step": long, "plain": plain_list, "misleading": misleading_list}, where)
