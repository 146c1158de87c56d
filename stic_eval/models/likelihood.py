"""How likely a model holds given answers: their tokens' log-probabilities, teacher forced.

What is asked is written and tokenized as it is when the model generates, so that an answer which the model
has given greedily is the likeliest at each of its tokens.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from stic_eval.models.conversation import Span, assemble, tail_of
from stic_eval.models.diffusion import add_noise
from stic_eval.models.free_memory import release, too_small, within_memory
from stic_eval.models.loading import not_finite
from stic_eval.models.prompt_text import common, render_prompts
from stic_eval.models.response_cache import GivenAnswer
from stic_eval.types import Likelihood, Message, Request

if TYPE_CHECKING:
    from pathlib import Path

    from stic_eval.models.loading import LoadedWeights


_WINDOW = 2048  # questions that are put in order at a time
_ROWS, _TOKENS = 32, 8192  # of a forward pass at most; texts of whose tokens so many are images'


@dataclass
class _AnswerRow:
    """A prompt with an answer, or with several that differ in their last token alone.

    Attributes:
        text: Prompt and answer as the template writes them.
        span: Where the answer lies in it.
        ends: Each answer's question and last token.
        n_tokens: Of an answer.
    """

    request: Request
    text: str
    span: Span
    ends: list[tuple[GivenAnswer, int]]
    n_tokens: int


def likelihoods(
    loaded: LoadedWeights, adapter: Path | None, key: str, asked: Iterable[GivenAnswer]
) -> Iterator[tuple[GivenAnswer, Likelihood]]:
    """Scores answers in batches of like length, in an order of its own.

    Args:
        asked: (request, answer). The request's decoding has no say. Where it ends in an assistant's turn,
            the answer goes on from it, white space between them included.

    Yields:
        Every question with its likelihood, alike ones once; 0 nats of 0 tokens where an answer has none.

    Raises:
        UserError: An image cannot be decoded, or a single row does not fit in memory.
        RunError: Logits are not finite.
    """
    stream = iter(asked)
    while window := list(islice(stream, _WINDOW)):
        rows = _rows(loaded, window)
        yield from ((one, Likelihood(0.0, 0)) for row in rows if not row.n_tokens for one, _ in row.ends)
        queue = deque(_batches([row for row in rows if row.n_tokens], loaded.batch_size))
        while queue:
            batch = queue.popleft()
            found = within_memory(partial(_score_batch, loaded, adapter, key, batch))
            if found is None:
                if len(batch) == 1 and not len(loaded.prefixes):
                    raise too_small(loaded.device)
                loaded.prefixes.clear()
                release(loaded.device)
                half = (len(batch) + 1) // 2
                queue.extendleft(part for part in (batch[half:], batch[:half]) if part)
                continue
            yield from found


def _rows(loaded: LoadedWeights, asked: Sequence[GivenAnswer]) -> list[_AnswerRow]:
    found: dict[tuple[Request, int, tuple[int, ...]], _AnswerRow] = {}
    unlike = list(dict.fromkeys(asked))
    for (request, answer), (text, span) in zip(unlike, _render(loaded, unlike), strict=True):
        ids, marks = tail_of(loaded.processor.tokenizer, text, [span])
        own = [token for token, mark in zip(ids, marks, strict=True) if mark]
        row = _AnswerRow(request, text, span, [], len(own))
        ends = found.setdefault((request, len(own), tuple(own[:-1])), row).ends
        ends.append(((request, answer), own[-1] if own else -1))
    return list(found.values())


def _render(loaded: LoadedWeights, asked: Sequence[GivenAnswer]) -> Iterator[tuple[str, Span]]:
    """Prompts and answers as the template writes them, up to the answer's end, and where the answer lies."""
    whole = []
    for request, answer in asked:
        *before, last = request.messages
        turns = (*before, Message("assistant", last.text + answer))
        if last.role != "assistant":
            turns = (*request.messages, Message("assistant", answer))
        whole.append(replace(request, messages=turns))
    heads = render_prompts(loaded.processor, [request for request, _ in asked], loaded.control)
    for head, text in zip(heads, render_prompts(loaded.processor, whole, loaded.control), strict=True):
        # White space that the template writes in front of an answer is the answer's: the model gives it.
        yield text, (len(common(head, text)), len(text))


def _batches(rows: Sequence[_AnswerRow], most: int) -> Iterator[list[_AnswerRow]]:
    """Rows with equally many images, of like length, the longest first; those with noise alone."""
    groups: dict[tuple[int, bool], list[_AnswerRow]] = {}
    for row in rows:
        images = row.request.images
        groups.setdefault((len(images), any(image.diffusion for image in images)), []).append(row)
    for (_, noisy), group in groups.items():
        order = sorted(group, key=lambda row: len(row.text), reverse=True)
        while order:
            longest = len(order[0].text) // 4 + 1  # four characters are about a token
            size = 1 if noisy else max(1, min(most, _ROWS, _TOKENS // longest))
            yield order[:size]
            order = order[size:]


def _score_batch(
    loaded: LoadedWeights, adapter: Path | None, key: str, batch: Sequence[_AnswerRow]
) -> list[tuple[GivenAnswer, Likelihood]]:
    images = [[image.load() for image in row.request.images] for row in batch]
    inputs = assemble(loaded.processor, images, [(row.text, [row.span]) for row in batch])
    answers = inputs.pop("answer_mask")[:, 1:] == 1
    ids = inputs["input_ids"][:, 1:][answers]
    inputs = loaded.to_device(add_noise(inputs, batch[0].request.images))
    logps = _answers_logps(loaded.attach(adapter, key), loaded, inputs, answers)
    found: list[tuple[GivenAnswer, Likelihood]] = []
    start = 0
    for row, count in zip(batch, answers.sum(dim=1).tolist(), strict=True):
        own, tokens = logps[start : start + count], ids[start : start + count]
        start += count
        # In double precision: sums do not depend on what stands beside them in the batch.
        before = own[:-1].gather(1, tokens[:-1, None]).double().sum() if count > 1 else 0.0
        for asked, last in row.ends:
            logp = float(before + own[-1, last].double())
            if math.isnan(logp):  # which any NaN or infinity among a token's logits makes of all of them
                raise not_finite(loaded, asked[0])
            found.append((asked, Likelihood(logp, row.n_tokens)))
    return found


def _answers_logps(
    model: Any, loaded: LoadedWeights, inputs: dict[str, Any], answers: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of all tokens, (answers' tokens, vocabulary) in float32 on the CPU.

    The head sees what predicts an answer's token and nothing else: logits of whole prompts would take
    more memory than the model.
    """
    base = model.get_base_model() if loaded.peft is not None else model

    def narrow(module: Any, given: Any, output: Any) -> Any:
        states = output.last_hidden_state
        output.last_hidden_state = states[:, :-1][answers.to(states.device)][None]
        return output

    hook = base.base_model.register_forward_hook(narrow)
    try:
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits
            logps: torch.Tensor = logits[0].float().log_softmax(dim=-1).cpu()
            return logps
    finally:
        hook.remove()
