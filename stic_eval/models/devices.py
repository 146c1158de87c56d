"""What a device and a weight type come to on this machine; asks torch only where there may be a GPU.

Keys hold the type of the weights, and a run that has nothing left to compute should not have to load
torch to find it out.
"""

from __future__ import annotations

import platform
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval.errors import UserError

if TYPE_CHECKING:
    from stic_eval.settings import RunConfig

# What drivers put there: NVIDIA's, WSL's, Jetson's, AMD's.
_NODES = ("nvidiactl", "dxg", "nvhost-gpu", "kfd")


def device_of(device: str) -> str:
    """The kind of device that `auto`, or a name such as `cuda:1`, comes to: `cuda`, `mps` or `cpu`."""
    if device != "auto":
        return device.partition(":")[0]
    if not _has_gpu():
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_device(device: str) -> None:
    """Refuses a device that this machine does not have.

    Raises:
        UserError: No such device.
    """
    if not re.fullmatch(r"auto|cpu|(cuda|mps)(:\d+)?", device):
        raise UserError(f"--device {device}: give auto, cpu, cuda or mps")
    if device not in ("auto", "cpu") and not _available(device):
        raise UserError(f"--device {device}: not available on this machine; leave it out, or give cpu")


def dtype_of(config: RunConfig) -> str:
    """The type of the weights, by the rule that loading them follows.

    `auto` is float32 on a CPU and for a checkpoint in float32, bfloat16 otherwise.
    """
    if config.dtype != "auto":
        return config.dtype
    if config.device == "cpu" or (config.device == "auto" and not _has_gpu()):
        return "float32"
    # The checkpoint first: what it says costs less than asking torch.
    return (
        "float32" if _stored_dtype(config) == "float32" or device_of(config.device) == "cpu" else "bfloat16"
    )


def gpus() -> int:
    """How many of NVIDIA's or AMD's GPUs a process sees; counted without beginning anything on them."""
    if not _has_gpu():
        return 0
    import torch

    return torch.cuda.device_count()


def _has_gpu() -> bool:
    """Whether torch could find a GPU: it was built for one, and a driver is there. Imports nothing."""
    system = platform.system()
    if system == "Darwin":
        return platform.machine() == "arm64"
    spec = find_spec("torch")
    folder = Path(spec.origin).parent / "lib" if spec and spec.origin else Path()
    built = [path for name in ("torch_cuda", "torch_hip") for path in folder.glob(f"*{name}.*")]
    return bool(built) and (system == "Windows" or any((Path("/dev") / name).exists() for name in _NODES))


def _available(device: str) -> bool:
    kind, _, index = device.partition(":")
    if not _has_gpu():
        return False
    import torch

    if kind == "mps":
        return torch.backends.mps.is_available()
    return torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count()


def _stored_dtype(config: RunConfig) -> str:
    """The type that a checkpoint says it is stored in; empty if it does not say."""
    from stic_eval.models.fingerprint import checkpoint_file
    from stic_eval.store import read_object

    model = config.server.model_id or config.model  # at a server that is a name, and this says whose
    found = read_object(checkpoint_file(model, config.revision, "config.json"))
    return str(found.get("dtype", found.get("torch_dtype", ""))).removeprefix("torch.")
