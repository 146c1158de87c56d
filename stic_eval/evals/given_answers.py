"""Answers that were given elsewhere beside the rows that they answer, each with the rules' verdict."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stic_eval.contracts.benchmark import Benchmark, HubId
from stic_eval.evals import runner
from stic_eval.evals.formats import ListRows
from stic_eval.evals.predictions import CELL_LIMIT, Prediction, Predictions, match
from stic_eval.evals.sources import samples
from stic_eval.models.thinking import separate_thinking
from stic_eval.settings import ThinkingConfig
from stic_eval.types import Response, Sample, Score


def rows_of(
    benchmark: Benchmark, predictions: Predictions, source: str | None, note: Callable[[str], None]
) -> tuple[str, list[Sample], dict[str, Prediction]]:
    """Reads the rows that answers are for.

    Args:
        benchmark: In the variant that is scored. Answers to rows outside of it (MMBench's rotations under
            vanilla evaluation) are left out.
        predictions: The answers.
        source: Where the rows are; None: what comes with the answers, else the hub.
        note: Takes lines on where the rows come from and what is left out.

    Returns:
        The source (empty: the answers' own file), the rows, and id -> the answer to it.

    Raises:
        UserError: Rows cannot be read, or an answer is for none of them.
    """
    own = source is None and bool(predictions.rows)
    where = (
        "" if own else str(Path(source).expanduser()) if source is not None else predictions.source or "hub"
    )
    found = ListRows("the rows beside the answers", predictions.rows) if own else where

    def tell(at: HubId, lines: Sequence[str]) -> None:
        for line in lines:
            note(line)

    asked = samples(benchmark, found, images=False, hub_use=tell)
    if benchmark.keep is None:
        return where, asked, match(asked, predictions, own=own)
    wanted = {sample.id for sample in asked}
    # The other rows are read only for answers that may be theirs.
    theirs = any(item.by_number or item.id not in wanted for item in predictions.items)
    everything = samples(replace(benchmark, keep=None), found, images=False) if theirs else asked
    answers = match(everything, predictions, own=own)
    if outside := sum(name not in wanted for name in answers):
        note(f"{outside} answers to rows outside of the variant {benchmark.variant} are left out")
    return where, asked, {name: item for name, item in answers.items() if name in wanted}


def responses_of(answers: Mapping[str, Prediction], thinking: ThinkingConfig) -> dict[str, Response]:
    """Sample id -> response, without what was thought; of an answer that a spreadsheet has cut an empty one.

    Args:
        answers: Id -> answer.
        thinking: How what was thought is told from what is answered.
    """
    return {name: _response_of(item, thinking) for name, item in answers.items()}


def _response_of(item: Prediction, thinking: ThinkingConfig) -> Response:
    if item.cut:  # as it was answered nobody knows
        return Response("", 0, "stop")
    response = Response(item.response, 0, "stop", thinking=item.thinking)
    if item.unclosed is None:
        response = separate_thinking(response, thinking)
    return replace(response, unclosed=True) if item.unclosed and not response.unclosed else response


def answered_rows(
    benchmark: Benchmark,
    rows: deque[Sample],
    answers: dict[str, Prediction],
    responses: dict[str, Response],
    name: str,
) -> Iterator[runner.Answered]:
    """Every row with its answer and the rules' verdict; unscored where there is no answer.

    All three are emptied on the way: of very many rows they take as much memory as what is made of them.

    Args:
        benchmark: Whose rules.
        rows: The rows.
        answers: Id -> answer.
        responses: What `responses_of` gives for them.
        name: The file of the answers, for reasons.
    """
    opened = runner.prompts_open_thinking(responses.values(), finished=True)
    while rows:
        sample = rows.popleft()
        item = answers.pop(sample.id, None)
        if item is None:
            why = f"no answer in {name}"
            yield runner.Answered(sample, Response("", 0, "stop"), Score(None, why=why))
            continue
        response = responses.pop(sample.id)
        if item.cut:  # a judge would grade a torso
            why = (
                f"column {item.cut} was cut in {name}: a spreadsheet's cell ends at {CELL_LIMIT:,} characters"
            )
            verdict = Score(None, why=why)
        elif response.unclosed:
            verdict = Score(None, why=runner.UNCLOSED)
        else:
            verdict = runner.verdict_of(benchmark, sample, response.text, item.extraction)
        answered = runner.Answered(sample, response, verdict)
        yield runner.as_cut(answered, finished=True) if opened else answered
