"""Benchmarks under other protocols and options than their default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stic_eval.errors import UserError
from stic_eval.registry import suggest

if TYPE_CHECKING:
    from stic_eval.evals.benchmark import Benchmark


def with_options(benchmark: Benchmark, options: Mapping[str, Any]) -> Benchmark:
    """The benchmark under the given options; those left out have their defaults.

    Raises:
        UserError: It has no such option, or not that value of it.
    """
    if not options:
        return benchmark
    if benchmark.options is None or benchmark.vary is None:
        raise UserError(f"-o benchmarks.{benchmark.name}.{next(iter(options))}: it has no options")
    try:
        return benchmark.vary(benchmark.options.model_validate(options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        where = f"-o benchmarks.{benchmark.name}.{path}"
        if first["type"] == "extra_forbidden":
            known = list(benchmark.options.model_fields)
            advice = suggest(path, known) or f" (it has {', '.join(known)})"
            raise UserError(f"{where}: {benchmark.title} has no such option{advice}") from error
        message = first["msg"][:1].lower() + first["msg"][1:]
        raise UserError(f"{where} {first['input']!r}: {message}") from error


def protocols(benchmark: Benchmark) -> tuple[str, ...]:
    """The protocols that `--protocol` can choose from, the default first; none for a benchmark without."""
    field = benchmark.options.model_fields.get("protocol") if benchmark.options else None
    return tuple(getattr(field.annotation, "__args__", ())) if field else ()
