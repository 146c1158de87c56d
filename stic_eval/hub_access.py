"""Whether the hub's client may ask the hub, or answers from its cache alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# What libraries read when they are imported, and child processes inherit.
_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
# Where they keep it, in `HF_HUB_OFFLINE`, and look whenever they would ask; and the variables that decide,
# the first that is set. transformers asks huggingface_hub, and PEFT the environment.
_MODULES = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    "datasets.config": ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
}


def go_offline(offline: bool | None) -> None:
    """Makes the hub's client answer from its cache alone, whether it has been imported or will be."""
    if offline:
        os.environ.update(dict.fromkeys(_VARIABLES, "1"))
        for name in _loaded():
            vars(sys.modules[name])["HF_HUB_OFFLINE"] = True


@contextmanager
def restore_afterwards() -> Iterator[None]:
    """Gives back, when the block ends, the access that there was before it."""
    environment = {name: os.environ.get(name) for name in _VARIABLES}
    flags = _loaded()
    try:
        yield
    finally:
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for name in _loaded():
            # What was imported meanwhile would have gone by the environment.
            vars(sys.modules[name])["HF_HUB_OFFLINE"] = flags.get(name, _is_set(name))


def _loaded() -> dict[str, bool]:
    """The flags of the modules that are imported."""
    modules = {name: sys.modules[name] for name in _MODULES if name in sys.modules}
    return {name: vars(module).get("HF_HUB_OFFLINE", False) for name, module in modules.items()}


def _is_set(module: str) -> bool:
    """What a module reads in the environment, as huggingface_hub reads it."""
    value = next((text for name in _MODULES[module] if (text := os.environ.get(name))), "")
    return value.upper() in ("1", "ON", "YES", "TRUE")
