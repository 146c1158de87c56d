"""The options that `run`, `train` and `eval` share, and the configuration they amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from stic_eval.config import RunConfig

_MODEL, _DATA, _CONFIG = "Model", "Data", "Configuration"
_METHOD, _OUTPUT, _MACHINE = "Method and evaluation", "Output", "Machine"
_JUDGE, _SERVER = "Judge", "Server"

Model = Annotated[
    str | None,
    typer.Option(
        help="`pocket` (embedded), a folder, a Hugging Face hub id, or a server's model.",
        show_default="pocket", rich_help_panel=_MODEL,
    ),
]  # fmt: skip
Engine = Annotated[
    str | None,
    typer.Option(help="`hf` loads the model here, `openai` asks a server that has it (--base-url).",
                 show_default="hf", rich_help_panel=_MODEL),
]  # fmt: skip
BaseUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible server, e.g. http://localhost:8000/v1.", show_default=False,
                 rich_help_panel=_SERVER),
]  # fmt: skip
ApiKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Environment variable that holds the key.", show_default="no key",
                 rich_help_panel=_SERVER),
]  # fmt: skip
AdapterNames = Annotated[
    list[str] | None,
    typer.Option("--adapter-name", metavar="METHOD=NAME", rich_help_panel=_SERVER,
                 help="What the server calls a method's adapter, e.g. `stic=my-lora`; repeatable."),
]  # fmt: skip
Concurrency = Annotated[
    int | None,
    typer.Option(help="Requests in flight.", show_default="16", rich_help_panel=_SERVER),
]
Timeout = Annotated[
    float | None,
    typer.Option(help="Seconds for a request.", show_default="300", rich_help_panel=_SERVER),
]
Profile = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How the model is asked: `none`, or a conversation profile "
                 "(llava-1.5, llava-1.6-vicuna, llava-1.6-mistral).",
                 show_default="the checkpoint's, where it is certain", rich_help_panel=_MODEL),
]  # fmt: skip
SystemPrompt = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What conversations begin with; empty for nothing.",
                 show_default="the profile's", rich_help_panel=_MODEL),
]  # fmt: skip
ChatTemplate = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Chat template in Jinja, or shipped: vicuna_v1, mistral_instruct.",
                 show_default="the profile's, else the checkpoint's", rich_help_panel=_MODEL),
]  # fmt: skip
Revision = Annotated[str | None, typer.Option(help="Hub revision of the model.", rich_help_panel=_MODEL)]
TrustRemoteCode = Annotated[
    bool | None,
    typer.Option(
        "--trust-remote-code", help="Execute code from the model's repository.", rich_help_panel=_MODEL
    ),
]
Adapters = Annotated[
    list[Path] | None,
    typer.Option("--adapter", metavar="DIR", rich_help_panel=_MODEL,
                 help="PEFT adapter of somebody's, evaluated beside the model; repeatable."),
]  # fmt: skip
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", show_default="stic", rich_help_panel=_METHOD,
                 help="Method to train and compare, by name or plug-in file (`./mine.py`); repeatable."),
]  # fmt: skip
Benchmarks = Annotated[
    str | None,
    typer.Option(help="Comma-separated names and plug-in files, or `all`: those built in.",
                 show_default="all", rich_help_panel=_METHOD),
]  # fmt: skip
Protocol = Annotated[
    str | None,
    typer.Option(help="Prompts and reading of the benchmarks that know it: `llava` or `lmms`.",
                 show_default="each benchmark's own", rich_help_panel=_METHOD),
]  # fmt: skip
Judge = Annotated[
    str | None,
    typer.Option("--judge", metavar="MODEL", rich_help_panel=_JUDGE,
                 help="Model that grades what rules leave open, by its name at the server."),
]  # fmt: skip
JudgeBaseUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible server.", show_default="https://api.openai.com/v1",
                 rich_help_panel=_JUDGE),
]  # fmt: skip
JudgeApiKeyEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Environment variable that holds the key; empty for none.",
                 show_default="OPENAI_API_KEY", rich_help_panel=_JUDGE),
]  # fmt: skip
JudgeProtocol = Annotated[
    str | None,
    typer.Option(help="`official` (published prompts, from lmms-eval), `stic-eval-1`, or `auto`.",
                 show_default="auto", rich_help_panel=_JUDGE),
]  # fmt: skip
JudgeSamples = Annotated[
    int | None,
    typer.Option(help="Replies a sample; their mean counts, their spread is recorded.", show_default="1",
                 rich_help_panel=_JUDGE),
]  # fmt: skip
JudgeMaxRequests = Annotated[
    int | None,
    typer.Option(
        help="Cap on requests sent, repetitions included.", show_default="none", rich_help_panel=_JUDGE
    ),
]
AllowRemoteImages = Annotated[
    bool | None,
    typer.Option("--allow-remote-images", help="Fetch images that rows name by http(s) address.",
                 rich_help_panel=_DATA),
]  # fmt: skip
Offline = Annotated[
    bool | None,
    typer.Option("--offline", help="Take models and data sets from the hub's local cache alone.",
                 rich_help_panel=_MACHINE),
]  # fmt: skip
Dar = Annotated[
    bool | None,
    typer.Option("--dar/--no-dar", help="Methods with and without describe-and-respond, or all without.",
                 show_default="as the method says", rich_help_panel=_METHOD),
]  # fmt: skip
Solvers = Annotated[
    list[str] | None,
    typer.Option("--solver", show_default="as the method says", rich_help_panel=_METHOD,
                 help="How answers are obtained, by name or plug-in file; repeatable: a row with each."),
]  # fmt: skip
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Training seed; repeatable.", show_default="0", rich_help_panel=_METHOD),
]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", min=1, max=256, help="Worker processes.", rich_help_panel=_MACHINE)
]
Limit = Annotated[
    str | None,
    typer.Option(help="Rows of each benchmark: a number, or a fraction such as 0.1.", show_default="all rows",
                 rich_help_panel=_METHOD),
]  # fmt: skip
Images = Annotated[
    Path | None,
    typer.Option(help="Unlabeled images for stage 1: a folder, a file that lists images, or drawn ones "
                 "(`pocket:scenes`, `pocket:benchmarks`).", rich_help_panel=_DATA),
]  # fmt: skip
SftData = Annotated[
    str | None,
    typer.Option(
        help="Instruction data for stage 2: LLaVA-format JSON or a data set.", rich_help_panel=_DATA
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(help="Pairs made elsewhere (`stic-eval import pairs`), instead of a method's first ones.",
                 rich_help_panel=_DATA),
]  # fmt: skip
ImageRoot = Annotated[
    Path | None,
    typer.Option(help="Where relative image paths of --sft-data start.",
                 show_default="the folder of --sft-data", rich_help_panel=_DATA),
]  # fmt: skip
Prompts = Annotated[
    Path | None,
    typer.Option(help="Prompt set: a file, or a shipped one (`stic`, `pocket`).", rich_help_panel=_DATA),
]
Preset = Annotated[
    str | None,
    typer.Option(help="Shipped settings (`stic-eval ls presets`).",
                 show_default="pocket for the model pocket", rich_help_panel=_CONFIG),
]  # fmt: skip
Config = Annotated[
    Path | None,
    typer.Option(help="Settings in YAML, e.g. config.yaml of another run.", rich_help_panel=_CONFIG),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY.SUB=VALUE",
                 help="One setting, e.g. `-o stage1.beta=0.05`; repeatable.",
                 rich_help_panel=_CONFIG),
]  # fmt: skip
BenchmarkOptions = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE",
                 help="An option of the benchmark, e.g. `-o strict=true`, or of the judge, e.g. "
                 "`-o judge.timeout=120`; repeatable."),
]  # fmt: skip
Output = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the run.", show_default="results/<model>-<methods>-<key>", rich_help_panel=_OUTPUT
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan and an estimate; do nothing.", rich_help_panel=_OUTPUT),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume/--fresh", help="Reuse what is cached, or compute this run anew.", rich_help_panel=_OUTPUT
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log lines too.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Result and errors only.", rich_help_panel=_OUTPUT)
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or mps.", show_default="auto", rich_help_panel=_MACHINE)
]
Dtype = Annotated[
    str | None,
    typer.Option(help="auto, float32, bfloat16 or float16.", show_default="auto", rich_help_panel=_MACHINE),
]
BatchSize = Annotated[
    str | None,
    typer.Option(help="Requests in a batch, or `auto`. Does not change results.", show_default="auto",
                 rich_help_panel=_MACHINE),
]  # fmt: skip

Attn = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Attention: sdpa, eager, flash_attention_2, ...",
                 show_default="transformers' choice", rich_help_panel=_MACHINE),
]  # fmt: skip
LoadIn4bit = Annotated[
    bool | None,
    typer.Option("--load-in-4bit", help="Weights in 4 bits (NF4, bitsandbytes).", rich_help_panel=_MACHINE),
]
LoadIn8bit = Annotated[
    bool | None,
    typer.Option("--load-in-8bit", help="Weights in 8 bits (bitsandbytes).", rich_help_panel=_MACHINE),
]
GradientCheckpointing = Annotated[
    bool | None,
    typer.Option("--gradient-checkpointing/--no-gradient-checkpointing",
                 # A narrow terminal cuts both names off.
                 help="Gradient checkpointing in training: less memory, more time.",
                 show_default="by device and size", rich_help_panel=_MACHINE),
]  # fmt: skip


# Parameters of commands that are called otherwise in RunConfig, and those that are none of its fields.
_FIELDS = {
    "method": "methods", "seed": "seeds", "adapter": "adapters", "pairs": "pairs_file", "solver": "solvers",
    "adapter_name": "adapter_names",
}  # fmt: skip
_OF_THE_COMMAND = ("preset", "config", "option", "jobs", "dry_run", "resume", "verbose", "quiet")


def given(values: Mapping[str, Any], without: Sequence[str] = ()) -> dict[str, Any]:
    """What a command was given, as fields of RunConfig; None: not given.

    Args:
        values: Its parameters.
        without: Those that are no setting of a run, beside what all commands have of such.
    """
    apart = {*_OF_THE_COMMAND, *without}
    return {
        _FIELDS.get(n, n): None if value == [] else value for n, value in values.items() if n not in apart
    }


def configure(
    preset: str | None, file: Path | None, overrides: list[str] | None, flags: Mapping[str, Any]
) -> RunConfig:
    """Turns command-line values into a validated RunConfig.

    Raises:
        UserError: A value does not fit, or names something that does not exist.
    """
    from stic_eval import config
    from stic_eval.errors import UserError

    given = dict(flags)
    if given.get("solvers") and given.get("dar") is not None:
        raise UserError(f"--{'' if given['dar'] else 'no-'}dar: with --solver as well; give one of both")
    judge = {name.removeprefix("judge_"): given.pop(name) for name in [*given] if name.startswith("judge")}
    judge["model"] = judge.pop("judge", None)
    given["judge"] = {name: value for name, value in judge.items() if value is not None} or None
    given["server"] = _server(given) or None
    asked = {name: given.pop(name, None) for name in ("profile", "system_prompt", "chat_template")}
    given["conversation"] = {name: value for name, value in asked.items() if value is not None} or None
    if given.get("batch_size") not in (None, "auto"):
        given["batch_size"] = _integer("--batch-size", given["batch_size"])
    built = config.load(preset=preset, file=file, flags=given, overrides=overrides or ())
    config.go_offline(built.offline)
    return built


def _server(given: dict[str, Any]) -> dict[str, Any]:
    """Takes what was said about the server out of the flags, as its own settings."""
    from stic_eval.errors import UserError

    names = ("base_url", "api_key_env", "concurrency", "timeout")
    found = {name: value for name in names if (value := given.pop(name, None)) is not None}
    for item in given.pop("adapter_names", None) or ():
        method, equals, name = (part.strip() for part in item.partition("="))
        if not (method and equals and name):
            raise UserError(f"--adapter-name {item}: give METHOD=NAME, e.g. stic=my-lora")
        found.setdefault("adapters", {})[method] = name
    return found


def of_benchmark(benchmark: str, item: str) -> str:
    """An `-o` item of a command about one benchmark as `run` would have it."""
    head = item.partition("=")[0].partition(".")[0].strip()
    apart = ("benchmarks", "benchmark_options", "judge", "thinking")
    return item if head in apart else f"benchmarks.{benchmark}.{item}"


def _integer(flag: str, text: str) -> int:
    from stic_eval.errors import UserError

    if not text.strip().isdecimal():
        raise UserError(f"{flag} {text}: give a number, 1 or more, or auto")
    return int(text)
