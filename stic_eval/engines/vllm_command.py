"""What `vllm serve` is called with: which command, for which weights, with which flags and environment."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stic_eval import durable_files
from stic_eval.digests import digest
from stic_eval.engines.runtime_adapters import allowed_rank
from stic_eval.errors import UserError
from stic_eval.models import tower_names
from stic_eval.models.fingerprint import local_model

if TYPE_CHECKING:
    from stic_eval.profiles import ConversationProfile
    from stic_eval.settings import RunConfig

# Environments of vLLM's own in the working folder, as `make test-vllm` makes one.
_BESIDE = (".venv-vllm/bin/vllm",)
_SECONDS = 300.0  # that it may take to say its version
_SHORT = {
    "-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size",
    "-q": "--quantization", "-asc": "--api-server-count",
}  # fmt: skip
# What a command may not say itself, and what to do instead.
_OURS = {
    "--host": "servers listen on this machine alone; leave it out",
    "--port": "each server is given a free one; leave it out",
    "--uds": "each server is given a port; leave it out",
    "--served-model-name": "this program gives it a name; leave it out",
    "--api-key": "servers listen on this machine alone; leave it out",
    "--model": "the model is appended; give --model apart from the command",
    "--revision": "give --revision apart from the command",
    "--dtype": "give --dtype outside the command, because training uses it as well",
    "--tensor-parallel-size": "give --tensor-parallel apart from the command",
    "--pipeline-parallel-size": "give --tensor-parallel apart from the command",
    "--data-parallel-size": "give --gpus apart from the command",
}
# What changes how fast or where answers come, and no answer.
_NO_ANSWER = (
    "--gpu-memory-utilization", "--max-num-seqs", "--max-num-batched-tokens", "--swap-space",
    "--enforce-eager", "--enable-lora", "--max-lora-rank", "--max-loras", "--max-cpu-loras", "--download-dir",
    "--api-server-count", "--uvicorn-log-level", "--enable-log-requests", "--disable-log-requests",
    "--enable-sleep-mode",
)  # fmt: skip


def find_vllm() -> Path | None:
    """The command `vllm`: of the path, beside this Python, or of an environment in the working folder."""
    found = shutil.which("vllm")
    own = [Path(found)] if found else []
    for path in (*own, Path(sys.executable).with_name("vllm"), *map(Path, _BESIDE)):
        if path.is_file() and os.access(path, os.X_OK):
            return path.absolute()
    return None


def command_of(config: RunConfig) -> tuple[str, ...]:
    """The command that starts a server, without the model.

    Raises:
        UserError: None is given and none is found, it cannot be read, or it says what others have to say.
    """
    given = config.server.command
    if given is None:
        found = find_vllm()
        if found is None:
            raise UserError(
                "--engine vllm: there is no command `vllm`; install it into its own environment, because "
                "it needs another version of transformers than this program (python -m venv .venv-vllm && "
                ".venv-vllm/bin/pip install vllm), or give --serve-command"
            )
        return str(found), "serve"
    try:
        parts = tuple(shlex.split(given))
    except ValueError as error:
        raise UserError(f"--serve-command {given}: {error}") from None
    if not parts or (shutil.which(parts[0]) is None and not Path(parts[0]).is_file()):
        raise UserError(f"--serve-command {given}: there is no command {parts[0] if parts else ''!r}")
    for name, *_ in own_flags(parts):
        ours = next((ours for ours in _OURS if _is_short_for(name, ours)), "")
        if ours:
            raise UserError(f"--serve-command {given}: {name}: {_OURS[ours]}")
        if "serve" in parts and not name.startswith("-"):
            raise UserError(f"--serve-command {given}: {name}: {_OURS['--model']}")
    return parts


def whole(command: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """A command with all that follows it (`flags`).

    The model stands directly behind `serve`: there vLLM looks for it when it is given a `--config`.
    """
    (model, *more), at = arguments, _behind_serve(command) or len(command)
    return [*command[:at], model, *command[at:], *more]


def _behind_serve(command: Sequence[str]) -> int:
    """Where a command says more than `serve`; 0: it has no such word."""
    return len(command) - command[::-1].index("serve") if "serve" in command else 0


def own_flags(command: Sequence[str]) -> list[tuple[str, ...]]:
    """What a command says itself, behind `serve`: each flag by vLLM's name for it, and its values."""
    found: list[tuple[str, ...]] = []
    for part in command[_behind_serve(command) or 1 :]:
        if not part.startswith("-") or re.match(r"-\d", part):
            found[-1:] = [(*found[-1], part)] if found else [(part,)]
            continue
        name, given, value = part.partition("=")
        first, dot, rest = name.partition(".")  # `--json-flag.some_key 3`
        first = first.replace("_", "-") if first.startswith("--") else _SHORT.get(first, first)
        found.append((first + dot + rest, *((value,) if given else ())))
    return found


def _is_short_for(name: str, flag: str) -> bool:
    """Whether a flag is another, which may be cut as far as no further one begins like it."""
    return flag == name or (len(name) > len("--m") and flag.startswith(name))


def key_of(command: Sequence[str]) -> list[list[str]]:
    """What of a command answers depend on, for keys: its flags, with files by content."""
    found = [flag for flag in own_flags(command) if flag[0] not in _NO_ANSWER]
    return [
        [name, *(digest(Path(one)) if Path(one).is_file() else one for one in more)] for name, *more in found
    ]


@cache
def version_of(command: tuple[str, ...]) -> str:
    """The version of vLLM behind a command, for keys; of one that does not say, what its file holds.

    By the metadata of the Python that the command's first line names, for vLLM takes long to say it itself.
    """
    code = "from importlib.metadata import version; print(version('vllm'))"
    at = _behind_serve(command)
    tried = [[*(command[: at - 1] if at else command), "--version"]]
    if python := _python_of(command[0]):
        tried.insert(0, [python, "-c", code])
    for argv in tried:
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        versions = re.findall(r"\b\d+\.\d+[\w.+-]*", done.stdout)
        if done.returncode == 0 and versions:
            return str(versions[-1])
    file = Path(shutil.which(command[0]) or command[0])
    return f"unknown ({digest(file)[:12]})"


def _python_of(command: str) -> str | None:
    path = shutil.which(command) or command
    try:
        with open(path, "rb") as file:
            first = file.readline(400).decode("utf-8", "replace")
    except OSError:
        return None
    python = first.removeprefix("#!").strip()
    return python if first.startswith("#!") and "python" in python and Path(python).is_file() else None


def first_rank(config: RunConfig) -> int:
    """A bound on the ranks of the adapters that a run is known to have."""
    from stic_eval.engines.runtime_adapters import rank_of

    ranks = [rank_of(adapter) for adapter in config.adapters]
    for method in config.methods:
        lora = config.method_options.get(method, {}).get("lora")
        ranks += [int(lora["r"])] if isinstance(lora, Mapping) and "r" in lora else []
    return max(ranks, default=16)


def flags(
    config: RunConfig,
    command: Sequence[str],
    folder: str,
    *,
    name: str,
    port: int,
    dtype: str,
    rank: int,
    profile: ConversationProfile | None,
    template: Path,
    gpu: bool,
) -> list[str]:
    """All that follows the command; what it says itself is left to it.

    Args:
        name: What servers call the base model.
        folder: The model's folder or hub id.
        rank: Largest rank of an adapter; 0: there are none.
        template: Where the profile's chat template lies, if it has one.
        gpu: Whether it runs on GPUs.
    """
    wanted: dict[str, str | None] = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--served-model-name": name,
        "--dtype": dtype,
        "--generation-config": "vllm",  # else it decodes with the checkpoint's penalties
        "--max-num-seqs": str(config.server.concurrency),
        "--limit-mm-per-prompt": json.dumps({"image": 1}),
        "--tensor-parallel-size": str(config.server.tensor_parallel),
        "--api-server-count": "1",  # with more it loads no adapters
    }
    if rank:
        bound = str(allowed_rank(rank))
        wanted |= {"--enable-lora": None, "--max-lora-rank": bound, "--max-loras": "2"}
        if not gpu:
            # With adapters on, vLLM takes a prompt's log-probabilities for one row of each request
            # (vllm#16668, open in 0.32); on a CPU it dies of that where there are several requests.
            wanted["--max-num-seqs"] = "1"
    wanted |= {"--enable-sleep-mode": None} if gpu else {"--enforce-eager": None}
    if config.revision and local_model(config.model) is None:
        wanted["--revision"] = config.revision
    if config.trust_remote_code:
        wanted["--trust-remote-code"] = None
    if profile is not None and profile.chat_template:
        wanted["--chat-template"] = str(template)
    if arguments := processor_arguments(profile):
        wanted["--mm-processor-kwargs"] = json.dumps(arguments)
    found = [folder]
    said = [first for first, *_ in own_flags(command)]
    for flag, value in wanted.items():
        no = f"--no-{flag.removeprefix('--')}"
        if not any(_is_short_for(one, flag) or one == no for one in said):
            found += [flag] if value is None else [flag, value]
    return found


def processor_arguments(profile: ConversationProfile | None) -> dict[str, Any]:
    """A profile's arguments of the image processor; images are padded before they are sent."""
    given = {} if profile is None else profile.processor
    return {name: value for name, value in given.items() if name != "do_pad"}


def environment(config: RunConfig, gpus: Sequence[str], gpu: bool) -> dict[str, str]:
    """Variables of a server's process; on a CPU those that the user has set stay."""
    found = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_API_KEY": ""}
    if config.offline or local_model(config.model) is not None:
        found["HF_HUB_OFFLINE"] = "1"
    if gpu:
        return {**found, "VLLM_SERVER_DEV_MODE": "1", "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    # --enforce-eager leaves what tells log-probabilities of prompts to a C++ compiler, at the first request.
    on_a_cpu = {
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCH_COMPILE_DISABLE": "1",
    }  # fmt: skip
    return found | {name: value for name, value in on_a_cpu.items() if name not in os.environ}


def served_folder(model: str, cache: Path, fingerprint: str) -> str:
    """A model as vLLM loads it: the hub id, the folder, or a copy with names of weights that vLLM knows."""
    folder = local_model(model)
    if folder is None:
        return model
    if not tower_names.is_new(folder):
        return str(folder)
    copy = cache / "served" / fingerprint[:32]
    if not (copy / "config.json").exists():
        durable_files.make_folder(copy.parent)
        with durable_files.temporary_folder(copy) as work:
            tower_names.copy_renamed(folder, work)
            with suppress(OSError):  # another process was first
                durable_files.publish(work, copy)
    return str(copy)
