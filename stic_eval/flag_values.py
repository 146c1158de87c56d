"""What is typed behind some options, read into the values of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from stic_eval.errors import UserError

Tracker = Literal["trackio", "wandb", "tensorboard", "mlflow"]
TRACKERS: tuple[str, ...] = get_args(Tracker)


def read_batch_size(text: str | int) -> int | str:
    """A number of rows, or `auto`.

    Raises:
        UserError: It is neither.
    """
    text = str(text)
    if text != "auto" and not text.strip().isdecimal():
        raise UserError(f"--batch-size {text}: give a number, 1 or more, or auto")
    return text if text == "auto" else int(text)


def read_gpus(text: str | int) -> int | str:
    """A number of GPUs, or `auto`.

    Raises:
        UserError: It is neither.
    """
    text = str(text)
    if text != "auto" and not (text.strip().isdecimal() and int(text) > 0):
        raise UserError(f"--gpus {text}: give a number, 1 or more, or auto")
    return text if text == "auto" else int(text)


def read_addresses(given: str | Sequence[str]) -> str:
    """Addresses with commas between."""
    return given if isinstance(given, str) else ",".join(given)


def read_adapter_names(items: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Method -> a server's name for its adapter.

    Raises:
        UserError: An item is not METHOD=NAME.
    """
    if isinstance(items, Mapping):
        return dict(items)
    found = {}
    for item in items:
        method, equals, name = (part.strip() for part in item.partition("="))
        if not (method and equals and name):
            raise UserError(f"--adapter-name {item}: give METHOD=NAME, e.g. stic=my-lora")
        found[method] = name
    return found


def read_trackers(given: str | Sequence[str]) -> list[str]:
    """Experiment trackers of `--report-to`: several, or several with commas between; `none` by itself.

    Raises:
        UserError: There is no such tracker.
    """
    items = [given] if isinstance(given, str) else given
    names = [name.strip() for item in items for name in str(item).split(",") if name.strip()]
    if names == ["none"]:
        return []
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"--report-to {name}: give {', '.join(TRACKERS[:-1])} or {TRACKERS[-1]}")
    return names
