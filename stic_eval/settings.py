"""The settings of a run as one frozen, validated value. How they are put together: `stic_eval.config`."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from stic_eval import registry
from stic_eval.adapter_references import adapter_content, adapter_name, split_adapter
from stic_eval.dar_setting import DESCRIBE, USES, expand_all
from stic_eval.errors import shorten
from stic_eval.flag_values import Tracker
from stic_eval.profiles import ConversationConfig
from stic_eval.setting_groups import JudgeConfig, ServerConfig, ThinkingConfig, TrainingConfig

Limit = int | float
# Of methods' options what came later: left out of a run's key where it is not used.
_LATER: dict[str, Any] = {"loss": "sigmoid", "loss_constants": {}}


def _without_later(options: dict[str, Any]) -> dict[str, Any]:
    used = {name: value for name, value in options.items() if name not in _LATER or _LATER[name] != value}
    return {name: _without_later(value) if isinstance(value, dict) else value for name, value in used.items()}


class RunConfig(BaseModel):
    """One run.

    Attributes:
        model: `pocket`, a folder, or a Hugging Face hub id; its name at the server for the engine `openai`.
        revision: Hub revision of the model.
        preset: Name of the preset that was applied, if any.
        methods: Registry names. The baseline is always evaluated, named or not.
        benchmarks: Registry names; `all` stands for every one that is built in.
        protocol: What every benchmark that knows it is asked and read by, e.g. `lmms`; None: the default.
        benchmark_options: Benchmark name -> its options, complete after `load`.
        conversation: How the model is asked: profile, system prompt, chat template.
        processor: Arguments of the image processor, e.g. `do_pad`, `max_pixels`.
        images: Stage 1's unlabeled images: a folder, a list (text or JSON), webdataset shards, a data set on
            disk, or pictures of the embedded world, `pocket:scenes` (what the model pocket has anyway) or
            `pocket:benchmarks`.
        sft_data: LLaVA-format JSON or a data set on disk: stage 2's instruction data.
        image_root: Where image paths of `sft_data`, and names in a list of `images`, start; default: the
            file's folder.
        prompts: Prompt set: name of a shipped one, or a file; None: `stic`.
        pairs_file: Preference pairs made elsewhere, in a file that `import pairs` wrote: they take the place
            of the first ones that a method would make.
        adapters: Folders of PEFT adapters that were trained elsewhere, evaluated beside the model;
            `NAME=FOLDER` gives one a name.
        adapter_names: Folder -> its adapter's name in tables and commands, of those that were given one.
        rows: Benchmark -> where its rows come from: `pocket`, `hub` (its own data set), or a path; and
            `BENCHMARK.root` -> the folder that paths of images in them start at. A single value holds for
            all; `auto` is `pocket` for the model pocket and `hub` otherwise.
        limit: Rows of each benchmark: a count, a fraction below 1, or None for all.
        seeds: Training seeds. Test rows do not depend on them.
        solvers: How answers are obtained, by registry name: each method has a row with each, the baseline
            one with `direct` besides; None: with `direct`, and with the solver of the method's plan.
        solver_options: Solver name -> its options, as far as they are given. `dar` is short for both.
        thinking: How what a model thinks is told from what it answers.
        engine: `hf` loads the model here, `vllm` starts servers for it, `openai` asks a server that has it,
            or a plug-in's own.
        device: `auto`, `cpu`, `cuda`, `mps`.
        gpus: GPUs of a node that are used, or `auto`: all. So many processes train together (on the CPU with
            `device` cpu), and `vllm` starts servers on them. Does not change results, nor do `nodes` and
            `strategy`.
        nodes: Nodes of a SLURM allocation that train together.
        strategy: How: `ddp` (the whole model on each), `fsdp2` or `zero3` (sharded among them), or a file: an
            accelerate configuration.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        attn: transformers' `attn_implementation`; None: its own choice. In 16 bits it moves some answers, so
            one that is named has answers of its own.
        load_in_4bit: Weights in 4 bits (NF4), by bitsandbytes.
        load_in_8bit: Weights in 8 bits, by bitsandbytes.
        gradient_checkpointing: Training computes activations twice to save memory; None: where it has to.
        batch_size: Requests in a generation batch, or `auto`. Does not change results.
        output: The run's folder; None: `results/<run name>`.
        report_to: Experiment trackers that get training curves and final scores as well. Changes no result.
        trust_remote_code: Lets transformers execute code from the model's repository.
        allow_remote_images: Lets rows name images by http(s) address; they are fetched once.
        offline: Takes models and data sets from the local cache of the hub alone.
        method_options: Method name -> its constants, complete after `load`.
        plugins: Files that methods and benchmarks of the run come from, beside those of installed packages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str = "pocket"
    revision: str | None = None
    preset: str | None = None
    methods: tuple[str, ...] = ("stic",)
    benchmarks: tuple[str, ...] = ("all",)
    protocol: str | None = None
    benchmark_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    judge: JudgeConfig = JudgeConfig()
    conversation: ConversationConfig = ConversationConfig()
    processor: dict[str, Any] = Field(default_factory=dict)
    images: Path | None = None
    sft_data: str | None = None
    image_root: Path | None = None
    prompts: Path | None = None
    pairs_file: Path | None = None
    adapters: tuple[Path, ...] = ()
    adapter_names: dict[str, str] = Field(default_factory=dict)
    rows: dict[str, str] = Field(default_factory=lambda: {"all": "auto"})
    limit: Limit | None = None
    seeds: Annotated[tuple[Annotated[int, Field(lt=2**32)], ...], Field(max_length=1_000)] = (0,)
    solvers: tuple[str, ...] | None = None
    solver_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    training: TrainingConfig = TrainingConfig()
    thinking: ThinkingConfig = ThinkingConfig()
    engine: str = "hf"
    server: ServerConfig = ServerConfig()
    device: str = "auto"
    gpus: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    nodes: int = Field(default=1, ge=1)
    strategy: str = "ddp"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn: str | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    gradient_checkpointing: bool | None = None
    batch_size: int | Literal["auto"] = "auto"
    output: Path | None = None
    report_to: tuple[Tracker, ...] = ()
    trust_remote_code: bool = False
    allow_remote_images: bool = False
    offline: bool = False
    method_options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    plugins: tuple[str, ...] = ()

    @field_validator("dtype", mode="before")
    @classmethod
    def _dtype(cls, value: object) -> object:
        """Accepts the short names that others take."""
        return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(str(value), value)

    @model_validator(mode="before")
    @classmethod
    def _expand_dar(cls, value: Any) -> Any:
        """Accepts `dar`, which is all that settings of earlier versions have."""
        return expand_all(value) if isinstance(value, Mapping) else value

    @model_validator(mode="before")
    @classmethod
    def _name_adapters(cls, value: Any) -> Any:
        """Takes names off adapters that are given as `NAME=FOLDER`, or as a mapping; others keep theirs."""
        given = value.get("adapters") if isinstance(value, Mapping) else None
        if isinstance(given, Mapping):
            given = [f"{name}={folder}" for name, folder in given.items()]
        elif isinstance(given, (str, Path)):
            given = [given]
        if not isinstance(given, Sequence):
            return value
        parts = [split_adapter(str(one)) for one in given]
        before = value.get("adapter_names")
        names = dict(before) if isinstance(before, Mapping) else {}
        names |= {folder: name for name, folder in parts if name}
        folders = list(dict.fromkeys(folder for _, folder in parts))
        return {
            **value, "adapters": folders,
            "adapter_names": {folder: name for folder, name in names.items() if folder in folders},
        }  # fmt: skip

    @field_validator("methods", "benchmarks", "solvers", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        """Accepts `a,b` as well as a list, and drops repetitions."""
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, Sequence):
            return value
        names = [part.strip() for item in parts for part in str(item).split(",")]
        return tuple(dict.fromkeys(name for name in names if name))

    @field_validator("report_to", mode="before")
    @classmethod
    def _report_to(cls, value: object) -> object:
        """Accepts `a,b` as well as a list, and `none`, as transformers has it."""
        names = cls._names(value)
        return () if names == ("none",) else names

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0:
            raise ValueError("give at least one seed, 0 or larger")
        return tuple(dict.fromkeys(value))

    @field_validator("solvers")
    @classmethod
    def _some_solver(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value == ():
            raise ValueError("give at least one solver")
        return value

    @field_validator("rows", mode="before")
    @classmethod
    def _rows(cls, value: object) -> object:
        return {"all": value} if isinstance(value, str) else value

    @field_validator("images", "image_root", "pairs_file", "output")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        """Expands `~`, which a shell leaves as it is behind `=` and in files."""
        return None if value is None else Path(os.path.expanduser(value))

    @field_validator("images")
    @classmethod
    def _own_images(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        """None for what the embedded model has anyway, so that a run that names it is the same run."""
        return None if str(value) == "pocket:scenes" and info.data.get("model") == "pocket" else value

    @field_validator("rows")
    @classmethod
    def _rows_home(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: os.path.expanduser(where) for name, where in value.items()}

    @field_validator("batch_size")
    @classmethod
    def _batch_size(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("give a number of requests, 1 or more, or auto")
        return value

    @field_validator("limit", mode="before")
    @classmethod
    def _limit(cls, value: object) -> Limit | None:
        if value is None:
            return None
        advice = (
            f"{shorten(str(value))} is neither a number of rows (1 or more) nor a fraction between 0 and 1"
        )
        try:
            number = float(str(value))
        except ValueError:
            raise ValueError(advice) from None
        if not math.isfinite(number):
            raise ValueError(advice)
        if isinstance(value, float) or (isinstance(value, str) and not value.strip().isdecimal()):
            if not 0 < number <= 1:
                raise ValueError(advice)
            return None if number == 1 else number
        if isinstance(value, bool) or number < 1:
            raise ValueError(advice)
        return int(number)

    def rows_root(self, benchmark: str) -> Path | None:
        """Folder that paths of images in a benchmark's rows start at; None: that of their file."""
        root = self.rows.get(f"{benchmark}.root", self.rows.get("all.root"))
        return None if root is None else Path(root)

    def rows_of(self, benchmark: str) -> str:
        """Where a benchmark's rows come from: `pocket`, `hub` or a path."""
        where = self.rows.get(benchmark, self.rows.get("all", "auto"))
        return where if where != "auto" else "pocket" if self.model == "pocket" else "hub"

    def name_of_adapter(self, folder: Path) -> str:
        """What an adapter is called: the name it was given, else its hub id or folder."""
        return self.adapter_names.get(str(folder)) or adapter_name(folder)

    @property
    def quantization(self) -> Literal["4bit", "8bit"] | None:
        """How weights are packed, if they are."""
        return "4bit" if self.load_in_4bit else "8bit" if self.load_in_8bit else None

    @property
    def answering(self) -> dict[str, Any]:
        """What decides answers beside model and dtype; empty for a model in this process as it is."""
        return dict(registry.engines().get(self.engine).answering(self))

    @property
    def dar(self) -> dict[str, Any]:
        """Which solvers there are, in `dar`'s words where it has some, and describe-and-respond's options."""
        uses = [use for use, solvers in USES.items() if solvers == self.solvers]
        options = registry.solvers().get(DESCRIBE).options(**self.solver_options.get(DESCRIBE, {}))
        return {"use": uses[0] if uses else self.solvers, **options.model_dump(mode="json")}

    @property
    def key(self) -> str:
        """Content key of what decides the run's numbers: paths of output, hardware and ways stay out."""
        aside = {
            "output", "device", "batch_size", "preset", "allow_remote_images", "offline", "judge", "engine",
            "server", "solvers", "solver_options", "attn", "load_in_4bit", "load_in_8bit",
            "gradient_checkpointing", "plugins", "gpus", "nodes", "strategy", "adapter_names", "report_to",
        }  # fmt: skip
        # What came to runs later is left out where it is not used, so that the others keep their keys.
        aside |= {name for name in ("pairs_file", "adapters", "processor") if not getattr(self, name)}
        aside |= {"training"} if self.training == TrainingConfig() else set()
        aside |= {"conversation"} if self.conversation == ConversationConfig() else set()
        aside |= set() if self.thinking.changed else {"thinking"}
        content = self.model_dump(mode="json", exclude=aside)
        content |= {"judge": self.judge.grading, "dar": self.dar}
        content["method_options"] = _without_later(content["method_options"])
        if others := {name: own for name, own in self.solver_options.items() if own and name != DESCRIBE}:
            content["solver_options"] = others
        if self.adapters:
            content["adapters"] = [adapter_content(folder) for folder in self.adapters]
        return hashlib.sha256(json.dumps({**content, **self.answering}, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The run's name: model, methods and the first digits of the key."""
        model = re.sub(r"[^\w.-]+", "_", self.model.rstrip("/").split("/")[-1]) or "model"
        named = [
            *self.methods,
            *(re.sub(r"[^\w.-]+", "_", self.name_of_adapter(path)) for path in self.adapters),
        ]
        return f"{model}-{'+'.join(named) or 'baseline'}-{self.key[:8]}"[-120:]

    @property
    def folder(self) -> Path:
        """Where the run keeps its records and tables."""
        return self.output or Path("results") / self.name

    def to_yaml(self) -> str:
        """The configuration as a file that `--config` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
