"""How the processes of a gang are started: by torchrun, or by accelerate where the model is sharded.

`ddp` gives each process the whole model. `fsdp2` and `zero3` shard it among them, for models that are larger
than one GPU; their accelerate configurations are made here. They have been validated by accelerate, and not
been run: there was no machine with several GPUs. A file is an accelerate configuration of one's own.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stic_eval.documents import SETTINGS_BYTES, from_yaml, read_text
from stic_eval.errors import UserError, first_line
from stic_eval.models import devices
from stic_eval.store import atomic_write
from stic_eval.training.step_rows import check_divides

if TYPE_CHECKING:
    from stic_eval.contracts.method import Stage
    from stic_eval.settings import RunConfig

SHARDED = ("fsdp2", "zero3")
NOT_RUN = "has been checked as far as can be without GPUs, and not been run"
_WORKER = "stic_eval.training.worker"
# Given to processes that are to live as long as their input is open.
WHILE_INPUT_IS_OPEN = "--while-input-is-open"


def gpus_of(config: RunConfig) -> int:
    """How many processes of a node train together, each on a GPU of its own (or on the CPU)."""
    if config.gpus != "auto":
        return config.gpus
    return max(1, devices.gpus()) if devices.device_of(config.device) == "cuda" else 1


def size(config: RunConfig) -> int:
    """How many processes train together, on all nodes."""
    return gpus_of(config) * config.nodes


def is_gang(config: RunConfig) -> bool:
    """Whether training goes to processes of its own; one GPU is enough where the strategy is no plain one."""
    return size(config) > 1 or config.strategy != "ddp"


def described(config: RunConfig) -> str:
    """Who trains, in words for a plan: what has been run, and what has not."""
    by, several = size(config), "processes" if size(config) > 1 else "process"
    on_cpu = devices.device_of(config.device) == "cpu"
    where = "on the CPU" if on_cpu else "each on a GPU" + (f", {config.nodes} nodes" * (config.nodes > 1))
    run = "" if on_cpu and config.strategy == "ddp" and config.nodes == 1 else f"; this {NOT_RUN}"
    return f"trained by {by} {several} ({config.strategy}), {where}{run}"


def is_sharded(strategy: str) -> bool:
    """Whether the model is sharded among the processes, so that none has all of it.

    Raises:
        UserError: It is a file that accelerate does not take.
    """
    if strategy in ("ddp", *SHARDED):
        return strategy in SHARDED
    return str(_own_file(strategy).get("distributed_type")) in ("FSDP", "DEEPSPEED")


def _own_file(strategy: str) -> Mapping[str, Any]:
    path = Path(strategy).expanduser()
    if not path.is_file():
        raise UserError(
            f"--strategy {strategy}: give ddp, {', '.join(SHARDED)}, or an accelerate configuration"
        )
    try:
        from accelerate.commands.config.config_args import load_config_from_file

        load_config_from_file(str(path))
        found = dict(from_yaml(read_text(path, SETTINGS_BYTES)))
        if found.get("distributed_type") == "FSDP" and found.get("fsdp_config", {}).get("fsdp_version") != 2:
            raise UserError(f"--strategy {strategy}: is for FSDP1; give fsdp_version: 2 in its fsdp_config")
        return found
    except UserError:
        raise
    except Exception as error:  # accelerate, enums, YAML
        raise UserError(
            f"--strategy {strategy}: accelerate does not accept it: {first_line(error)}"
        ) from error


def check_gang(config: RunConfig, stages: Iterable[Stage], here: bool = True) -> None:
    """Refuses what so many processes cannot train, before anything is computed.

    Args:
        config: The run, with the device of the machine that trains.
        stages: Of its methods.
        here: Whether that is this machine, whose GPUs are counted then.

    Raises:
        UserError: GPUs or nodes are not there, a batch cannot be parted evenly, or a setting does not go
            with the strategy.
    """
    if not is_gang(config):
        return
    kind, gpus, sharded = devices.device_of(config.device), gpus_of(config), is_sharded(config.strategy)
    if kind == "mps":
        raise UserError(f"--gpus {gpus}: there is one GPU of this kind; leave it out")
    if kind == "cuda" and here:
        if gpus > 1 and ":" in config.device:
            raise UserError(f"--device {config.device}: is one GPU; with --gpus {gpus} give cuda")
        if gpus > (there := devices.gpus()):
            raise UserError(f"--gpus {gpus}: this machine has {there} (CUDA_VISIBLE_DEVICES counts)")
    if config.nodes > 1 and not ("SLURM_JOB_ID" in os.environ and shutil.which("srun")):
        raise UserError(
            f"--nodes {config.nodes}: other nodes are reached by srun, and this is not a SLURM "
            "allocation; start it inside one (salloc, sbatch)"
        )
    if sharded:
        what = f"--strategy {config.strategy}"
        if kind == "cpu":
            raise UserError(f"{what}: shards the model among GPUs; on a CPU give ddp")
        if config.quantization:
            raise UserError(
                f"{what}: does not go with --load-in-{config.quantization}; leave one of them out"
            )
        if config.strategy == "zero3" and find_spec("deepspeed") is None:
            raise UserError(f"{what}: needs deepspeed, which is not installed: pip install deepspeed")
    for stage in stages:
        training = stage.params.get("training")
        if stage.trains and isinstance(training, Mapping) and "batch_size" in training:
            check_divides(int(training["batch_size"]), size(config), stage.name)
        if sharded and stage.params.get("rejected_logp") == "runner_up":
            raise UserError(
                f"{stage.name}: rejected_logp=runner_up asks the model's head separately, and no process "
                f"has all of it under --strategy {config.strategy}; give rejected_logp=label, or "
                "--strategy ddp"
            )


def accelerate_config(strategy: str, processes: int, nodes: int, dtype: str) -> dict[str, Any]:
    """The accelerate configuration of a strategy that shards the model.

    Sources: the shapes of TRL 1.16's `examples/accelerate_configs`, without what only a model that accelerate
    loads itself takes (`cpu_ram_efficient_loading`, `zero3_init_flag`).

    Args:
        processes: On all nodes.
        dtype: Of the weights.
    """
    precision = {"bfloat16": "bf16", "float16": "fp16"}.get(dtype, "no")
    common = {
        "compute_environment": "LOCAL_MACHINE", "debug": False, "downcast_bf16": False, "machine_rank": 0,
        "main_training_function": "main", "mixed_precision": precision, "num_machines": nodes,
        "num_processes": processes, "rdzv_backend": "c10d", "same_network": False, "use_cpu": False,
    }  # fmt: skip
    if strategy == "zero3":
        deepspeed = {
            "deepspeed_multinode_launcher": "standard", "offload_optimizer_device": "none",
            "offload_param_device": "none", "zero3_init_flag": False, "zero3_save_16bit_model": True,
            "zero_stage": 3,
        }  # fmt: skip
        return {**common, "distributed_type": "DEEPSPEED", "deepspeed_config": deepspeed}
    fsdp = {
        "fsdp_version": 2, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_offload_params": False,
        "fsdp_reshard_after_forward": True, "fsdp_state_dict_type": "FULL_STATE_DICT",
        "fsdp_cpu_ram_efficient_loading": False, "fsdp_activation_checkpointing": False,
    }  # fmt: skip
    return {**common, "distributed_type": "FSDP", "fsdp_config": fsdp}


def launch_command(config: RunConfig, folder: Path) -> list[str]:
    """What starts a gang, on this node or by srun on all of an allocation's.

    Args:
        folder: Holds `spec.json`; an accelerate configuration is written beside it.

    Raises:
        UserError: The strategy is a file that accelerate does not take.
    """
    gpus, nodes = gpus_of(config), config.nodes
    worker = ["-m", _WORKER, str(folder / "spec.json"), WHILE_INPUT_IS_OPEN]
    # On the first node of an allocation, where this program runs, the processes find each other.
    host, port = os.environ.get("SLURMD_NODENAME") or socket.gethostname(), _free_port()
    by_srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"] if nodes > 1 else []
    if config.strategy == "ddp":
        run = [sys.executable, "-m", "torch.distributed.run"]
        meet = ["--standalone"]
        if nodes > 1:
            meet = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={host}:{port}",
                    f"--rdzv-id={os.environ.get('SLURM_JOB_ID', 'stic-eval')}"]  # fmt: skip
        return [*by_srun, *run, *meet, f"--nproc-per-node={gpus}", "--max-restarts=0", *worker]
    file = Path(config.strategy).expanduser()
    if config.strategy in SHARDED:
        file = folder / "accelerate.yaml"
        found = accelerate_config(config.strategy, gpus * nodes, nodes, devices.dtype_of(config))
        atomic_write(file, yaml.safe_dump(found))
    else:
        _own_file(config.strategy)
    run = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    own = [f"--num_processes={gpus * nodes}", f"--num_machines={nodes}", f"--main_process_port={port}"]
    own += [f"--main_process_ip={host}"] if nodes > 1 else []
    return [*by_srun, *run, *own, *worker]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("", 0))
        return int(found.getsockname()[1])
