"""One benchmark from samples to records and summary."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from pydantic import BaseModel

from stic_eval.contracts.benchmark import Benchmark
from stic_eval.contracts.engine import VLM, ProgressUpdate
from stic_eval.contracts.method import PromptSet
from stic_eval.contracts.solver import Asking, Solver
from stic_eval.errors import Contained, RunError
from stic_eval.evals import clusters, constant_answers
from stic_eval.evals.scoring.aggregate import ROUNDING, odd
from stic_eval.registry import explain_call
from stic_eval.types import Record, Response, Sample, Score, Summary


class _Nothing(dict[str, Any]):
    """An empty mapping for all records that have no labels or meta: many dictionaries take much memory."""

    def __setitem__(self, key: str, value: Any) -> None:
        raise TypeError("records are read-only; make a new mapping")

    setdefault = update = __ior__ = __setitem__  # type: ignore[assignment]


_NOTHING = _Nothing()
UNCLOSED = "cut while the model was thinking"
# Opens a piece of work with so many items: what to call as they get done.
OpenProgress = Callable[[str, int], AbstractContextManager[ProgressUpdate]]


class Judge(Protocol):
    """Who decides what rules leave open."""

    def grade(
        self, benchmark: Benchmark, cases: Sequence[tuple[Sample, str]], progress: ProgressUpdate
    ) -> Iterator[tuple[int, Score, Mapping[str, Any]]]:
        """Yields for every case (sample, response) once its number, verdict, and what a record keeps."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """A sample with its answer and the verdict of the rules."""

    sample: Sample
    response: Response
    verdict: Score
    description: str | None = None


def evaluate(
    benchmark: Benchmark,
    rows: Sequence[Sample],
    model: VLM,
    solver: Solver,
    options: BaseModel,
    *,
    prompts: PromptSet,
    progress: ProgressUpdate,
    judge: Judge | None = None,
    step: OpenProgress | None = None,
) -> tuple[list[Record], Summary]:
    """Asks, scores and records every sample, and sums up.

    Args:
        progress: Called with (samples finished, samples in all).
        judge: Decides what rules leave open; None: then the rules have the last word.
            A sample that the model failed to answer is unscored, and no judge is asked about it.

    Returns:
        The records in the samples' order, and their summary.

    Raises:
        RunError: The benchmark's scoring fails on a sample, which is named.
    """
    answered = ask(benchmark, rows, model, solver, options, prompts=prompts, progress=progress)
    return conclude(benchmark, cut_thinking(answered), judge, step)


def ask(
    benchmark: Benchmark,
    rows: Sequence[Sample],
    model: VLM,
    solver: Solver,
    options: BaseModel,
    *,
    prompts: PromptSet,
    progress: ProgressUpdate,
) -> list[Answered]:
    """Asks every sample, and has the rules judge; in the samples' order.

    Args:
        progress: Called with (samples finished, samples in all).

    Raises:
        RunError: The benchmark's scoring fails on a sample, which is named.
    """
    answered: dict[str, Answered] = {}
    progress(0, len(rows))

    def read(sample: Sample, text: str) -> str | None:
        return verdict_of(benchmark, sample, text).answer

    asking = Asking(benchmark.generation, read, prompts)
    for sample, description, response in solver.solve(rows, model, asking, options):
        if response.finish_reason == "failed":
            verdict = Score(None, why=f"no answer: {response.why}")
        elif response.unclosed:
            verdict = Score(None, why=UNCLOSED)
        else:
            verdict = verdict_of(benchmark, sample, response.text)
        answered[sample.id] = Answered(sample, response, verdict, description)
        progress(len(answered), len(rows))
    missing = [sample.id for sample in rows if sample.id not in answered]
    if missing:
        raise RunError(f"benchmark {benchmark.name}: {len(missing)} samples got no answer, e.g. {missing[0]}")
    return [answered[sample.id] for sample in rows]


def cut_thinking(answered: Sequence[Answered], finished: bool = False) -> list[Answered]:
    """Answers, of which those without any tag are cut thinking where half of the others only close it.

    There the prompt has opened the thinking, and what does not close it is no answer, though it may read like
    one. Whoever has the prompt sees that in it; of a server's replies, and of answers in a file, this is how
    it shows. A single answer that speaks of such a tag shows nothing.

    Args:
        finished: Nobody knows which answers have run into their bound: any of them may.
    """
    closed, told = closing((item.response for item in answered), finished)
    if not prompts_open_thinking(closed, told):
        return list(answered)
    return [as_cut(item, finished) for item in answered]


def prompts_open_thinking(closed: int, told: int) -> bool:
    """Whether half of the answers that tell only close a tag of thinking; see `closing`."""
    return closed > 0 and 2 * closed >= told


def as_cut(item: Answered, finished: bool = False) -> Answered:
    """An answer where prompts open the thinking: cut within it if it closes none and may have been cut."""
    found = item.response
    cut = finished or found.finish_reason == "length"
    if not cut or found.opened or found.thinking or not found.text:
        return item
    response = replace(found, text="", thinking=found.text, unclosed=True)
    return replace(item, response=response, verdict=Score(None, why=UNCLOSED))


def closing(responses: Iterable[Response], finished: bool = False) -> tuple[int, int]:
    """How many answers only close a tag of thinking, and of how many that tell whether prompts open one.

    Those tell nothing that are empty, that open their thinking themselves or had it told apart, and that ran
    into their bound before they closed it.
    """
    closed = plain = 0
    for found in responses:
        closed += found.opened and not found.unclosed
        if found.text and not (found.opened or found.thinking):
            plain += finished or found.finish_reason == "stop"
    return closed, closed + plain


def conclude(
    benchmark: Benchmark,
    answered: Iterable[Answered],
    judge: Judge | None = None,
    step: OpenProgress | None = None,
) -> tuple[list[Record], Summary]:
    """Has a judge decide what is open, and sums up.

    Args:
        answered: May come one by one: of those that no judge is asked about the records alone are held.

    Raises:
        RunError: The benchmark's aggregation fails, or its score is not what its units, or its own
            statistic, come to.
    """
    judged = judge is not None and benchmark.judging is not None
    records: list[Record] = []
    cases: list[tuple[int, Answered]] = []  # the record's number, and what is asked about
    plain = constant_answers.PlainTargets()
    failed = blank = cut = 0
    for item in answered:
        if judged and item.verdict.open:
            cases.append((len(records), item))
        records.append(record_of(item))
        plain.add(item.sample)
        reason = item.response.finish_reason
        failed += reason == "failed"
        cut += reason == "length"
        blank += reason != "failed" and not item.response.text.strip()
    if judge is not None and cases:
        open_step = step or (lambda name, total: nullcontext(lambda done, total: None))
        asked = [(item.sample, item.response.text) for _, item in cases]
        with open_step(f"judge {benchmark.title}", len(asked)) as progress:
            for index, verdict, info in judge.grade(benchmark, asked, progress):
                number, item = cases[index]
                records[number] = record_of(replace(item, verdict=verdict), info)
    decided = sum(record.judge is not None and record.score is not None for record in records)
    summary = replace(
        _aggregate(benchmark, records),
        answers=len(records),
        judged=decided,
        unanswered=failed,
        thoughtful=sum(bool(record.thinking) for record in records),
        unclosed=sum(record.unclosed for record in records),
    )
    summary = replace(
        summary,
        gradings=_gradings(benchmark, records),
        descriptions=len({record.description for record in records if record.description is not None}),
        constant=constant_answers.constant_answer(records),
        best_constant=constant_answers.best_constant(benchmark, plain.samples, records),
        blank=blank,
        cut=cut,
    )
    return records, _with_pairing(benchmark, records, summary)


def _with_pairing(benchmark: Benchmark, records: Sequence[Record], summary: Summary) -> Summary:
    """A summary with all that differences to other runs are made of, which has to fit its score."""
    where = f"benchmark {benchmark.name}"
    if (unit := clusters.first_untraceable(records, summary.units)) is not None:
        raise RunError(
            f"{where}: it is unclear which rows its unit {unit!r} is made of; a unit has the name of its "
            "record, or the name under `unit` in the meta of its records"
        )
    try:
        with Contained():
            shared = clusters.clusters(benchmark, records)
    except Exception as error:  # a benchmark is a user's own code
        raise RunError(f"{where}: its cluster failed: {explain_call(error)}") from error
    summary = replace(summary, clusters=shared)
    if benchmark.statistic is None or summary.score is None:
        if why := odd(summary):
            raise RunError(f"{where}: {why}")
        return summary
    own = clusters.statistic(benchmark, records)
    if abs(own - summary.score) > ROUNDING:
        raise RunError(
            f"{where}: its aggregate gives {summary.score:.2f}, its statistic {own:.2f}; both are its score"
        )
    # The exact one: an aggregate may have rounded, which resamples have not.
    return replace(summary, score=own, resampled=clusters.resample_clusters(benchmark, records, shared))


def _aggregate(benchmark: Benchmark, records: Sequence[Record]) -> Summary:
    try:
        with Contained():
            return benchmark.aggregate(records)
    except Exception as error:  # a benchmark is a user's own code
        raise RunError(
            f"benchmark {benchmark.name}: aggregating {len(records)} records failed: {explain_call(error)}"
        ) from error


def _gradings(benchmark: Benchmark, records: Sequence[Record]) -> tuple[float, ...]:
    """The score by the first reply to every sample alone, by the second, ...; how far they spread."""
    repeated = [r.judge.get("values", ()) if r.judge is not None else () for r in records]
    scores = []
    for number in range(max(map(len, repeated), default=0)):
        alone = [
            replace(record, score=values[number], weight=record.judge["weights"][number])
            if record.judge is not None and len(values) > number
            else record
            for record, values in zip(records, repeated, strict=True)
        ]
        score = _aggregate(benchmark, alone).score
        scores += [] if score is None else [score]
    return tuple(scores)


def verdict_of(benchmark: Benchmark, sample: Sample, response: str, extraction: str | None = None) -> Score:
    """The rules' verdict on a response, or on the answer that was extracted from it.

    Raises:
        RunError: The benchmark's scoring fails, or gives what is no score.
    """
    name, score, text = "score", benchmark.score, response
    if extraction is not None:
        text = extraction
        if benchmark.extraction is not None:
            name, score = "extraction", benchmark.extraction
    try:
        with Contained():
            verdict: object = score(sample, text)
        if isinstance(verdict, Score):
            value = None if verdict.value is None else float(verdict.value)
            weight = float(verdict.weight)
    except Exception as error:  # a benchmark is a user's own code
        raise RunError(f"{_place(benchmark, sample)}: scoring failed: {explain_call(error)}") from error
    if not isinstance(verdict, Score):
        kind = "None" if verdict is None else type(verdict).__name__
        raise RunError(f"{_place(benchmark, sample)}: {name} has to return a stic_eval Score, not {kind}")
    if not math.isfinite(weight) or (value is not None and not math.isfinite(value)):
        where = _place(benchmark, sample)
        raise RunError(f"{where}: scored {value} of {weight}; a score is finite, or None for unscored")
    if value is verdict.value and weight is verdict.weight:  # as of nearly all
        return verdict
    return replace(verdict, value=value, weight=weight)


def _place(benchmark: Benchmark, sample: Sample) -> str:
    return f"benchmark {benchmark.name}, sample {sample.id}"


def record_of(item: Answered, judge: Mapping[str, Any] | None = None) -> Record:
    """What is kept of an answer; `judge`: what a judge's verdict came with."""
    sample, verdict, response = item.sample, item.verdict, item.response
    return Record(
        id=sample.id,
        question=sample.question,
        images=tuple([image.sha256 for image in sample.images]) if sample.images else (),
        target=sample.target,
        group=sample.group or _NOTHING,
        description=item.description,
        response=response.text,
        answer=verdict.answer,
        score=verdict.value,
        weight=verdict.weight,
        why=verdict.why,
        seconds=response.seconds,
        n_tokens=response.n_tokens,
        meta=sample.meta or _NOTHING,
        judge=judge,
        thinking=response.thinking,
        unclosed=response.unclosed,
    )


def encode(records: Sequence[Record]) -> bytes:
    """Records as JSONL."""
    rows = ({field.name: getattr(record, field.name) for field in fields(record)} for record in records)
    lines = (json.dumps(row, ensure_ascii=False, default=_jsonable) + "\n" for row in rows)
    return "".join(lines).encode("utf-8", "replace")


def _jsonable(value: Any) -> Any:
    """What data sets put into targets and meta beyond JSON: NumPy's numbers, sets, read-only mappings."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "keys"):
        return {str(key): value[key] for key in value.keys()}  # noqa: SIM118
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else str(value)
