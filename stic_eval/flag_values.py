"""What is typed behind some options, read into the values of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stic_eval.errors import UserError


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
