"""One benchmark from samples to records and summary."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from stic_eval.errors import RunError
from stic_eval.evals import solvers
from stic_eval.evals.benchmark import Benchmark
from stic_eval.models.base import VLM
from stic_eval.store import atomic_write
from stic_eval.types import Generation, Record, Response, Sample, Summary


def evaluate(
    benchmark: Benchmark,
    rows: Sequence[Sample],
    model: VLM,
    solver: Literal["direct", "describe_and_respond"],
    *,
    describe_prompt: str,
    describe_generation: Generation,
    out: Path,
    progress: Callable[[int, int | None], None],
    separator: str = "\n",
    sees_image: bool = True,
) -> tuple[list[Record], Summary]:
    """Asks, scores and records every sample, and sums up.

    Args:
        benchmark: What is evaluated.
        rows: Its samples.
        model: Who answers.
        solver: How an answer is obtained.
        describe_prompt: Describe-and-respond's first question.
        describe_generation: Decoding of the description.
        out: JSONL file for the records, in the samples' order, written when all are there: until
            then the answers are safe in the response cache.
        progress: Called with (samples finished, samples in all).
        separator: See `solvers.describe_and_respond`.
        sees_image: See `solvers.describe_and_respond`.

    Returns:
        The records in the samples' order, and their summary.

    Raises:
        RunError: The benchmark's scoring fails on a sample, which is named.
    """
    records: dict[str, Record] = {}
    progress(0, len(rows))
    stream: Iterator[solvers.Solved]
    if solver == "direct":
        stream = solvers.direct(rows, model, benchmark.generation)
    else:
        stream = solvers.describe_and_respond(
            rows,
            model,
            benchmark.generation,
            describe_prompt=describe_prompt,
            describe_generation=describe_generation,
            separator=separator,
            sees_image=sees_image,
        )
    for sample, description, response in stream:
        records[sample.id] = _record(benchmark, sample, description, response)
        progress(len(records), len(rows))
    missing = [sample.id for sample in rows if sample.id not in records]
    if missing:
        raise RunError(f"benchmark {benchmark.name}: {len(missing)} samples got no answer, e.g. {missing[0]}")
    ordered = [records[sample.id] for sample in rows]
    try:
        summary = benchmark.aggregate(ordered)
    except Exception as error:  # a benchmark is a user's own code
        raise RunError(
            f"benchmark {benchmark.name}: aggregating {len(ordered)} records failed: {_told(error)}"
        ) from error
    atomic_write(out, "".join(_line(record) for record in ordered).encode("utf-8", "replace"))
    return ordered, summary


def _record(benchmark: Benchmark, sample: Sample, description: str | None, response: Response) -> Record:
    where = f"benchmark {benchmark.name}, sample {sample.id}"
    try:
        verdict = benchmark.score(sample, response.text)
        value, weight = verdict.value, float(verdict.weight)
        value = None if value is None else float(value)
    except Exception as error:  # a benchmark is a user's own code
        raise RunError(f"{where}: scoring failed: {_told(error)}") from error
    if not math.isfinite(weight) or (value is not None and not math.isfinite(value)):
        raise RunError(f"{where}: scored {value} of {weight}; a score is finite, or None for unscored")
    return Record(
        id=sample.id,
        question=sample.question,
        images=tuple(image.sha256 for image in sample.images),
        target=sample.target,
        group=sample.group,
        description=description,
        response=response.text,
        answer=verdict.answer,
        score=value,
        weight=weight,
        why=verdict.why,
        seconds=response.seconds,
        n_tokens=response.n_tokens,
        meta=sample.meta,
    )


def _line(record: Record) -> str:
    row = {field.name: getattr(record, field.name) for field in fields(record)}
    return json.dumps(row, ensure_ascii=False, default=_jsonable) + "\n"


def _jsonable(value: Any) -> Any:
    """What data sets put into targets and meta beyond JSON: NumPy's numbers, sets, read-only mappings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "keys"):
        return {str(key): value[key] for key in value.keys()}  # noqa: SIM118
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else str(value)


def _told(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"
