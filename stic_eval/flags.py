"""The options that commands share, each declared once: its name, the setting that it is, and its help.

A command takes whole sets of them (`stic_eval.cli.options`), and a message about a setting names its option
(`name_of`). An option of a single command is declared in that command, in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_type_hints

from stic_eval.errors import UserError


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
    """

    names: str = ""
    path: str | None = None
    read: Callable[[Any], Any] | None = None
    panel: str = ""
    min: float | None = None
    max: float | None = None

    def names_of(self, parameter: str) -> list[str]:
        """Its names, if a parameter of that name is declared so."""
        return self.names.split() or ["--" + parameter.replace("_", "-")]


def _batch_size(text: str) -> int | str:
    if text != "auto" and not text.strip().isdecimal():
        raise UserError(f"--batch-size {text}: give a number, 1 or more, or auto")
    return text if text == "auto" else int(text)


def _adapter_names(items: list[str]) -> dict[str, str]:
    found = {}
    for item in items:
        method, equals, name = (part.strip() for part in item.partition("="))
        if not (method and equals and name):
            raise UserError(f"--adapter-name {item}: give METHOD=NAME, e.g. stic=my-lora")
        found[method] = name
    return found


# Options that commands take one by one, outside of sets as well as in them.
Protocol = Annotated[
    str | None,
    Flag("Prompts and scoring rules, of the benchmarks that offer both: `llava` or `lmms`.",
         "each benchmark's own", panel="Method and evaluation"),
]  # fmt: skip
RemoteImages = Annotated[
    bool | None,
    Flag("Download images that rows give as http(s) addresses.", names="--allow-remote-images", panel="Data"),
]
Offline = Annotated[
    bool | None,
    Flag("Use only models and data sets that are already in the local hub cache.", panel="Machine"),
]
Quiet = Annotated[
    bool, Flag("Print only the result and errors.", names="--quiet -q", path="", panel="Output")
]
Jobs = Annotated[
    int, Flag("Number of worker processes.", names="--jobs -j", min=1, max=256, panel="Machine")
]
Benchmark = Annotated[str, Argument("Benchmark (`stic-eval ls benchmarks`).", values="benchmark")]
JsonFile = Annotated[Path | None, Flag("Also write everything to this JSON file.", names="--json")]
Run = Annotated[str, Argument("A run: its folder, or its name under results/.", values="run")]


@dataclass(frozen=True)
class Model:
    """Which model is asked, and how."""

    panel: ClassVar[str] = "Model"

    model: Annotated[
        str | None,
        Flag("`pocket` (built in), a local folder, a Hugging Face id, or a model on a server.", "pocket"),
    ] = None
    revision: Annotated[str | None, Flag("Branch, tag or commit of the model on the hub.")] = None
    profile: Annotated[
        str | None,
        Flag("How the model is prompted: `none`, or a conversation profile (llava-1.5, llava-1.6-vicuna, "
             "llava-1.6-mistral).", "the checkpoint's own, if it is known",
             "NAME", "profile", path="conversation.profile"),
    ] = None  # fmt: skip
    system_prompt: Annotated[
        str | None,
        Flag("System prompt of every conversation; an empty text means none.", "the profile's", "TEXT",
             path="conversation.system_prompt"),
    ] = None  # fmt: skip
    chat_template: Annotated[
        str | None,
        Flag("Chat template: a Jinja file, or a built-in one (vicuna_v1, mistral_instruct).",
             "the profile's, else the checkpoint's", "FILE", path="conversation.chat_template"),
    ] = None  # fmt: skip
    trust_remote_code: Annotated[
        bool | None, Flag("Run Python code that comes with the model's repository.")
    ] = None
    engine: Annotated[
        str | None,
        Flag("Where the model runs: `hf` loads it here, `openai` asks a server (--base-url).", "hf",
             values="engine"),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class Adapters:
    """Adapters that were trained elsewhere."""

    panel: ClassVar[str] = "Model"

    adapter: Annotated[
        list[str] | None,
        Flag("PEFT adapter to evaluate beside the model: a folder or a Hugging Face id. Repeatable.",
             metavar="DIR", path="adapters"),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class Methods:
    """What is trained."""

    panel: ClassVar[str] = "Method and evaluation"

    method: Annotated[
        list[str] | None,
        Flag("Method to train and compare: a name or a plug-in file (`./mine.py`). Repeatable.", "stic",
             values="method", path="methods"),
    ] = None  # fmt: skip
    seed: Annotated[list[int] | None, Flag("Training seed. Repeatable.", "0", path="seeds")] = None


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated."""

    panel: ClassVar[str] = "Method and evaluation"

    benchmarks: Annotated[
        str | None,
        Flag("Comma-separated names or plug-in files; `all` means every built-in benchmark.", "all",
             values="benchmark", names="--benchmarks --tasks"),
    ] = None  # fmt: skip
    protocol: Protocol = None
    dar: Annotated[
        bool | None,
        Flag("Answer both with and without describe-and-respond, or only without.", "the method's choice",
             names="--dar/--no-dar"),
    ] = None  # fmt: skip
    solver: Annotated[
        list[str] | None,
        Flag("How answers are obtained: a name or a plug-in file. Repeatable; each gets a row.",
             "the method's choice", values="solver", path="solvers"),
    ] = None  # fmt: skip
    limit: Annotated[
        str | None, Flag("Rows of each benchmark: a number, or a fraction such as 0.1.", "all rows")
    ] = None


@dataclass(frozen=True)
class Training:
    """What training reads, and how it goes."""

    panel: ClassVar[str] = "Data"

    images: Annotated[
        Path | None, Flag("Unlabeled images for stage 1: a folder, or a file that lists images.")
    ] = None
    sft_data: Annotated[
        str | None, Flag("Instruction data for stage 2: a LLaVA-format JSON file or a data set.")
    ] = None
    pairs: Annotated[
        Path | None,
        Flag("Preference pairs (`stic-eval import pairs`) in place of the first that a method would make.",
             path="pairs_file"),
    ] = None  # fmt: skip
    image_root: Annotated[
        Path | None,
        Flag("Folder that relative image paths in --sft-data start from.", "the folder of --sft-data"),
    ] = None
    gradient_checkpointing: Annotated[
        bool | None,
        # A narrow terminal cuts both names off.
        Flag("Gradient checkpointing in training: less memory, more time.", "depends on device and size",
             names="--gradient-checkpointing/--no-gradient-checkpointing", panel="Machine"),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Settings by the dozen, and one by one."""

    panel: ClassVar[str] = "Configuration"

    prompts: Annotated[
        Path | None, Flag("Prompts for training: a file, or a built-in set (`stic`, `pocket`).", panel="Data")
    ] = None
    preset: Annotated[
        str | None,
        Flag("Built-in settings (`stic-eval ls presets`).", "pocket for the model pocket", values="preset",
             path=""),
    ] = None  # fmt: skip
    config: Annotated[
        Path | None, Flag("Settings in YAML, such as another run's config.yaml.", path="")
    ] = None
    option: Annotated[
        list[str] | None,
        Flag("Any setting, e.g. `-o stage1.beta=0.05`. Repeatable.", metavar="KEY.SUB=VALUE",
             names="--option -o", path=""),
    ] = None  # fmt: skip


@dataclass(frozen=True)
class Judge:
    """The model that grades answers."""

    panel: ClassVar[str] = "Judge"

    judge: Annotated[
        str | None,
        Flag("Model that grades the answers that rules cannot score, by its name on the server.",
             metavar="MODEL", path="judge.model"),
    ] = None  # fmt: skip
    judge_base_url: Annotated[
        str | None,
        Flag("Its OpenAI-compatible server.", "https://api.openai.com/v1", path="judge.base_url"),
    ] = None
    judge_api_key_env: Annotated[
        str | None,
        Flag("Environment variable that holds the key; an empty name means no key.", "OPENAI_API_KEY", "NAME",
             path="judge.api_key_env"),
    ] = None  # fmt: skip
    judge_protocol: Annotated[
        str | None,
        Flag("Prompts: `official` (as published, taken from lmms-eval), `stic-eval-1`, or `auto`.", "auto",
             path="judge.protocol"),
    ] = None  # fmt: skip
    judge_samples: Annotated[
        int | None,
        Flag("How often each answer is graded; the mean counts, and the spread is recorded.", "1",
             path="judge.samples"),
    ] = None  # fmt: skip
    judge_max_requests: Annotated[
        int | None,
        Flag("Most requests that may be sent, retries included.", "no limit", path="judge.max_requests"),
    ] = None


@dataclass(frozen=True)
class Server:
    """The server that has the model, with `--engine openai`."""

    panel: ClassVar[str] = "Server"

    base_url: Annotated[
        str | None,
        Flag("OpenAI-compatible server, e.g. http://localhost:8000/v1.", path="server.base_url"),
    ] = None
    api_key_env: Annotated[
        str | None,
        Flag("Environment variable that holds the key.", "no key", "NAME", path="server.api_key_env"),
    ] = None
    adapter_name: Annotated[
        list[str] | None,
        Flag("The server's name for a method's adapter, e.g. `stic=my-lora`. Repeatable.",
             metavar="METHOD=NAME", path="server.adapters", read=_adapter_names),
    ] = None  # fmt: skip
    concurrency: Annotated[
        int | None, Flag("Requests in flight at once.", "16", path="server.concurrency")
    ] = None
    timeout: Annotated[
        float | None, Flag("Seconds that a request may take.", "300", path="server.timeout")
    ] = None


@dataclass(frozen=True)
class Access:
    """What may be downloaded."""

    panel: ClassVar[str] = "Data"

    allow_remote_images: RemoteImages = None


@dataclass(frozen=True)
class Machine:
    """Where and in which numbers is computed."""

    panel: ClassVar[str] = "Machine"

    offline: Offline = None
    device: Annotated[str | None, Flag("auto, cpu, cuda or mps.", "auto")] = None
    dtype: Annotated[str | None, Flag("auto, float32, bfloat16 or float16.", "auto")] = None
    batch_size: Annotated[
        str | None,
        Flag("Requests in a batch, or `auto`. Does not change results.", "auto", read=_batch_size),
    ] = None
    attn: Annotated[
        str | None,
        Flag("Attention: sdpa, eager, flash_attention_2, ...", "transformers' choice", "NAME"),
    ] = None
    load_in_4bit: Annotated[bool | None, Flag("Load weights in 4 bits (NF4, bitsandbytes).")] = None
    load_in_8bit: Annotated[bool | None, Flag("Load weights in 8 bits (bitsandbytes).")] = None


@dataclass(frozen=True)
class Output:
    """Where results go, and what is printed on the way."""

    panel: ClassVar[str] = "Output"

    output: Annotated[
        Path | None,
        Flag("Folder for the results.", "results/<model>-<methods>-<key>", names="--output --output-path"),
    ] = None
    dry_run: Annotated[bool, Flag("Print the plan and an estimate, and compute nothing.", path="")] = False
    resume: Annotated[
        bool,
        Flag("Reuse what is cached, or compute everything again.", names="--resume/--fresh", path=""),
    ] = True
    verbose: Annotated[
        bool, Flag("Print the lines of the log as well.", names="--verbose -v", path="")
    ] = False
    quiet: Quiet = False


SETS: tuple[type, ...] = (
    Model, Adapters, Methods, Evaluation, Training, Settings, Judge, Server, Access, Machine, Output,
)  # fmt: skip


@cache
def declared(kind: type) -> tuple[tuple[str, Any, Flag], ...]:
    """The options of a set: the parameter's name, its type, and the declaration."""
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        (field.name, hints[field.name].__origin__, flag)
        for field in fields(kind)
        for flag in hints[field.name].__metadata__
    )


def settings(given: object) -> Iterator[tuple[str, Any]]:
    """What a set's options were given, each by the path of its setting; those that were not are left out."""
    for name, _, flag in declared(type(given)):
        value = getattr(given, name)
        if flag.path != "" and value not in (None, []):
            yield flag.path or name, flag.read(value) if flag.read else value


def name_of(path: str) -> str | None:
    """What the option of a setting is called, e.g. `--judge` for `judge.model`; None: it has none."""
    return _names().get(path)


@cache
def _names() -> dict[str, str]:
    return {
        flag.path or name: flag.names_of(name)[0].partition("/")[0]
        for kind in SETS
        for name, _, flag in declared(kind)
        if flag.path != ""
    }
