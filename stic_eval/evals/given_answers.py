"""Answers that were given elsewhere beside the rows that they answer, each with the rules' verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from stic_eval.contracts.benchmark import Benchmark, HubId
from stic_eval.evals import runner
from stic_eval.evals.predictions import CELL_LIMIT, IDS_SHOWN, Prediction, Predictions, fit_no_row, match
from stic_eval.evals.rows import ListRows
from stic_eval.evals.sources import samples, samples_without_images
from stic_eval.models.thinking import separate_thinking
from stic_eval.setting_groups import ThinkingConfig
from stic_eval.types import Response, Sample, Score


def rows_of(
    benchmark: Benchmark, predictions: Predictions, source: str | None, note: Callable[[str], None]
) -> tuple[str, Iterator[Sample], dict[str, Prediction]]:
    """Reads the rows that answers are for, and finds their answers.

    Where answers have the ids of rows, as most have, the rows come as they are read, and answers that fit no
    row are found out at their end, by `answered_rows`.

    Args:
        benchmark: In the variant that is scored. Answers to rows outside of it (MMBench's rotations under
            vanilla evaluation) are left out.
        predictions: The answers.
        source: Where the rows are; None: what comes with the answers, else the hub.
        note: Takes lines on where the rows come from and what is left out.

    Returns:
        The source (empty: the answers' own file), the rows one by one, and id -> the answer to it.

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

    stream = samples_without_images(benchmark, found, hub_use=tell)
    by_id = {item.id: item for item in predictions.items}
    unique = len(by_id) == len(predictions.items)
    if benchmark.keep is None and unique and (own or not any(item.by_number for item in predictions.items)):
        held: list[Sample] = []
        for sample in stream:
            held.append(sample)
            if sample.id in by_id:
                return where, chain(held, stream), by_id
        stream = iter(held)  # no row has the id of an answer
    asked = list(stream)
    if benchmark.keep is None:
        return where, _let_go(asked), match(asked, predictions, own=own)
    wanted = {sample.id for sample in asked}
    # The other rows are read only for answers that may be theirs.
    theirs = any(item.by_number or item.id not in wanted for item in predictions.items)
    everything = samples(replace(benchmark, keep=None), found, images=False) if theirs else asked
    answers = match(everything, predictions, own=own)
    if outside := sum(name not in wanted for name in answers):
        note(f"{outside} answers to rows outside of the variant {benchmark.variant} are left out")
    return where, _let_go(asked), {name: item for name, item in answers.items() if name in wanted}


def _let_go(rows: list[Sample]) -> Iterator[Sample]:
    """Rows one by one, none of which is held any more: of very many they take as much memory as records."""
    rows.reverse()
    while rows:
        yield rows.pop()


def response_of(item: Prediction, thinking: ThinkingConfig) -> Response:
    """An answer without what was thought; of one that a spreadsheet has cut none."""
    if item.cut:  # as it was answered nobody knows
        return Response("", 0, "stop")
    response = Response(item.response, 0, "stop", thinking=item.thinking)
    if item.unclosed is None:
        response = separate_thinking(response, thinking)
    return replace(response, unclosed=True) if item.unclosed and not response.unclosed else response


def answered_rows(
    benchmark: Benchmark,
    rows: Iterable[Sample],
    answers: dict[str, Prediction],
    name: str,
    thinking: ThinkingConfig,
    prompts_open: bool,
) -> Iterator[runner.Answered]:
    """Every row with its answer and the rules' verdict; unscored where there is no answer.

    Args:
        benchmark: Whose rules.
        rows: The rows.
        answers: Id -> answer; emptied on the way, as of very many they take as much memory as records.
        name: The file of the answers, for reasons.
        thinking: How what was thought is told from what is answered.
        prompts_open: Prompts have opened the thinking: answers that close none were cut.

    Raises:
        UserError: An answer fits no row.
    """
    total = len(answers)
    ids: list[str] = []
    for sample in rows:
        if len(ids) < IDS_SHOWN:
            ids.append(sample.id)
        item = answers.pop(sample.id, None)
        if item is None:
            why = f"no answer in {name}"
            yield runner.Answered(sample, Response("", 0, "stop"), Score(None, why=why))
            continue
        response = response_of(item, thinking)
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
        yield runner.as_cut(answered, finished=True) if prompts_open else answered
    if answers:
        raise fit_no_row(answers.values(), total, ids)
    answers.clear()  # a dictionary keeps the room of what is taken out of it
