"""What a machine of a cluster is, as far as plans have to know it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval.errors import UserError
from stic_eval.waiting_threads import sleep_from_now_on

if TYPE_CHECKING:
    from stic_eval.settings import RunConfig


@dataclass(frozen=True)
class Facts:
    """What a machine is, as far as plans have to know it.

    Attributes:
        machine: Its name.
        device: What the run's device comes to there.
        dtype: What the type of its weights comes to.
        gpu: What its GPU is called; empty: none is used.
        memory: Bytes of that GPU.
        together: How many processes train an adapter together, each on such a GPU or on the CPU.
    """

    machine: str
    device: str
    dtype: str
    gpu: str = ""
    memory: int = 0
    together: int = 1

    def settled(self, config: RunConfig) -> RunConfig:
        """A run's settings with what they come to there, for questions about who trains."""
        return config.model_copy(update={"device": self.device, "gpus": self.together})


def facts(config: RunConfig, folder: Path, program: str) -> Facts:
    """What the machine is that this is called on.

    Raises:
        UserError: It does not have the device, or has another version of this program.
    """
    from stic_eval.models import devices

    check_version(program)
    sleep_from_now_on()
    with suppress(OSError):
        os.chdir(folder)
    try:
        devices.check_device(config.device)
    except UserError as error:
        raise UserError(f"{error} (said by {socket.gethostname()})") from error
    found = Facts(socket.gethostname(), devices.device_of(config.device), devices.dtype_of(config))
    if found.device != "cuda":
        return found
    import torch

    gpu = torch.cuda.get_device_properties(0)
    return Facts(found.machine, found.device, found.dtype, gpu.name, gpu.total_memory)


def check_version(program: str) -> None:
    """Refuses a machine that has another version of this program.

    Raises:
        UserError: Names both.
    """
    if program != version("stic-eval"):
        raise UserError(
            f"{socket.gethostname()} has stic-eval {version('stic-eval')}, and the command is of {program}: "
            "all nodes need the same"
        )
