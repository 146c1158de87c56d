"""Whether an adapter's numbers can be those of an adapter. Never imports torch."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stic_eval.digests import digest
from stic_eval.documents import from_json, read_bytes
from stic_eval.errors import UserError

# The largest float16. No update of a weight comes near it, and products with more overflow in 16 bits.
LARGEST = 65504.0
# Types of safetensors for numbers with a point -> how their bits are read. bfloat16, which NumPy does not
# have, is the upper half of a float32.
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# What PEFT makes of these numbers, for every layer, is as large as they say.
_SIZES = (
    "r", "rank_pattern", "init_r", "target_r", "num_virtual_tokens", "num_transformer_submodules",
    "token_dim", "num_layers", "encoder_hidden_size", "encoder_num_layers", "adapter_len", "n_frequency",
    "boft_block_size", "oft_block_size", "block_size",
)  # fmt: skip
_USUAL_SIZE = 1024  # from which on it costs
_CHUNK = 1 << 24  # numbers that are looked at at a time
_sound: set[tuple[str, str]] = set()


def check_adapter_values(adapter: Path, where: str) -> None:
    """Refuses an adapter with values that no adapter has; each content is looked at once in a process.

    Args:
        adapter: PEFT folder; files that are missing or no adapter's are left to whoever loads them.

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
    if (what := _scale_fault(config)) is not None:
        raise UserError(f"{where}: {config.name}: {what}; {advice}")
    check_sizes(adapter, where)
    for name, numbers in _tensors(weights):
        if (what := _tensor_fault(numbers)) is not None:
            raise UserError(f"{where}: {weights.name}: tensor {name} holds {what}; {advice}")
    _sound.add(content)


def check_sizes(adapter: Path, where: str) -> None:
    """Refuses a size in `adapter_config.json` that no weight has: it is allocated before they are read.

    Raises:
        UserError: Names the setting.
    """
    from safetensors import SafetensorError, safe_open

    try:
        data = from_json(read_bytes(adapter / "adapter_config.json"))
        with safe_open(adapter / "adapter_model.safetensors", "np") as file:
            there = {size for name in file.keys() for size in file.get_slice(name).get_shape()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):
        return  # told when it is loaded
    for name in _SIZES if isinstance(data, Mapping) else ():
        value = data.get(name)
        for size in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(size, int) and size > _USUAL_SIZE and size not in there:
                raise UserError(
                    f"{where}: adapter_config.json: {name} is {size:,}, which none of its weights is the "
                    "size of; give the adapter's own adapter_config.json"
                )


def learned_nothing(adapter: Path, starts: Iterable[Path]) -> bool:
    """Whether a LoRA changes nothing, or is one of those that it may have gone on from.

    Args:
        adapter: PEFT folder. Of one that is missing or no LoRA nothing is known: False.
        starts: Such folders; a file may hold fewer bits than what went on from it.
    """
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        return False
    factors = [values for name, values in _tensors(weights) if ".lora_B." in name]
    if not factors:
        return False
    if not any(_numbers(part).any() for values in factors for part in _parts(values)):
        return True
    return any(_same_tensors(weights, start / "adapter_model.safetensors") for start in starts)


def _same_tensors(one: Path, other: Path) -> bool:
    """Whether two files hold the same numbers under the same names."""
    if not other.is_file():
        return False
    ours, theirs = dict(_tensors(one)), dict(_tensors(other))
    return ours.keys() == theirs.keys() and all(
        values.size == theirs[name].size
        and all(
            np.array_equal(_numbers(part), _numbers(part_there))
            for part, part_there in zip(_parts(values), _parts(theirs[name]), strict=True)
        )
        for name, values in ours.items()
    )


def _scale_fault(config: Path) -> str | None:
    """What is wrong with the scale of an adapter's updates; None: nothing."""
    try:
        data = from_json(config.read_bytes())
    except ValueError:
        return None
    if not isinstance(data, Mapping):
        return None
    for name in ("lora_alpha", "alpha_pattern", "r", "rank_pattern"):
        value = data.get(name)
        for number in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(number, (int, float)) and not abs(number) <= LARGEST:
                return f"{name} is {_format_number(number)}"
    return None


def _format_number(number: float) -> str:
    return "NaN" if math.isnan(number) else "infinite" if math.isinf(number) else f"{number:.3g}"


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The tensors of a safetensors file that hold numbers with a point, as they lie there.

    The format: eight bytes with the length of a JSON header, the header, the data that it points into.
    """
    try:
        whole = np.memmap(path, np.uint8, "r")
        (length,) = struct.unpack("<Q", whole[:8].tobytes())
        header, data = from_json(whole[8 : 8 + length].tobytes()), whole[8 + length :]
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] in _TYPES:
                start, end = tensor["data_offsets"]
                yield name, data[start:end].view(_TYPES[tensor["dtype"]])
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        return  # no safetensors file: told when it is loaded


def _tensor_fault(numbers: np.ndarray[Any, Any]) -> str | None:
    """A value in a tensor that no adapter can have, as text; None: there is none."""
    for part in _parts(numbers):
        values = _numbers(part)
        # The comparison is False for NaN.
        bad = values[~(np.abs(values) <= LARGEST)]
        if bad.size:
            return _format_number(float(bad[0]))
    return None


def _parts(numbers: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """A tensor in pieces that fit into memory."""
    for start in range(0, numbers.size, _CHUNK):
        yield numbers[start : start + _CHUNK]


def _numbers(part: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A file's raw numbers in a type to compute with."""
    return (part.astype(np.uint32) << 16).view(np.float32) if part.dtype == np.uint16 else part
