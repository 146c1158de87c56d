"""Whether an adapter's numbers can be those of an adapter. Never imports torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stic_eval.digests import digest
from stic_eval.errors import UserError

# The largest float16. No update of a weight comes near it, and products with more overflow in 16 bits.
LARGEST = 65504.0
# Types of safetensors for numbers with a point -> how their bits are read. bfloat16, which NumPy does not
# have, is the upper half of a float32.
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_CHUNK = 1 << 24  # numbers that are looked at at a time
_sound: set[tuple[str, str]] = set()


def check_adapter_values(adapter: Path, where: str) -> None:
    """Refuses an adapter with values that no adapter has; each content is looked at once in a process.

    Args:
        adapter: PEFT folder; files that are missing or no adapter's are left to whoever loads them.
        where: Names it in messages.

    Raises:
        UserError: A weight, or a scale of `adapter_config.json`, is NaN, infinite or beyond 65,504.
    """
    config, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    if not (config.is_file() and weights.is_file()):
        return
    content = digest(config), digest(weights)
    if content in _sound:
        return
    advice = "such an adapter computes nothing: train it again (if it is the cache's, delete its folder)"
    if (what := _wrong_scale(config)) is not None:
        raise UserError(f"{where}: {config.name}: {what}; {advice}")
    for name, numbers in _tensors(weights):
        if (what := _wrong(numbers)) is not None:
            raise UserError(f"{where}: {weights.name}: tensor {name} holds {what}; {advice}")
    _sound.add(content)


def _wrong_scale(config: Path) -> str | None:
    """What is wrong with the numbers that updates are multiplied by; None: nothing."""
    try:
        data = json.loads(config.read_bytes())
    except ValueError:
        return None
    if not isinstance(data, Mapping):
        return None
    for name in ("lora_alpha", "alpha_pattern", "r", "rank_pattern"):
        value = data.get(name)
        for number in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(number, (int, float)) and not abs(number) <= LARGEST:
                return f"{name} is {_said(number)}"
    return None


def _said(number: float) -> str:
    return "NaN" if math.isnan(number) else "infinite" if math.isinf(number) else f"{number:.3g}"


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The tensors of a safetensors file that hold numbers with a point, as they lie there.

    The format: eight bytes with the length of a JSON header, the header, the data that it points into.
    """
    try:
        whole = np.memmap(path, np.uint8, "r")
        (length,) = struct.unpack("<Q", whole[:8].tobytes())
        header, data = json.loads(whole[8 : 8 + length].tobytes()), whole[8 + length :]
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] in _TYPES:
                start, end = tensor["data_offsets"]
                yield name, data[start:end].view(_TYPES[tensor["dtype"]])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        return  # no safetensors file: told when it is loaded


def _wrong(numbers: np.ndarray[Any, Any]) -> str | None:
    """What of a tensor no adapter has; None: nothing."""
    for start in range(0, numbers.size, _CHUNK):
        part = numbers[start : start + _CHUNK]
        if part.dtype == np.uint16:
            part = (part.astype(np.uint32) << 16).view(np.float32)
        # The comparison is False for NaN.
        bad = part[~(np.abs(part) <= LARGEST)]
        if bad.size:
            return _said(float(bad[0]))
    return None
