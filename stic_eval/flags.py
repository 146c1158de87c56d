"""The options that commands share, each declared once: its name, the setting that it is, and its help.

A command takes whole sets of them (`stic_eval.cli.options`), and a message about a setting names its option
(`name_of`). An option of a single command is declared in that command, in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, ParamSpec, get_type_hints

from stic_eval.errors import UserError
from stic_eval.flag_values import (
    read_adapter_names,
    read_addresses,
    read_batch_size,
    read_gpus,
    read_trackers,
)

P = ParamSpec("P")


@dataclass(frozen=True)
class Argument:
    """What stands on the command line without a name.

    Attributes:
        help: What `--help` says of it.
        default: What `--help` shows as its default; empty: the value, if there is one.
        metavar: What `--help` calls its value.
        values: What completion offers: a registry's kind, or `preset`, `ablation`, `profile`, `run`.
    """

    help: str
    default: str = ""
    metavar: str | None = None
    values: str = ""


@dataclass(frozen=True)
class Flag(Argument):
    """An option.

    Attributes:
        names: Its names with blanks between, the one for messages first; empty: the parameter's name.
        path: The setting of RunConfig that it is; None: the one of the parameter's name; empty: none.
        read: From what was typed to the setting's value.
        panel: Heading that `--help` puts it under; empty: its set's.
        min: Smallest number.
        max: Largest number.
        value: The value if it is not given, in a set.
    """

    names: str = ""
    path: str | None = None
    read: Callable[[Any], Any] | None = None
    panel: str = ""
    min: float | None = None
    max: float | None = None
    value: Any = None

    def names_of(self, parameter: str) -> list[str]:
        """Its names, if a parameter of that name is declared so."""
        return self.names.split() or ["--" + parameter.replace("_", "-")]


def _field(declare: Callable[P, Flag]) -> Callable[P, Any]:
    def of_set(*args: P.args, **kwargs: P.kwargs) -> Any:
        own = declare(*args, **kwargs)
        return field(default=own.value, metadata={"flag": own})

    return of_set


# An option as a field of a set.
flag = _field(Flag)


# Options that commands take one by one, outside of sets as well as in them.
Protocol = Annotated[
    str | None,
    Flag("Prompts and scoring rules: `llava` or `lmms`, for benchmarks that offer both.",
         "each benchmark's own", panel="Method and evaluation"),
]  # fmt: skip
RemoteImages = Annotated[
    bool | None,
    Flag("Download images that rows name by http(s) address.", names="--allow-remote-images", panel="Data"),
]
Offline = Annotated[
    bool | None,
    Flag("Use only models and data sets that are already in the local hub cache.", panel="Machine"),
]
Quiet = Annotated[
    bool, Flag("Print only the result and errors.", names="--quiet -q", path="", panel="Output")
]
Jobs = Annotated[
    int | None,
    Flag("Number of worker processes.", "1; on a cluster, as many as it has GPUs, or nodes without any",
         names="--jobs -j", min=1, max=256, panel="Machine"),
]  # fmt: skip
Cluster = Annotated[
    str, Flag("Where worker processes are: `local`, or `ray` with or without the address of a cluster.",
              metavar="local|ray[:ADDRESS]", path="", panel="Machine"),
]  # fmt: skip
Hardware = Annotated[
    str, Flag("With --dry-run: plan for GPUs of this kind, present or not: `H200`, `H100`, `A100`, `L40S`, "
              "`RTX 4090`.", "this machine's, or the cluster's", metavar="GPU", path="",
         panel="Machine"),
]  # fmt: skip
Benchmark = Annotated[str, Argument("Benchmark (`stic-eval ls benchmarks`).", values="benchmark")]
JsonFile = Annotated[Path | None, Flag("Also write everything to this JSON file.", names="--json")]
Run = Annotated[str, Argument("A run: its folder, or its name under results/.", values="run")]


# fmt: off
@dataclass(frozen=True)
class Model:
    """Which model is asked, and how."""

    panel: ClassVar[str] = "Model"

    model: str | None = flag("`pocket` (built in), a local folder, a Hugging Face id, or a model on a "
        "server.", "pocket")
    revision: str | None = flag("Branch, tag or commit of the model on the hub.")
    profile: str | None = flag("How the model is prompted: a conversation profile, or `none` (llava-1.5, "
        "llava-1.6-vicuna, llava-1.6-mistral).", "the checkpoint's own, if it is known", "NAME", "profile",
        path="conversation.profile")
    system_prompt: str | None = flag("System prompt of every conversation; an empty text means none.",
        "the profile's", "TEXT", path="conversation.system_prompt")
    chat_template: str | None = flag("Chat template: a Jinja file, or a built-in one (vicuna_v1, "
        "mistral_instruct).", "the profile's, else the checkpoint's", "FILE",
        path="conversation.chat_template")
    trust_remote_code: bool | None = flag("Run Python code that comes with the model's repository.")
    engine: str | None = flag("Where the model runs: `hf` loads it here, `vllm` starts vLLM for it, `openai` "
        "asks a server (--base-url).", "hf", values="engine")


@dataclass(frozen=True)
class Adapters:
    """Adapters that were trained elsewhere."""

    panel: ClassVar[str] = "Model"

    adapter: list[str] | None = flag("PEFT adapter to evaluate beside the model: a folder or a Hugging Face "
        "id, with NAME= before it to name its row. Repeatable.", metavar="[NAME=]ADAPTER", path="adapters")


@dataclass(frozen=True)
class Methods:
    """What is trained."""

    panel: ClassVar[str] = "Method and evaluation"

    method: list[str] | None = flag("Method to train and compare: a name or a plug-in file (`./mine.py`). "
        "Repeatable.", "stic", values="method", path="methods")
    seed: list[int] | None = flag("Training seed. Repeatable.", "0", path="seeds")


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated."""

    panel: ClassVar[str] = "Method and evaluation"

    benchmarks: str | None = flag("Comma-separated names or plug-in files; `all` means every built-in "
        "benchmark.", "all", values="benchmark", names="--benchmarks --tasks")
    protocol: Protocol = None
    dar: bool | None = flag("Answer both with and without describe-and-respond, or only without.",
        "the method's choice", names="--dar/--no-dar")
    solver: list[str] | None = flag("How answers are obtained: a name or a plug-in file. Repeatable; each "
        "gets a row.", "the method's choice", values="solver", path="solvers")
    limit: str | None = flag("Rows of each benchmark: a number, or a fraction such as 0.1.", "all rows")


@dataclass(frozen=True)
class Training:
    """What training reads, and how it goes."""

    panel: ClassVar[str] = "Data"

    images: Path | None = flag("Unlabeled images for stage 1: a folder, a list (text or JSON), webdataset "
        "shards, a data set on disk, or drawn ones (`pocket:scenes`, `pocket:benchmarks`).")
    sft_data: str | None = flag("Instruction data for stage 2: a LLaVA-format JSON file or a data set.")
    pairs: Path | None = flag("Preference pairs to train on (`stic-eval import pairs`), instead of the first "
        "ones that a method would make.", path="pairs_file")
    image_root: Path | None = flag("Folder that image paths in --sft-data, and names in a list of --images, "
        "start from; `/` allows absolute paths.", "the folder of the file")
    # Under a heading of its own: its names take the room that the help of others beside it needs.
    gradient_checkpointing: bool | None = flag("Gradient checkpointing in training: less memory, more time.",
        "depends on the memory", names="--gradient-checkpointing/--no-gradient-checkpointing",
        panel="Memory")
    nodes: int | None = flag("Nodes of a SLURM allocation that train together.", "1", min=1, panel="Machine")
    strategy: str | None = flag("How several GPUs train: ddp (each has the whole model), fsdp2 or zero3 "
        "(each has a part), or an accelerate configuration file.", "ddp", "NAME|FILE", panel="Machine")


@dataclass(frozen=True)
class Settings:
    """Settings by the dozen, and one by one."""

    panel: ClassVar[str] = "Configuration"

    prompts: Path | None = flag("Prompts for training: a file, or a built-in set (`stic`, `pocket`).",
        panel="Data")
    preset: str | None = flag("Built-in settings (`stic-eval ls presets`).", "pocket for the model pocket",
        values="preset", path="")
    config: Path | None = flag("YAML file with settings, such as another run's config.yaml.", path="")
    option: list[str] | None = flag("Any setting, e.g. `-o stage1.beta=0.05`. Repeatable.",
        metavar="KEY.SUB=VALUE", names="--option -o", path="")


@dataclass(frozen=True)
class Judge:
    """The model that grades answers."""

    panel: ClassVar[str] = "Judge"

    judge: str | None = flag("Model that grades the answers that rules cannot score, by its name on the "
        "server.", metavar="MODEL", path="judge.model")
    judge_base_url: str | None = flag("OpenAI-compatible server of the judge.", "https://api.openai.com/v1",
        path="judge.base_url")
    judge_api_key_env: str | None = flag("Environment variable with the judge's key; an empty name means no "
        "key.", "OPENAI_API_KEY", "NAME", path="judge.api_key_env")
    judge_protocol: str | None = flag("Prompts: `official` (as published, taken from lmms-eval), "
        "`stic-eval-1`, or `auto`.", "auto", path="judge.protocol")
    judge_samples: int | None = flag("How often each answer is graded; the mean counts, and the spread is "
        "recorded.", "1", path="judge.samples")
    judge_max_requests: int | None = flag("Maximum number of requests, retries included.", "no limit",
        path="judge.max_requests")


@dataclass(frozen=True)
class Server:
    """The server that has the model, with `--engine openai` or `--engine vllm`."""

    panel: ClassVar[str] = "Server"

    base_url: list[str] | None = flag("OpenAI-compatible server, e.g. http://localhost:8000/v1. Separate "
        "several servers of the same model with commas. Repeatable.", metavar="URL", path="server.base_url",
        read=read_addresses)
    model_id: str | None = flag("Which model the server has, so that its answers are reused at any address: "
        "a folder or Hugging Face id of its weights, or `pocket`, and methods are then trained here and the "
        "server loads their adapters; or any other name.", metavar="MODEL", path="server.model_id")
    api_key_env: str | None = flag("Environment variable with the server's key.", "no key", "NAME",
        path="server.api_key_env")
    adapter_name: list[str] | None = flag("The server's name for a method's adapter, e.g. `stic=my-lora`. "
        "Repeatable.", metavar="METHOD=NAME", path="server.adapters", read=read_adapter_names)
    serve_command: str | None = flag("Command that starts vLLM; model and options are appended.",
        "`vllm serve`, if it is found", "COMMAND", path="server.command")
    tensor_parallel: int | None = flag("Number of GPUs over which each vLLM server splits the model.",
        "1", min=1, path="server.tensor_parallel")
    concurrency: int | None = flag("Requests in flight at once, for each server.", "16",
        path="server.concurrency")
    timeout: float | None = flag("Seconds that a request may take.", "300", path="server.timeout")


@dataclass(frozen=True)
class Access:
    """What may be downloaded."""

    panel: ClassVar[str] = "Data"

    allow_remote_images: RemoteImages = None


@dataclass(frozen=True)
class Machine:
    """What the computation runs on, and in which type of number."""

    panel: ClassVar[str] = "Machine"

    offline: Offline = None
    device: str | None = flag("auto, cpu, cuda or mps.", "auto")
    gpus: str | None = flag("Number of GPUs, or `auto` for all: each trains in a process of its own, and has "
        "a server with --engine vllm. With --device cpu, the number of processes. Does not change results.",
        "1", read=read_gpus)
    dtype: str | None = flag("auto, float32, bfloat16 or float16.", "auto")
    batch_size: str | None = flag("Requests in a batch, or `auto`. Does not change results.", "auto",
        read=read_batch_size)
    attn: str | None = flag("Attention: sdpa, eager, flash_attention_2, ...", "transformers' choice", "NAME")
    load_in_4bit: bool | None = flag("Load weights in 4 bits (NF4, bitsandbytes).")
    load_in_8bit: bool | None = flag("Load weights in 8 bits (bitsandbytes).")


@dataclass(frozen=True)
class Output:
    """Where results go, and what is printed on the way."""

    panel: ClassVar[str] = "Output"

    output: Path | None = flag("Folder for the results.", "results/<model>-<methods>-<key>",
        names="--output --output-path")
    report_to: list[str] | None = flag("Experiment tracker that gets training curves and final scores as "
        "well: trackio, wandb, tensorboard or mlflow, each an extra of this package. Repeatable.", "none",
        "TRACKER", read=read_trackers)
    dry_run: bool = flag("Print the plan and an estimate, and compute nothing.", path="", value=False)
    resume: bool = flag("Reuse what is cached, or compute everything again.", names="--resume/--fresh",
        path="", value=True)
    verbose: bool = flag("Print the lines of the log as well.", names="--verbose -v", path="", value=False)
    quiet: Quiet = False
# fmt: on


SETS: tuple[type, ...] = (
    Model, Adapters, Methods, Evaluation, Training, Settings, Judge, Server, Access, Machine, Output,
)  # fmt: skip


@cache
def flags_of(kind: type) -> tuple[tuple[str, Any, Flag], ...]:
    """The options of a set: the parameter's name, its type, and the declaration."""
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for one in fields(kind):
        hint, own = hints[one.name], one.metadata.get("flag")
        found.append((one.name, hint, own) if own else (one.name, hint.__origin__, hint.__metadata__[0]))
    return tuple(found)


def given(*sets: object) -> dict[str, Any]:
    """What the options of sets were given, by their parameters' names; those that were not are left out."""
    kinds: list[tuple[object, Any]] = [(one, type(one)) for one in sets]
    values = {name: getattr(one, name) for one, kind in kinds for name, _, _ in flags_of(kind)}
    return {name: value for name, value in values.items() if value not in (None, [])}


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their paths.

    Args:
        values: What options were given, by their parameters' names (`judge`), or settings, by their own
            (`seeds`). Of a name that means both, a mapping is the setting. None: not given.

    Raises:
        UserError: A value cannot be read, or two names are given for one setting.
    """
    declared = {name: own for kind in SETS for name, _, own in flags_of(kind) if own.path != ""}
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    for name, value in values.items():
        if value is None:
            continue
        own = declared.get(name)
        setting = own is None or (isinstance(value, Mapping) and not own.read)
        path = name if setting or own is None else own.path or name
        if path in found:
            raise UserError(f"{name}: with {names[path]} as well; give only one of them")
        names[path] = name
        found[path] = value if setting or own is None or own.read is None else own.read(value)
    return found


def name_of(path: str) -> str | None:
    """What the option of a setting is called, e.g. `--judge` for `judge.model`; None: it has none."""
    return _names().get(path)


@cache
def _names() -> dict[str, str]:
    return {
        own.path or name: own.names_of(name)[0].partition("/")[0]
        for kind in SETS
        for name, _, own in flags_of(kind)
        if own.path != ""
    }
