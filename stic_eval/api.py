"""The Python API: what the commands do, with the same settings, cache and folders, and values for results.

`import stic_eval as se` gives these functions by their names. Whatever an option of a command is called, a
function takes as a keyword, with underscores for hyphens; whatever a setting of `RunConfig` is called, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stic_eval import registry
from stic_eval.contracts.benchmark import Benchmark
from stic_eval.errors import UserError
from stic_eval.experiment import ablation, arguments, conduct, inputs
from stic_eval.experiment.arguments import Options, declare_keywords
from stic_eval.experiment.calls import as_call, as_experiment
from stic_eval.experiment.loaded_model import LoadedModel
from stic_eval.experiment.progress import Reporter
from stic_eval.experiment.result import RunResult, TrainResult, load_result
from stic_eval.models.thinking import ThinkingVLM


@declare_keywords
@as_experiment()
def run(
    model: str | Path | None = None,
    *,
    options: Options = (),
    jobs: int | None = None,
    cluster: str = "local",
    resume: bool = True,
    verbose: bool = False,
    quiet: bool = False,
    command: Sequence[str] = (),
    **settings: Any,
) -> RunResult:
    """Trains what the methods need, and evaluates them and the baseline, as `stic-eval run` does.

    Args:
        model: `pocket`, a folder, a hub id, or a model on a server.
        options: Settings by their dotted paths, as `-o` takes them: `{"stage1.images": 12}`.
        jobs: Worker processes; None: one, or as many as the cluster has room for.
        cluster: Where they are: `local`, or `ray` (`ray:HOST:6379`).
        resume: False computes everything again.
        verbose: Prints the lines of the log.
        quiet: Prints nothing on the way.
        command: What the run's manifest says was called.
        **settings: Options and settings; `methods`, `benchmarks` and `solvers` may be objects.

    Raises:
        UserError: The input is wrong; one line says what to do.
        RunError: Something failed; what does not depend on it is in the error's `result`.
        KeyboardInterrupt: As it was asked to; the same call goes on where it was.
    """
    config, items = arguments.settings_of_run(options=options, model=model, **settings)
    way = arguments.conduct_of(config, jobs, resume, verbose, quiet, command, cluster=cluster)
    return conduct.run(config, items, way)


@declare_keywords
@as_experiment()
def evaluate(
    model: str | Path | LoadedModel | None = None,
    *,
    benchmark: Benchmark | str | Sequence[Benchmark | str] | None = None,
    options: Options = (),
    resume: bool = True,
    verbose: bool = False,
    quiet: bool = False,
    command: Sequence[str] = (),
    **settings: Any,
) -> RunResult:
    """Evaluates a model, and adapters beside it, without training anything, as `stic-eval eval` does.

    Args:
        model: `pocket`, a folder, a hub id, a model on a server, or what `load_model` gave: that is not
            loaded again, unless other settings of it are given here.
        benchmark: One or several, by name, file or as an object; another word for `benchmarks`.
        options: Settings by their dotted paths: `{"benchmarks.textvqa.ocr": False}`.
        resume: False computes everything again.
        verbose: Prints the lines of the log.
        quiet: Prints nothing on the way.
        command: What the manifest says was called.
        **settings: Options and settings.

    Raises:
        UserError: The input is wrong; one line says what to do.
        RunError: Something failed; what does not depend on it is in the error's `result`.
        KeyboardInterrupt: As it was asked to; the same call goes on where it was.
    """
    if benchmark is not None:
        if settings.get("benchmarks") is not None:
            raise UserError("benchmark: with benchmarks as well; give only one of them")
        settings["benchmarks"] = benchmark
    loaded = model.engine if isinstance(model, LoadedModel) else None
    if isinstance(model, LoadedModel):
        settings = {**model.given, **settings}
        options = (*model.options, *arguments.items_of(options))
    elif model is not None:
        settings["model"] = model
    config, items = arguments.settings_of_evaluation(options=options, **settings)
    way = arguments.conduct_of(config, 1, resume, verbose, quiet, command)
    same = loaded is not None and arguments.same_model(loaded.config, config)
    return conduct.run(config, items, way, loaded if same else None)


@declare_keywords
@as_experiment()
def train(
    model: str | Path | None = None,
    *,
    options: Options = (),
    resume: bool = True,
    verbose: bool = False,
    quiet: bool = False,
    command: Sequence[str] = (),
    **settings: Any,
) -> TrainResult:
    """Trains what the methods need without evaluating it, as `stic-eval train` does.

    Args:
        model: `pocket`, a folder or a hub id.
        options: Settings by their dotted paths: `{"stage1.images": 12}`.
        resume: False computes everything again.
        verbose: Prints the lines of the log.
        quiet: Prints nothing on the way.
        command: What the manifest says was called.
        **settings: Options and settings; `methods` may be objects.

    Raises:
        UserError: The input is wrong; one line says what to do.
        RunError: A training failed.
        KeyboardInterrupt: As it was asked to; the same call goes on where it was.
    """
    config, items = arguments.settings_of_training(options=options, model=model, **settings)
    return conduct.train(config, items, arguments.conduct_of(config, 1, resume, verbose, quiet, command))


@declare_keywords
@as_experiment()
def ablate(
    name: str | Path | None = None,
    *,
    vary: Mapping[str, Sequence[Any]] | Sequence[str] = (),
    one_at_a_time: bool | None = None,
    exclude: Sequence[str] = (),
    seeds: Sequence[int] = (),
    method: str | None = None,
    options: Options = (),
    jobs: int | None = None,
    cluster: str = "local",
    resume: bool = True,
    verbose: bool = False,
    quiet: bool = False,
    command: Sequence[str] = (),
    **settings: Any,
) -> RunResult:
    """Trains and evaluates a method under varied settings, as `stic-eval ablate` does.

    Args:
        name: A built-in ablation or a YAML file; None: `vary` says it all.
        vary: Axis -> its values, in place of the ablation's own: `{"stage1.beta": [0.05, 0.1]}`.
        one_at_a_time: Single departures from the default settings, or (False) all combinations.
        exclude: Combinations to leave out: `"p_corrupt=0 corruption!=both"`.
        seeds: Training seeds of every cell.
        method: What cells train.
        options: Settings of all cells by their dotted paths.
        jobs: Worker processes; None: one, or as many as the cluster has room for.
        cluster: Where they are: `local`, or `ray` (`ray:HOST:6379`).
        resume: False computes everything again.
        verbose: Prints the lines of the log.
        quiet: Prints nothing on the way.
        command: What the manifest says was called.
        **settings: Options and settings.

    Raises:
        UserError: The input is wrong; one line says what to do.
        RunError: Cells have failed; the others are in the error's `result`.
        KeyboardInterrupt: As it was asked to; the same call goes on where it was.
    """
    found = arguments.ablation_of(
        name, vary=vary, one_at_a_time=one_at_a_time, exclude=exclude, seeds=seeds, method=method,
        options=options, **settings,
    )  # fmt: skip
    way = arguments.conduct_of(
        found.grid.base, jobs, resume, verbose, quiet, command, workers=True, cluster=cluster
    )
    return ablation.run(found, way)


def load_run(run: str | Path) -> RunResult:
    """The results of a run or ablation, by its folder or its name under `results/`.

    Raises:
        UserError: There is none, or its scores.json cannot be used.
    """
    return load_result(run)


@declare_keywords
@as_call()
def load_model(model: str | Path | None = None, *, options: Options = (), **settings: Any) -> LoadedModel:
    """Loads a model, with an adapter (`adapter="DIR"`) if one is given, and asks it nothing yet.

    Args:
        model: `pocket`, a folder, a hub id, or a model on a server.
        options: Settings by their dotted paths: `{"thinking.max_new_tokens": 1024}`.
        **settings: Options and settings.

    Raises:
        UserError: There is no such model or adapter, or it cannot be loaded.
    """
    settings = settings if model is None else {**settings, "model": model}
    given, items = arguments.given_of("load_model", settings), arguments.items_of(options)
    config = arguments.configure({**given, "methods": ["baseline"]}, items)
    if len(config.adapters) > 1:
        raise UserError(f"--adapter: a model has one at a time, not {len(config.adapters)}")
    report = Reporter(None, quiet=True)
    inputs.check_model(config)
    inputs.check_adapters(config, report)
    engine = registry.engines().get(config.engine)(config, report.step, lambda: True)
    engine.check()
    adapter = config.adapters[0] if config.adapters else None
    stop = engine.profile.stop if engine.profile is not None else ()
    write = engine.answers(adapter).generate
    vlm = ThinkingVLM(write, engine.fingerprint(adapter), config.thinking, stop)
    return LoadedModel(vlm, engine, settings, items)
