"""Ablations as files: what is varied, around which defaults, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stic_eval import config_layers, documents
from stic_eval.errors import UserError, fault_of
from stic_eval.registry import suggest


class Spec(BaseModel):
    """An ablation.

    Attributes:
        title: What it asks, for people.
        paper: Where the paper has it; empty if it does not.
        method: What cells evaluate that do not say.
        vary: Axis -> values: a list, or names with the settings that each stands for.
        design: Every combination, or every single departure from the default.
        exclude: Conditions on cells that are left out, e.g. `p_corrupt=0 corruption!=both`.
        dar: `only`: cells answer by describe-and-respond; true: with and without it; false: without;
            null: as the method says. An axis `dar` decides instead where there is one.
        options: Settings of all cells, by their paths.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str = ""
    paper: str = ""
    method: str = "stic"
    vary: dict[str, Any] = Field(default_factory=dict)
    design: Literal["full", "one-at-a-time"] = "full"
    exclude: tuple[str, ...] = ()
    dar: bool | Literal["only"] | None = "only"
    options: dict[str, Any] = Field(default_factory=dict)
    seeds: tuple[int, ...] = ()


def shipped_names() -> list[str]:
    """Names of the ablations that come with the program."""
    return list(config_layers.shipped_files("ablations"))


def load(name: str) -> Spec:
    """Reads an ablation: a shipped one by name, or a YAML file.

    Raises:
        UserError: No such ablation or file, or something in it does not fit.
    """
    known = config_layers.shipped_files("ablations")
    if name in known:
        return _parse(known[name].read_text(encoding="utf-8"), f"ablation {name}")
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(
            f'no ablation is called "{name}"{suggest(name, known)}, nor is there such a file '
            "(`stic-eval ls ablations` lists the built-in ones)"
        )
    try:
        return _parse(documents.read_text(path, documents.SETTINGS_BYTES), name)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise UserError(f"{name}: cannot be read: {reason}") from error


def _parse(content: str, where: str) -> Spec:
    data = config_layers.from_yaml(content, where)
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected keys such as `vary`")
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"] if not str(part).startswith("literal"))
        if first["type"] == "extra_forbidden":
            raise UserError(f"{where}: unknown key {key}{suggest(key, [*Spec.model_fields])}") from error
        form = ", e.g. `p_corrupt=0 corruption!=both`" if key.startswith("exclude") else ""
        raise UserError(f"{where}: {key}: {fault_of(first)}{form}") from error
