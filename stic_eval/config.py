"""RunConfig: everything a run depends on, validated once, saved with the run.

Layers, the later the stronger: preset file, config file, flags, `-o key=value`.
An unknown key anywhere is an error that suggests the closest known one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stic_eval import layers, registry
from stic_eval.errors import UserError
from stic_eval.layers import preset_names, read_file, read_preset

__all__ = ["DarConfig", "Limit", "RunConfig", "load", "preset_names", "read_file", "read_preset"]

Limit = int | float


class DarConfig(BaseModel):
    """Describe-and-respond, the two-pass solver.

    Attributes:
        use: True shows every method with and without it, False none, None as the method says.
        prompt: The plain prompt of the first pass; None takes the first plain one of the prompt set.
        separator: Between description and question. The paper has one newline, its code two.
        sees_image: Whether the first pass is given the image. The released MMBench script gives none.
        max_new_tokens: Bound on the description's tokens.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    use: bool | None = None
    prompt: str | None = None
    separator: str = "\n"
    sees_image: bool = True
    max_new_tokens: int = Field(default=1024, ge=1)


class RunConfig(BaseModel):
    """One run.

    Attributes:
        model: `pocket`, a folder, or a Hugging Face hub id.
        revision: Hub revision of the model.
        preset: Name of the preset that was applied, if any.
        methods: Registry names. The baseline is always evaluated, named or not.
        benchmarks: Registry names; `all` stands for every one.
        images: Folder, or a file that lists images: stage 1's unlabeled images.
        sft_data: LLaVA-format JSON or a data set on disk: stage 2's instruction data.
        image_root: Where relative image paths of `sft_data` start; default: its folder.
        prompts: Prompt set: name of a shipped one, or a file; None: `stic`.
        rows: Benchmark -> where its rows come from: `pocket`, `hub` (its own data set), or a path. A
            single value holds for all; `auto` is `pocket` for the model pocket and `hub` otherwise.
        limit: Rows of each benchmark: a count, a fraction below 1, or None for all.
        seeds: Training seeds. Test rows do not depend on them.
        dar: Describe-and-respond; `true`, `false` and `null` are short for its `use`.
        device: `auto`, `cpu`, `cuda`, `mps`.
        dtype: `auto`, `float32`, `bfloat16`, `float16`.
        batch_size: Requests in a generation batch, or `auto`. Does not change results.
        output: The run's folder; None: `results/<run name>`.
        trust_remote_code: Lets transformers execute code from the model's repository.
        method_options: Method name -> its constants, complete after `load`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str = "pocket"
    revision: str | None = None
    preset: str | None = None
    methods: tuple[str, ...] = ("stic",)
    benchmarks: tuple[str, ...] = ("all",)
    images: Path | None = None
    sft_data: str | None = None
    image_root: Path | None = None
    prompts: Path | None = None
    rows: dict[str, str] = Field(default_factory=lambda: {"all": "auto"})
    limit: Limit | None = None
    seeds: tuple[int, ...] = (0,)
    dar: DarConfig = DarConfig()
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: int | Literal["auto"] = "auto"
    output: Path | None = None
    trust_remote_code: bool = False
    method_options: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("methods", "benchmarks", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        """Accepts `a,b` as well as a list, and drops repetitions."""
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, Sequence):
            return value
        names = [part.strip() for item in parts for part in str(item).split(",")]
        return tuple(dict.fromkeys(name for name in names if name))

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value

    @field_validator("seeds")
    @classmethod
    def _some_seed(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 0:
            raise ValueError("give at least one seed, 0 or larger")
        return tuple(dict.fromkeys(value))

    @field_validator("dar", mode="before")
    @classmethod
    def _dar(cls, value: object) -> object:
        return {"use": value} if value is None or isinstance(value, bool) else value

    @field_validator("rows", mode="before")
    @classmethod
    def _rows(cls, value: object) -> object:
        return {"all": value} if isinstance(value, str) else value

    @field_validator("images", "image_root", "output")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        """Expands `~`, which a shell leaves as it is behind `=` and in files."""
        return None if value is None else Path(os.path.expanduser(value))

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
        advice = f"{value!s} is neither a number of rows (1 or more) nor a fraction between 0 and 1"
        try:
            number = float(str(value))
        except ValueError:
            raise ValueError(advice) from None
        if isinstance(value, float) or (isinstance(value, str) and not value.strip().isdecimal()):
            if not 0 < number <= 1:
                raise ValueError(advice)
            return None if number == 1 else number
        if isinstance(value, bool) or number < 1:
            raise ValueError(advice)
        return int(number)

    def rows_of(self, benchmark: str) -> str:
        """Where a benchmark's rows come from: `pocket`, `hub` or a path."""
        where = self.rows.get(benchmark, self.rows.get("all", "auto"))
        return where if where != "auto" else "pocket" if self.model == "pocket" else "hub"

    @property
    def key(self) -> str:
        """Content key of what decides the run's numbers: paths of output and hardware stay out."""
        content = self.model_dump(mode="json", exclude={"output", "device", "batch_size", "preset"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The run's name: model, methods and the first digits of the key."""
        model = re.sub(r"[^\w.-]+", "_", self.model.rstrip("/").split("/")[-1]) or "model"
        return f"{model}-{'+'.join(self.methods) or 'baseline'}-{self.key[:8]}"[-120:]

    @property
    def folder(self) -> Path:
        """Where the run keeps its records and tables."""
        return self.output or Path("results") / self.name

    def to_yaml(self) -> str:
        """The configuration as a file that `--config` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(
    *,
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Builds the one validated configuration of a run.

    Args:
        preset: Name of a shipped preset; without one, the model `pocket` brings its own.
        file: A partial RunConfig in YAML.
        flags: RunConfig fields given on the command line (None values are left out).
        overrides: `path=value` items: a RunConfig path, `<method>.<path>`, or a bare method path,
            which applies to every selected method that has it. Values are YAML.

    Raises:
        UserError: An unknown key, name or preset, or a value that does not fit.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    from_file = read_file(file) if file else {}
    pairs = [pair for item in overrides for pair in _split(item)]
    direct = {path: value for path, value in pairs if path.split(".")[0] in RunConfig.model_fields}
    model = direct.get("model", given.get("model", from_file.get("model", "pocket")))
    preset = preset or from_file.get("preset") or ("pocket" if model == "pocket" else None)
    merged: dict[str, Any] = {}
    if preset:
        merged = layers.merge(merged, _checked(read_preset(preset), f"preset {preset}"))
        merged["preset"] = preset
    merged = layers.merge(merged, _checked(from_file, f"--config {file}"))
    merged = layers.merge(merged, _long_all(given))
    for path, value in direct.items():
        layers.require(path, RunConfig, f"-o {path}")
        layers.put(merged, path, _long(path, value))
        _known_rows(merged.get("rows"), f"-o {path}")
    config: RunConfig = _validate(RunConfig, merged, "")
    config = config.model_copy(update={"benchmarks": _all_benchmarks(config.benchmarks)})
    for name in config.benchmarks:
        registry.benchmarks().get(name)
    options = {name: dict(config.method_options.get(name, {})) for name in config.methods}
    classes = {name: registry.methods().get(name).config for name in config.methods}
    for path, value in pairs:
        if path not in direct:
            _set_method_option(path, value, classes, options)
    complete = {
        name: _validate(classes[name], options[name], f"{name}.").model_dump(mode="json")
        for name in config.methods
    }
    return config.model_copy(update={"method_options": complete})


def _all_benchmarks(names: Sequence[str]) -> tuple[str, ...]:
    if "all" in names or not names:
        return tuple(registry.benchmarks().names())
    return tuple(names)


def _split(item: str) -> Iterator[tuple[str, Any]]:
    """An `-o` item as path and value; of `method_options`, the values in it by their method's paths."""
    path, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not path:
        raise UserError(f"-o {item}: expected key.sub=value")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"-o {item}: the value is not valid YAML") from error
    head, _, rest = path.partition(".")
    if head != "method_options" or not (rest or isinstance(value, dict)):
        yield path, value
    elif isinstance(value, dict):
        yield from layers.leaves(value, f"{rest}." if rest else "")
    else:
        yield rest, value


def _checked(layer: dict[str, Any], where: str) -> dict[str, Any]:
    """Checks a layer's own keys, those of unselected methods included, so that a typo never hides."""
    for key in layer:
        layers.require(str(key), RunConfig, where)
    _known_rows(layer.get("rows"), where)
    options = layer.get("method_options") or {}
    if not isinstance(options, dict):
        raise UserError(f"{where}: method_options maps a method's name to its options")
    known = registry.methods().names()
    for name, values in options.items():
        if name not in known:
            advice = registry.suggest(str(name), known)
            raise UserError(f'{where}: method_options: no method is called "{name}"{advice}')
        config = registry.methods().get(name).config
        if not isinstance(values or {}, dict):
            raise UserError(f"{where}: method_options.{name} {values!r}: expected `option: value` lines")
        for path, _ in layers.leaves(values or {}):
            layers.require(path, config, f"{where}: method_options.{name}")
    return _long_all(layer)


def _known_rows(rows: Any, where: str) -> None:
    """Refuses rows of a benchmark that does not exist, which would never be looked at."""
    known = ["all", *registry.benchmarks().names()]
    for name in rows if isinstance(rows, dict) else ():
        if name not in known:
            raise UserError(f'{where}: no benchmark is called "{name}"{registry.suggest(str(name), known)}')


def _long_all(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _long(key, value) for key, value in layer.items()}


def _long(key: str, value: Any) -> Any:
    """The mapping that a short form of a RunConfig field stands for, so that layers merge."""
    if key == "dar" and (value is None or isinstance(value, bool)):
        return {"use": value}
    return {"all": value} if key == "rows" and isinstance(value, str) else value


def _set_method_option(
    path: str, value: Any, classes: Mapping[str, type[BaseModel]], options: dict[str, dict[str, Any]]
) -> None:
    head, _, rest = path.partition(".")
    if head in registry.methods().names() and rest:
        if head not in classes:
            raise UserError(f"-o {path}: method {head} is not part of this run (add --method {head})")
        layers.require(rest, classes[head], f"-o {path}")
        layers.put(options[head], rest, value)
        return
    having = [name for name, config in classes.items() if layers.has(path, config)]
    if not having:
        known = [*layers.paths(RunConfig), *(p for config in classes.values() for p in layers.paths(config))]
        raise UserError(
            f'-o {path}: no selected method has the option "{path}"{registry.suggest(path, known)}'
        )
    for name in having:
        layers.put(options[name], path, value)


_FLAGS: Mapping[str, str] = {
    "methods": "--method", "seeds": "--seed", "dar": "--dar", "method_options": "method_options",
}  # fmt: skip


def _flag(path: str) -> str:
    head, dot, _ = path.partition(".")
    flag = _FLAGS.get(head, "--" + head.replace("_", "-"))
    return f"-o {path}" if dot else flag


def _validate(config: type[BaseModel], data: Mapping[str, Any], prefix: str) -> Any:
    try:
        return config.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
        path = re.sub(r"\.(int|float|str|literal\[.*\])$", "", path)
        name = f"-o {prefix}{path}" if prefix else _flag(path)
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{name} {first['input']!r}: {message[:1].lower()}{message[1:]}") from error
