"""What a run amounts to before anything is done: which rows of the table, which stages, how long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stic_eval import registry
from stic_eval.errors import UserError
from stic_eval.settings import adapter_name

if TYPE_CHECKING:
    from stic_eval.config import RunConfig
    from stic_eval.selftrain.method import Data, Method, Plan, Stage

# Sustained throughput assumed for estimates, in FLOP/s: a laptop core's, and a current GPU's at
# the batch sizes that fit beside a 7B model. Estimates are good to a factor of about three.
_CPU_CORE_FLOPS, _GPU_FLOPS = 2.0e10, 1.0e14
_TOKENS_PER_GENERATION, _TOKENS_PER_ROW = 200, 400
_ROWS_PER_STEP = 8
_PROCESS_BYTES = 1.2e9  # Python with torch and transformers


@dataclass(frozen=True)
class Variant:
    """One thing that is evaluated: a method, with or without DaR, trained with one seed.

    Attributes:
        folder: Its folder under `records/`: `stic`, `stic+dar`, with several seeds `stic+dar@seed1`.
        method: The method.
        dar: Whether it answers by describe-and-respond.
        seed: Training seed; None if nothing is trained.
        plan: What the method amounts to.
        adapter: Folder of an adapter that was trained elsewhere.
    """

    folder: str
    method: Method
    dar: bool
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
        dar = " + DaR" if self.dar else ""
        return f"{self.method.title}{dar}" + ("" if self.seed is None else f", seed {self.seed}")


def variants(config: RunConfig, data: Data) -> list[Variant]:
    """Everything that is evaluated, the baseline first.

    A server's adapter was trained elsewhere, with a seed that nobody knows unless it is named by one.

    Raises:
        UserError: A method cannot work with this data.
    """
    known = () if config.engine == "hf" else [n for n in config.server.adapters if "@" not in n]
    names = ["baseline", *(name for name in config.methods if name != "baseline")]
    methods = [registry.methods().get(name) for name in names]
    plans = [m.plan(m.config.model_validate(config.method_options.get(m.name, {})), data) for m in methods]
    describing = any(plan.solver == "describe_and_respond" for plan in plans)
    found = []
    for method, plan in zip(methods, plans, strict=True):
        own = plan.solver == "describe_and_respond" or (method.name == "baseline" and describing)
        with_dar = own if config.dar.use is None else bool(config.dar.use)
        # A baseline without describe-and-respond is what everything is compared with.
        alone = config.dar.use == "only" and method.name != "baseline"
        for dar in (True,) if alone else (False, True) if with_dar else (False,):
            apart = plan.adapter and not (method.name in known and len(config.seeds) == 1)
            for seed in config.seeds if apart else (None,):
                suffix = "+dar" if dar else ""
                suffix += f"@seed{seed}" if seed is not None and len(config.seeds) > 1 else ""
                found.append(Variant(method.name + suffix, method, dar, seed, plan))
    return found


def served(config: RunConfig, variant: Variant) -> str:
    """The name of the model that a server is to be asked for: the adapter's, or the base model's.

    Raises:
        UserError: Nobody has said what the server calls the adapter.
    """
    if variant.plan.adapter is None:
        return config.model
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


def check_served(config: RunConfig, found: Sequence[Variant]) -> None:
    """Makes sure that the server's name is known of whatever is evaluated.

    Raises:
        UserError: A name is missing, or is that of nothing.
    """
    used = {served(config, variant) for variant in found}
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
    from stic_eval.selftrain.execute import stage_key

    known: dict[str, tuple[str, str]] = {}
    for label, config, variants in cells:
        for variant in variants:
            name = served(config, variant)
            if variant.plan.adapter is None:
                continue
            key = stage_key(variant.plan.adapter, data, "", variant.seed or 0)
            first, other = known.setdefault(name, (label, key))
            if other != key:
                raise UserError(
                    f"--adapter-name: cells {first} and {label} train differently, but both would be "
                    f"answered by {name}; with --engine openai vary what is not trained (dar.prompt_role, "
                    "benchmarks.*)"
                )


def with_adapters(found: Sequence[Variant], adapters: Sequence[Path]) -> list[Variant]:
    """The baseline's variants once more for each adapter that was trained elsewhere.

    One by itself is the method `adapter`; several are `adapter1`, `adapter2`, ... in the order given. No
    plug-in may be called so (`plugins.reserved`).
    """
    more = []
    for number, adapter in enumerate(adapters, 1):
        name = "adapter" if len(adapters) == 1 else f"adapter{number}"
        for variant in found:
            if variant.method.name == "baseline":
                method = replace(variant.method, name=name, title=f"Adapter {adapter_name(adapter)}")
                folder = f"{name}+dar" if variant.dar else name
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


@dataclass(frozen=True)
class Line:
    """One step of a plan as `--dry-run` prints it."""

    what: str
    key: str
    cached: bool
    generations: int
    steps: int


def estimate(lines: Sequence[Line], parameters: int, dtype: str, device: str) -> tuple[float, float]:
    """Seconds and bytes of memory that the uncached lines will take, roughly.

    Args:
        lines: The plan.
        parameters: Of the model.
        dtype: Of its weights, not `auto`; `4bit` or `8bit` where they are packed.
        device: `cpu`, `cuda` or `mps`.

    Two FLOPs a parameter and token for generation, six for training (Kaplan et al. 2020, section
    2.1), over an assumed throughput.
    """
    import os

    from stic_eval.models.memory import WIDTHS

    flops = _GPU_FLOPS if device in ("cuda", "mps") else _CPU_CORE_FLOPS * (os.cpu_count() or 1)
    work = 0.0
    trains = False
    for line in lines:
        if not line.cached:
            work += 2.0 * parameters * _TOKENS_PER_GENERATION * line.generations
            work += 6.0 * parameters * _TOKENS_PER_ROW * _ROWS_PER_STEP * line.steps
            trains = trains or line.steps > 0
    width = WIDTHS[dtype]
    return work / flops, _PROCESS_BYTES + parameters * width * (2.0 if trains else 1.3)


def parameters(model: Path | None) -> int:
    """Parameters of a local model by the headers of its safetensors files; 7e9 for one on the hub.

    Raises:
        UserError: A file is no safetensors file.
    """
    from stic_eval.models.memory import local_parameters

    return 7_000_000_000 if model is None or not model.is_dir() else local_parameters(model)


def duration(seconds: float) -> str:
    """A duration for people: `40 s`, `6 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
