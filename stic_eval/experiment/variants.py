"""What is evaluated: methods with their solvers and seeds, and the stages that their adapters come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stic_eval import config_layers, registry
from stic_eval.config import options_of
from stic_eval.dar_setting import DESCRIBE, expand
from stic_eval.errors import Contained, UserError, fault_of, quote
from stic_eval.setting_paths import split

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stic_eval.contracts.engine import Engine
    from stic_eval.contracts.method import Data, Method, Plan, Stage
    from stic_eval.contracts.solver import Solver
    from stic_eval.settings import RunConfig


@dataclass(frozen=True)
class Variant:
    """One thing that is evaluated: a method with one solver, trained with one seed.

    Attributes:
        folder: Its folder under `records/`: `stic`, `stic+dar`, with several seeds `stic+dar@seed1`.
        method: The method.
        solver: How its answers are obtained.
        options: The solver's.
        seed: Training seed; None if nothing is trained.
        plan: What the method amounts to.
        adapter: Folder of an adapter that was trained elsewhere.
    """

    folder: str
    method: Method
    solver: Solver
    options: BaseModel
    seed: int | None
    plan: Plan
    adapter: Path | None = None

    @property
    def has_adapter(self) -> bool:
        """Whether a trained adapter answers, wherever it was trained."""
        return self.plan.adapter is not None or self.adapter is not None

    @property
    def label(self) -> str:
        """For progress lines, e.g. `STIC + DaR, seed 1`."""
        solver = f" + {self.solver.title}" if self.solver.title else ""
        return f"{self.method.title}{solver}" + ("" if self.seed is None else f", seed {self.seed}")


def variants(config: RunConfig, data: Data) -> list[Variant]:
    """Everything that is evaluated, the baseline first.

    A server's adapter was trained elsewhere, with a seed that nobody knows unless it is named by one.

    Raises:
        UserError: A method cannot work with this data, two solvers name their rows alike, or two methods ask
            one solver for different things.
    """
    known = [n for n in config.server.adapters if "@" not in n]
    names = ["baseline", *(name for name in config.methods if name != "baseline")]
    methods = [registry.methods().get(name) for name in names]
    plans = [make_plan(method, config, data)[0] for method in methods]
    found = []
    for method, plan in zip(methods, plans, strict=True):
        # The baseline is asked in every way that something is compared with it in, and directly.
        baseline = method.name == "baseline"
        own = [other.solver for other in (plans if baseline else [plan])]
        names = [*own] if config.solvers is None else [*config.solvers]
        names = ["direct", *names] if baseline or config.solvers is None else names
        for solver in map(registry.solvers().get, dict.fromkeys(names)):
            options = _options(solver, methods, plans, config)
            apart = plan.adapter and not (method.name in known and len(config.seeds) == 1)
            for seed in config.seeds if apart else (None,):
                several = f"@seed{seed}" if seed is not None and len(config.seeds) > 1 else ""
                folder = solver.label.of(method.name) + several
                found.append(Variant(folder, method, solver, options, seed, plan))
    first: dict[str, Variant] = {}
    for variant in found:
        for name in (variant.folder.casefold(), variant.label):
            other = first.setdefault(name, variant)
            if other is not variant and other.method is variant.method:
                raise UserError(
                    f'--solver {variant.solver.name}: its rows would be called "{name}", as those of '
                    f"{other.solver.name} are; give it its own title and suffix"
                )
    return found + with_adapters(found, config)


def _options(
    solver: Solver, methods: Sequence[Method], plans: Sequence[Plan], config: RunConfig
) -> BaseModel:
    """A solver's options in a run: one choice for all methods, for their rows are compared.

    Raises:
        UserError: Two methods choose differently, and the run does not say which holds.
    """
    asking = [(m, p) for m, p in zip(methods, plans, strict=True) if p.solver == solver.name]
    chosen = [(method, options_of(config, solver, plan.options)) for method, plan in asking]
    if not chosen:
        return options_of(config, solver)
    first, options = chosen[0]
    for method, other in chosen:
        if other != options:
            raise UserError(
                f"{first.name} and {method.name} answer by {solver.name} with different options, and rows "
                f"that are compared need the same; give them: -o solvers.{solver.name}.OPTION=VALUE"
            )
    return options


def check_options(flag: str, items: Iterable[str], found: Sequence[Variant]) -> None:
    """Makes sure that options of a solver are for one that a row is answered by.

    Args:
        flag: Which gave them.
        items: Options with their values, as `-o` has them, which settings were made of.
        found: All rows.

    Raises:
        UserError: They would do nothing.
    """
    for given, path, value in [(item.partition("=")[0], *pair) for item in items for pair in split(item)]:
        for leaf, _ in config_layers.leaves(dict([expand(path, value)])):
            head, _, rest = leaf.partition(".")
            name, _, option = rest.partition(".")
            if head != "solver_options" or not option or any(v.solver.name == name for v in found):
                continue
            if (name, option) == (DESCRIBE, "separator") and any(v.plan.adapter for v in found):
                continue  # which training goes by as well
            raise UserError(
                f"{flag} {given.strip()}: no row is answered by the solver {name}; leave the option out, or "
                f"name the solver as well (-o solvers={name})"
            )


def make_plan(method: Method, config: RunConfig, data: Data) -> tuple[Plan, Data]:
    """What a method amounts to in a run, whose solver there is, and which trains on the text that it asks by.

    Returns:
        The plan, and the data that it was made with, by which its stages have to be run: the separator is
        that of the method's own row, and not that of another method's.

    Raises:
        UserError: The method cannot work with this data, or its solver or the solver's options are none.
    """
    own = method.config.model_validate(config.method_options.get(method.name, {}))
    with Contained():
        plan = method.plan(own, data)
    where = f"{registry.origin(method.name)}: Plan.solver"
    known = registry.solvers().names()
    if plan.solver not in known:
        advice = registry.suggest(str(plan.solver), known)
        raise UserError(
            f'{where}: no solver is called "{plan.solver}"{advice} (`stic-eval ls solvers` lists them)'
        )
    solver, where = registry.solvers().get(plan.solver), f"{where} {plan.solver}"
    if not isinstance(plan.options, Mapping):
        raise UserError(f"{where}: options is {quote(plan.options)}; it has to map options to their values")
    for path, _ in config_layers.leaves(plan.options):
        config_layers.require(path, solver.options, where)
    try:
        solver.options.model_validate(plan.options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {path} {quote(first['input'])}: {fault_of(first)}") from error
    describing = registry.solvers().get(DESCRIBE)
    asked: Any = options_of(config, describing, plan.options if solver is describing else None)
    if asked.separator == data.separator:
        return plan, data
    data = replace(data, separator=asked.separator)
    with Contained():
        return method.plan(own, data), data


def answerers(found: Iterable[tuple[RunConfig, Variant]], engine: Engine) -> dict[str, str | None]:
    """Row -> its adapter's name, where the engine has adapters of its own; else nothing."""
    if engine.trains_in(engine.config):
        return {}
    named = {True: "", False: ", seed {}"}
    return {v.method.title + named[v.seed is None].format(v.seed): server_name(c, v) for c, v in found}


def server_name(config: RunConfig, variant: Variant) -> str | None:
    """The name that an engine which trains nothing has for a variant's adapter; None: the base model answers.

    Raises:
        UserError: Nobody has said what the server calls the adapter.
    """
    if variant.plan.adapter is None:
        return None
    name = variant.method.name if variant.seed is None else f"{variant.method.name}@seed{variant.seed}"
    found = config.server.adapters.get(name)
    if found is None:
        wanted = name if len(config.seeds) > 1 else variant.method.name
        raise UserError(
            f"--adapter-name: {variant.method.title} answers with an adapter, and a server's model is not "
            f"trained here; say what the server calls it (--adapter-name {wanted}=NAME), or evaluate the "
            "model alone (--method baseline)"
        )
    return found


def check_server_names(config: RunConfig, found: Sequence[Variant]) -> None:
    """Makes sure that the server's name is known of whatever is evaluated.

    Raises:
        UserError: A name is missing, or is that of nothing.
    """
    used = {server_name(config, variant) for variant in found}
    for name, model in config.server.adapters.items():
        if model not in used:
            raise UserError(f"--adapter-name {name}={model}: no variant of this run has that adapter")


def check_apart(cells: Sequence[tuple[str, RunConfig, Sequence[Variant]]], data: Data) -> None:
    """Makes sure that cells which train differently do not have one adapter of a server.

    Args:
        cells: Label, settings and variants of each.
        data: The inputs of self-training; none are needed.

    Raises:
        UserError: A name is missing, or two cells that would train differently come to one.
    """
    from stic_eval.selftrain.stage_runner import stage_key

    known: dict[str, tuple[str, str]] = {}
    for label, config, variants in cells:
        for variant in variants:
            if variant.plan.adapter is None or (name := server_name(config, variant)) is None:
                continue
            key = stage_key(variant.plan.adapter, data, "", variant.seed or 0)
            first, other = known.setdefault(name, (label, key))
            if other != key:
                raise UserError(
                    f"--adapter-name: cells {first} and {label} train differently, but both would be "
                    f"answered by {name}; with --engine openai vary what is not trained (dar.prompt_role, "
                    "benchmarks.*)"
                )


def with_adapters(found: Sequence[Variant], config: RunConfig) -> list[Variant]:
    """The baseline's variants once more for each adapter that was trained elsewhere.

    One that was given a name is the method of that name. Of the others, one by itself is the method
    `adapter`; several are `adapter1`, `adapter2`, ... in the order given. No plug-in may be called so
    (`plugins.why_reserved`).

    Raises:
        UserError: Two adapters, or an adapter and a method, would have one name.
    """
    more = []
    taken = {variant.method.name for variant in found}
    for number, adapter in enumerate(config.adapters, 1):
        own = config.adapter_names.get(str(adapter))
        name = own or ("adapter" if len(config.adapters) == 1 else f"adapter{number}")
        if name in taken:
            raise UserError(f"--adapter {name}={adapter}: {name} is in this run already; give another name")
        taken.add(name)
        for variant in found:
            if variant.method.name == "baseline":
                title = own or f"Adapter {config.name_of_adapter(adapter)}"
                method = replace(variant.method, name=name, title=title)
                folder = variant.solver.label.of(name)
                more.append(replace(variant, folder=folder, method=method, adapter=adapter))
    return more


def stages(stage: Stage | None) -> Iterator[Stage]:
    """A stage and all that it needs, the needs first, each once."""
    seen: list[Stage] = []

    def visit(current: Stage) -> None:
        if any(current is stage for stage in seen):
            return
        for need in current.needs:
            visit(need)
        if current not in seen:
            seen.append(current)

    if stage is not None:
        visit(stage)
    yield from seen
