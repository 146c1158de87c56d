"""Benchmarks under other protocols and options than their default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stic_eval.errors import Contained, UserError, fault_of, quote
from stic_eval.profiles import StopStrings
from stic_eval.registry import suggest

if TYPE_CHECKING:
    from stic_eval.contracts.benchmark import Benchmark


class Decoding(BaseModel):
    """How answers are decoded: options of every benchmark. What is not given is as the benchmark has it.

    Attributes:
        max_new_tokens: Bound on an answer's tokens.
        temperature: 0 is greedy.
        top_p: Nucleus mass, for a temperature above 0.
        stop: Texts of which the first that appears ends the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_new_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: StopStrings | None = None


def with_options(benchmark: Benchmark, options: Mapping[str, Any]) -> Benchmark:
    """The benchmark under the given options, its own and of decoding; those left out have their defaults.

    Raises:
        UserError: It has no such option, or not that value of it.
    """
    own, _ = _split_options(benchmark, options)
    varied = _vary(benchmark, own)
    changed = decoding(benchmark, options)
    if not changed:
        return varied
    protocol = f"{varied.protocol}; {_describe(changed)}"
    return replace(varied, generation=replace(varied.generation, **changed), protocol=protocol)


def complete(benchmark: Benchmark, options: Mapping[str, Any]) -> dict[str, Any]:
    """All of a benchmark's own options, and those of decoding that change anything.

    Raises:
        UserError: As `with_options`.
    """
    with_options(benchmark, options)
    own, _ = _split_options(benchmark, options)
    found: dict[str, Any] = {}
    if benchmark.options is not None:
        found = benchmark.options.model_validate(own).model_dump(mode="json")
    return found | {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in decoding(benchmark, options).items()
    }


def decoding(benchmark: Benchmark, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of decoding among these that differ from what the benchmark has under the others.

    Raises:
        UserError: A value is none of the option, or has no effect.
    """
    own, given = _split_options(benchmark, options)
    how = _validate(benchmark, Decoding, given).model_dump(exclude_none=True)
    if not how:
        return {}
    generation = _vary(benchmark, own).generation
    if "top_p" in how and how.get("temperature", generation.temperature) <= 0:
        raise UserError(
            f"-o benchmarks.{benchmark.name}.top_p {how['top_p']}: answers are greedy, so it has no "
            "effect; give a temperature above 0 as well"
        )
    return {name: value for name, value in how.items() if value != getattr(generation, name)}


def _split_options(benchmark: Benchmark, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A benchmark's own options, and those of decoding that are not its own."""
    own = set(benchmark.options.model_fields) if benchmark.options else set()
    general = Decoding.model_fields.keys() - own
    given = {name: value for name, value in options.items() if name in general}
    return {name: value for name, value in options.items() if name not in general}, given


def _vary(benchmark: Benchmark, own: Mapping[str, Any]) -> Benchmark:
    if not own:
        return benchmark
    if benchmark.options is None or benchmark.vary is None:
        raise _unknown(benchmark, next(iter(own)))
    given = _validate(benchmark, benchmark.options, own)
    with Contained():
        return benchmark.vary(given)


def _validate(benchmark: Benchmark, kind: type[BaseModel], options: Mapping[str, Any]) -> BaseModel:
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            raise _unknown(benchmark, path) from error
        raise UserError(
            f"-o benchmarks.{benchmark.name}.{path} {quote(first['input'])}: {fault_of(first)}"
        ) from error


def _unknown(benchmark: Benchmark, path: str) -> UserError:
    known = [*(benchmark.options.model_fields if benchmark.options else ()), *Decoding.model_fields]
    advice = suggest(path, known) or f" (it has {', '.join(dict.fromkeys(known))})"
    return UserError(f"-o benchmarks.{benchmark.name}.{path}: {benchmark.title} has no such option{advice}")


def _describe(changed: Mapping[str, Any]) -> str:
    """Decoding for under a table: `at most 4,096 new tokens, temperature 0.7`."""
    parts = []
    if "max_new_tokens" in changed:
        parts.append(f"at most {changed['max_new_tokens']:,} new tokens")
    if "temperature" in changed:
        parts.append(f"temperature {changed['temperature']:g}" if changed["temperature"] else "greedy")
    if "top_p" in changed:
        parts.append(f"top-p {changed['top_p']:g}")
    if "stop" in changed:
        ends = " or ".join(map(repr, changed["stop"]))
        parts.append(f"up to {ends}" if ends else "up to its end")
    return ", ".join(parts)


def protocols(benchmark: Benchmark) -> tuple[str, ...]:
    """The protocols that `--protocol` can choose from, the default first; none for a benchmark without."""
    field = benchmark.options.model_fields.get("protocol") if benchmark.options else None
    return tuple(getattr(field.annotation, "__args__", ())) if field else ()
