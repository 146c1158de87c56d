"""What a model's weights take, what a device has free, and what to do when the one exceeds the other."""

from __future__ import annotations

import json
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any, Literal

from stic_eval.documents import from_json
from stic_eval.errors import UserError
from stic_eval.models.fingerprint import local_model

Packed = Literal["4bit", "8bit"]

# Bytes a parameter. What bitsandbytes packs takes half a byte or one, and a scale for every block of 64;
# embeddings, norms and the head stay as they are, of which these leave some room.
WIDTHS = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "8bit": 1.1, "4bit": 0.65}
_HEADER = 100_000_000  # as safetensors itself has it
_GIB = 2.0**30


def local_parameters(folder: Path) -> int:
    """Parameters of a model by the headers of its safetensors files.

    Raises:
        UserError: A file is no safetensors file.
    """
    total = 0
    for path in _weights(folder):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = from_json(file.read(min(size, _HEADER)))
            total += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"--model {folder}: {path.name} is not a safetensors file") from error
    return total


def _weights(folder: Path) -> list[Path]:
    """The files that transformers takes a model's weights from; others may lie beside them."""
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    try:
        return [folder / name for name in sorted(set(from_json(index.read_bytes())["weight_map"].values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return sorted(folder.glob("*.safetensors"))


def parameters(model: str, revision: str | None, stored: str) -> int | None:
    """Parameters of a model, on the hub or not; None where nothing small says how many.

    Args:
        stored: The type that its configuration says it is stored in.
    """
    folder = local_model(model)
    if folder is not None:
        return local_parameters(folder)
    try:
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(model, "model.safetensors.index.json", revision=revision)
        size = json.loads(Path(path).read_bytes())["metadata"]["total_size"]
    except Exception:  # a model in one file, an unreachable hub, a damaged index: loading it tells
        return None
    return int(size / WIDTHS.get(stored, 2.0)) if isinstance(size, (int, float)) else None


def free_bytes(device: Any) -> int:
    """Bytes that can still be had on a device, of a GPU its own, else of this machine or container."""
    import psutil

    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available + psutil.swap_memory().free)
    limit = _container_bytes()
    return free if limit is None else min(free, limit)


def _container_bytes(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container may still take before it is killed (cgroup v2); None: there is no such limit."""
    try:
        most = (root / "memory.max").read_text().strip()
        if most == "max":
            return None
        used = int((root / "memory.current").read_text())
        rows = (line.split() for line in (root / "memory.stat").read_text().splitlines())
        files = sum(int(value) for name, value in rows if name in ("active_file", "inactive_file"))
        return max(0, int(most) - used + files)  # the cache of files gives way
    except (OSError, ValueError):
        return None


def check_packing(packed: Packed) -> None:
    """Refuses packed weights where nothing can pack them.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise UserError(
            f"--load-in-{packed}: needs bitsandbytes, which is not installed: pip install bitsandbytes"
        )


def check(model: str, count: int | None, kind: str, packed: Packed | None, device: Any) -> None:
    """Refuses weights that exceed the free memory by themselves, rather than be killed while loading them.

    Args:
        count: Its parameters; None: unknown, and nothing is refused.
        kind: Type of its weights, a key of `WIDTHS`.
        packed: `4bit`, `8bit`, or None.

    Raises:
        UserError: With the numbers, and what would fit.
    """
    free = free_bytes(device)
    if count is not None and count * WIDTHS[packed or kind] > free:
        raise UserError(too_large(model, count, kind, packed, device, free))


def too_large(model: str, count: int | None, kind: str, packed: Packed | None, device: Any, free: int) -> str:
    """One line on weights that do not fit: how large they are, what is free, what to try."""
    how = {"4bit": "in 4 bits", "8bit": "in 8 bits"}.get(packed or "", f"in {kind}")
    size = "" if count is None else f" of {count * WIDTHS[packed or kind] / _GIB:.1f} GiB"
    tries = {}
    if packed is None and WIDTHS[kind] > 2:
        tries["bfloat16"] = "--dtype bfloat16"
    if packed != "4bit":
        tries["4bit"] = "--load-in-4bit"
    advice = [
        flag if count is None else f"{flag} ({count * WIDTHS[width] / _GIB:.1f} GiB)"
        for width, flag in tries.items()
    ]
    advice += ["--device cpu"] if device.type != "cpu" else []
    apart = ""
    if device.type == "cuda" and (count is None or count * min(WIDTHS[packed or kind], 2.0) > free):
        apart = (
            "; one that is larger than a GPU answers by --engine vllm --tensor-parallel N, and is trained by "
            "--gpus N --strategy fsdp2"
        )
    return (
        f"--model {model}: its weights{size} {how} do not fit in the memory of {device} "
        f"({free / _GIB:.1f} GiB free); try {', '.join([*advice, 'a smaller model'])}{apart}"
    )
