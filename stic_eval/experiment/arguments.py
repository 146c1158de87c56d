"""From the arguments of a call or a command to the validated settings of a run."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from stic_eval import config, config_layers, hub_access, registry
from stic_eval import flags as f
from stic_eval.errors import UserError
from stic_eval.experiment import ablation
from stic_eval.experiment.ablation import Ablation
from stic_eval.experiment.cluster import LOCAL
from stic_eval.experiment.cluster import check as check_cluster
from stic_eval.experiment.conduct import Conduct
from stic_eval.registry import suggest
from stic_eval.settings import RunConfig

F = TypeVar("F", bound=Callable[..., Any])
Options = Mapping[str, Any] | Sequence[str]

_ASKED = (f.Model, f.Settings, f.Server, f.Machine)
_EVALUATED = (*_ASKED, f.Evaluation, f.Judge, f.Access, f.Output)
# Which options a function takes, and which settings it decides itself.
TAKEN: Mapping[str, tuple[type, ...]] = {
    "run": (*_EVALUATED, f.Adapters, f.Methods, f.Training),
    "evaluate": (*_EVALUATED, f.Adapters),
    "train": (f.Model, f.Methods, f.Training, f.Settings, f.Server, f.Machine, f.Output),
    "ablate": (*_EVALUATED, f.Training),
    "load_model": (*_ASKED, f.Adapters),
}
_DECIDED = {"evaluate": {"methods"}, "ablate": {"methods", "adapters", "seeds"}, "load_model": {"methods"}}
_OBJECTS = {"methods": "method", "benchmarks": "benchmark", "solvers": "solver"}
_APART = ("option", "dry_run")  # which are parameters by other names, or commands' own


def declare_keywords(function: F) -> F:
    """Gives a function the keywords that its options declare: for `help`, and for completion in notebooks."""
    own = inspect.signature(function).parameters
    named = [parameter for parameter in own.values() if parameter.kind is not parameter.VAR_KEYWORD]
    listed = {
        name: (hint, flag)
        for kind in TAKEN[function.__name__]
        for name, hint, flag in f.flags_of(kind)
        if name not in own and name not in _APART
    }
    kind = inspect.Parameter.KEYWORD_ONLY
    more = [inspect.Parameter(n, kind, default=None, annotation=h) for n, (h, _) in listed.items()]
    signature = inspect.signature(function).replace(parameters=[*named, *more, own["settings"]])
    function.__signature__ = signature  # type: ignore[attr-defined]
    lines = [f"    {name}: {flag.help}" for name, (_, flag) in listed.items()]
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Options:", *lines])
    return function


def settings_of_run(*, options: Options = (), **settings: Any) -> tuple[RunConfig, tuple[str, ...]]:
    """The validated settings of a run, and its options as `-o` has them."""
    given, items = given_of("run", settings), items_of(options)
    # Somebody's adapter by itself is evaluated, and nothing trained beside it that nobody has named.
    alone = given.get("adapters") and not given.get("config") and not given.get("methods")
    return configure({**given, "methods": ["baseline"]} if alone else given, items), items


def settings_of_evaluation(*, options: Options = (), **settings: Any) -> tuple[RunConfig, tuple[str, ...]]:
    """The validated settings of an evaluation, and its options as `-o` has them."""
    given, items = given_of("evaluate", settings), items_of(options)
    # Of a server's adapters, those that are named; of a folder's the one that is given.
    named = [name.partition("@")[0] for name in given.get("server.adapters", ())]
    return configure({**given, "methods": ["baseline", *named]}, items), items


def settings_of_training(*, options: Options = (), **settings: Any) -> tuple[RunConfig, tuple[str, ...]]:
    """The validated settings of a training, and its options as `-o` has them.

    Raises:
        UserError: Its engine trains nothing, or anything else of the input is wrong.
    """
    given, items = given_of("train", settings), items_of(options)
    named, path = given.get("engine"), "server.model_id"
    if named and not (path in given or any(item.startswith(path) for item in items)):
        _check_trains(named, registry.engines().get(named).trains)  # before what else a server needs
    built = configure(given, items)
    _check_trains(built.engine, registry.engines().get(built.engine).trains_in(built))
    return built, items


def _check_trains(engine: str, trains: bool) -> None:
    if not trains:
        raise UserError(
            f"--engine {engine}: a server's model cannot be trained; say with --model-id where its weights "
            "are, or train it with --engine hf, let the server load the adapter, and name it with `stic-eval "
            "run --engine openai --adapter-name METHOD=NAME`"
        )


def ablation_of(
    name: str | Path | None = None,
    *,
    vary: Mapping[str, Any] | Iterable[str] | str = (),
    options: Options = (),
    one_at_a_time: bool | None = None,
    exclude: Iterable[str] | str = (),
    seeds: Iterable[int | str] | int | str | None = (),
    method: str | None = None,
    **settings: Any,
) -> Ablation:
    """The cells of an ablation with their validated settings."""
    given = given_of("ablate", settings)
    if isinstance(vary, Mapping):
        vary = [f"{axis}={json.dumps(_several(v), default=_plain)}" for axis, v in vary.items()]
    if method is not None and not isinstance(method, str):
        raise UserError(_unknown_to_workers("method", getattr(method, "name", method)))
    preset, file, output = given.pop("preset", None), given.pop("config", None), given.pop("output", None)
    return ablation.define(
        None if name is None else str(name), vary=_several(vary), one_at_a_time=one_at_a_time,
        exclude=_several(exclude), seeds=_seeds(seeds), method=method, preset=preset, file=_path(file),
        overrides=items_of(options), output=_path(output), flags=_nest(given),
    )  # fmt: skip


def _several(value: Any) -> tuple[Any, ...]:
    """One thing or several as several; a text is one."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else (value,)


def _plain(value: Any) -> Any:
    """A number of numpy's or torch's as Python's own, anything else as its text."""
    return value.item() if hasattr(value, "item") else str(value)


def _seeds(given: Iterable[int | str] | int | str | None) -> tuple[int, ...]:
    parts = [part.strip() for item in _several(given) for part in str(item).split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds {','.join(parts)}: give whole numbers, e.g. 0,1,2")
    return tuple(dict.fromkeys(int(part) for part in parts))


def configure(given: Mapping[str, Any], options: Sequence[str] = ()) -> RunConfig:
    """The validated configuration that options and settings amount to.

    Args:
        given: Settings by their paths, as `flags.settings` has them; `preset` and `config` among them.
        options: `-o` items.

    Raises:
        UserError: A value does not fit, or names something that does not exist.
    """
    flags = dict(given)
    preset, file = flags.pop("preset", None), flags.pop("config", None)
    built = config.load(preset=preset, file=_path(file), flags=_nest(flags), overrides=options)
    hub_access.go_offline(built.offline)
    return built


# Settings that decide which model is loaded, and how it answers.
_LOADING = ("engine", "model", "revision", "preset", "adapters", "conversation", "processor", "server",
            "thinking", "device", "dtype", "attn", "load_in_4bit", "load_in_8bit", "batch_size",
            "trust_remote_code", "offline")  # fmt: skip


def same_model(one: RunConfig, other: RunConfig) -> bool:
    """Whether a model that is loaded by one's settings is the other's."""
    return all(getattr(one, name) == getattr(other, name) for name in _LOADING)


def given_of(call: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a call was given, by the paths of settings.

    Raises:
        UserError: It has no such option.
    """
    registry.forget()  # files may have changed since the last call
    taken = [(name, own) for kind in TAKEN[call] for name, _, own in f.flags_of(kind) if name not in _APART]
    heads = {(own.path or name).partition(".")[0] for name, own in taken}
    # Settings that are options of other calls alone decide nothing here.
    others = {(own.path or name).partition(".")[0] for kind in f.SETS for name, _, own in f.flags_of(kind)}
    fields = RunConfig.model_fields.keys() - (others - heads)
    known = {*(name for name, _ in taken), *fields} - _DECIDED.get(call, set())
    also = {spelled: name for name, own in taken for spelled in _spellings(name, own) if spelled not in known}
    for name in values:
        if name not in known and name not in also:
            raise UserError(f'{call}: no option is called "{name}"{suggest(name, {*known, *also})}')
    twice = [name for name in values if also.get(name) in values]
    if twice:
        raise UserError(f"{twice[0]}: with {also[twice[0]]} as well; give only one of them")
    return f.settings({also.get(name, name): value for name, value in values.items()})


def _spellings(name: str, own: f.Flag) -> list[str]:
    """What an option is called on the command line, with underscores: `tasks` of `--benchmarks --tasks`."""
    return [spelled[2:].replace("-", "_") for spelled in own.names_of(name) if spelled[:2] == "--"]


def _nest(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of RunConfig, objects replaced by their names.

    Raises:
        UserError: An object cannot be used, or two options exclude each other.
    """
    found: dict[str, Any] = {}
    for path, value in given.items():
        if path in (*_OBJECTS, "seeds", "adapters") and not _several(value):
            raise UserError(f"{path}: none is given; leave it out for the usual ones")
        if path in _OBJECTS and not isinstance(value, str):
            config_layers.put(found, path, [_name_of(_OBJECTS[path], one) for one in _several(value)])
        else:
            config_layers.put(found, path, _text_of_paths(value))
    if "solvers" in found and "dar" in found:
        raise UserError(f"--{'' if found['dar'] else 'no-'}dar: with --solver as well; give only one of them")
    return found


def _name_of(kind: str, one: object) -> str:
    return os.fspath(one) if isinstance(one, os.PathLike) else registry.add(kind, one)


def _text_of_paths(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _text_of_paths(one) for key, one in value.items()}
    return [_text_of_paths(one) for one in value] if isinstance(value, (list, tuple)) else value


def items_of(options: Options | None) -> tuple[str, ...]:
    """Options as `-o` has them."""
    if options is None:
        return ()
    if not isinstance(options, Mapping):
        return (options,) if isinstance(options, str) else tuple(options)
    return tuple(f"{path}={_yaml(value)}" for path, value in options.items())


def _yaml(value: Any) -> str:
    plain = json.loads(json.dumps(value, default=_plain))  # tuples, paths, numbers of numpy's
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=10**9)
    return text.removesuffix("...\n").strip()


def _path(given: str | os.PathLike[str] | None) -> Path | None:
    if given is not None and not isinstance(given, (str, os.PathLike)):
        raise UserError(f"{given!r}: give the path of a file or folder")
    return None if given is None else Path(given).expanduser()


def conduct_of(
    config: RunConfig, jobs: int | None, resume: bool, verbose: bool, quiet: bool, command: Sequence[str],
    workers: bool = False, cluster: str = LOCAL,
) -> Conduct:  # fmt: skip
    """How a run goes about its work.

    Args:
        workers: Whether worker processes do it even if it is one.
        cluster: Where they are.

    Raises:
        UserError: Workers would have to know objects of this process, or there would be none.
    """
    if jobs is not None and (not str(jobs).isdecimal() or int(jobs) < 1):
        raise UserError(f"jobs: {jobs!r} is not a whole number of 1 or more")
    check_cluster(cluster, config.nodes)
    kinds = registry.kinds()
    for path, kind in _OBJECTS.items() if (jobs or 1) > 1 or workers or cluster != LOCAL else ():
        for name in getattr(config, path) or ():
            if kinds[kind].has_object(name):
                raise UserError(_unknown_to_workers(kind, name))
    return Conduct(None if jobs is None else int(jobs), cluster, resume, verbose, quiet, command)


def _unknown_to_workers(kind: str, name: object) -> str:
    return (
        f"{kind} {name}: is an object of this process, which worker processes do not know; put it into a "
        "file and give that"
    )
