"""Answers that were given elsewhere beside the rows that they answer, each with the rules' verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    wanted = {sample.id for sample in asked}
    # The other rows are read only for answers that may be theirs.
    theirs = benchmark.keep and any(item.by_number or item.id not in wanted for item in predictions.items)
    everything = samples(replace(benchmark, keep=None), found, images=False) if theirs else asked
    answers = match(everything, predictions, own=own)
    if outside := sum(name not in wanted for name in answers):
        note(f"{outside} answers to rows outside of the variant {benchmark.variant} are left out")
    return where, asked, {name: item for name, item in answers.items() if name in wanted}


def answered_rows(
    benchmark: Benchmark,
    rows: Sequence[Sample],
    answers: Mapping[str, Prediction],
    name: str,
    thinking: ThinkingConfig,
) -> list[runner.Answered]:
    """Every row with its answer and the rules' verdict; unscored where there is no answer.

    Args:
        benchmark: Whose rules.
        rows: The rows.
        answers: Id -> answer.
        name: The file of the answers, for reasons.
        thinking: How what was thought is told from what is answered.
    """
    answered = []
    for sample in rows:
        item = answers.get(sample.id)
        response = Response("", 0, "stop")
        if item is None:
            verdict = Score(None, why=f"no answer in {name}")
        elif item.cut:
            # As it was asked or answered nobody knows; a judge would grade a torso.
            why = (
                f"column {item.cut} was cut in {name}: a spreadsheet's cell ends at {CELL_LIMIT:,} characters"
            )
            verdict = Score(None, why=why)
        else:
            response = Response(item.response, 0, "stop", thinking=item.thinking)
            if item.unclosed is None:
                response = separate_thinking(response, thinking)
            if response.unclosed or item.unclosed:
                response = replace(response, unclosed=True)
                verdict = Score(None, why=runner.UNCLOSED)
            else:
                verdict = runner.verdict_of(benchmark, sample, response.text, item.extraction)
        answered.append(runner.Answered(sample, response, verdict))
    return runner.cut_thinking(answered, finished=True)
