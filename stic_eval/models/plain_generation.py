"""Generation by transformers alone, for models that `stic_eval.models.continuous_batching` does not fit."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import torch

from stic_eval.models.diffusion import add_noise
from stic_eval.models.free_memory import release, too_small, within_memory
from stic_eval.models.loading import not_finite
from stic_eval.models.prompt_text import adds_start, render_prompts
from stic_eval.models.sampling import Sampler, finite, perturb
from stic_eval.types import Request, Response

if TYPE_CHECKING:
    from pathlib import Path

    from stic_eval.models.loading import LoadedWeights

_WINDOW = 512  # requests that are put in order at a time


@dataclass(frozen=True, slots=True)
class _Rendered:
    request: Request
    prompt: str


def answers(
    loaded: LoadedWeights, adapter: Path | None, key: str, requests: Iterable[Request], *, alone: bool = False
) -> Iterator[tuple[Request, Response]]:
    """Answers requests in padded batches, those of similar length together, the longest first.

    Args:
        requests: Are taken from the stream some hundreds at a time.
        alone: Each in a batch of its own.
    """
    stream = iter(requests)
    while window := list(islice(stream, _WINDOW)):
        texts = render_prompts(loaded.processor, window, loaded.control)
        queue = deque(
            _batches(
                [_Rendered(r, t) for r, t in zip(window, texts, strict=True)],
                1 if alone else loaded.batch_size,
            )
        )
        while queue:
            batch, most = queue.popleft(), loaded.batch_size
            if len(batch) > most:  # since one has turned out to be too large for the memory
                queue.appendleft(batch[most:])
            start = time.perf_counter()
            rows = _generate_tokens(loaded, adapter, key, batch[:most])
            seconds = (time.perf_counter() - start) / len(rows)
            for asked, tokens in zip(batch, rows, strict=False):
                stop = asked.request.generation.stop
                yield asked.request, loaded.response(tokens, seconds, stop, asked.prompt)
            loaded.rows.answered(len(rows))


def _batches(asked: Sequence[_Rendered], most: int) -> Iterator[list[_Rendered]]:
    """Batches of requests that are decoded alike and have equally many images, one that has noise alone."""
    groups: dict[tuple[object, ...], list[_Rendered]] = defaultdict(list)
    for one in asked:
        how, images = one.request.generation, one.request.images
        noisy = any(image.diffusion for image in images)
        groups[how.max_new_tokens, how.temperature, how.top_p, how.stop, len(images), noisy].append(one)
    for key, group in groups.items():
        group.sort(key=lambda one: len(one.prompt), reverse=True)
        size = 1 if key[-1] else most
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _inputs(loaded: LoadedWeights, batch: Sequence[_Rendered]) -> dict[str, torch.Tensor]:
    """Model inputs on the device: token ids of shape (rows, tokens), padded on the left, and pixels."""
    images = [[image.load() for image in asked.request.images] for asked in batch]
    inputs = loaded.processor(
        text=[asked.prompt for asked in batch],
        images=images if any(images) else None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        add_special_tokens=adds_start(loaded.processor.tokenizer, batch[0].prompt),
    )
    return loaded.to_device(add_noise(inputs, batch[0].request.images))


def _generate_tokens(
    loaded: LoadedWeights, adapter: Path | None, key: str, batch: Sequence[_Rendered]
) -> list[list[int]]:
    """Generated token ids of each row up to its end token."""
    seen: list[torch.Tensor] = []
    generated = within_memory(lambda: generate(loaded, adapter, key, batch, seen))
    if generated is not None:
        output, width = generated
        rows = [_cut_at_end(row, loaded.ends) for row in output.sequences[:, width:].tolist()]
        fine = torch.stack(seen, dim=1).tolist()
        for asked, tokens, by_token in zip(batch, rows, fine, strict=True):
            if not all(by_token[: len(tokens)]):
                raise not_finite(loaded, asked.request)
        stop = batch[0].request.generation.stop
        return [
            list(loaded.detokenizer.cut_at_stop(row, stop, asked.prompt))
            for asked, row in zip(batch, rows, strict=True)
        ]
    if len(batch) == 1 and not len(loaded.prefixes):
        raise too_small(loaded.device)
    loaded.prefixes.clear()
    release(loaded.device)
    if len(batch) == 1:
        return _generate_tokens(loaded, adapter, key, batch)
    half = (len(batch) + 1) // 2
    loaded.rows.halve(len(batch))
    parts = (batch[:half], batch[half:])
    return list(chain.from_iterable(_generate_tokens(loaded, adapter, key, part) for part in parts))


def generate(
    loaded: LoadedWeights,
    adapter: Path | None,
    key: str,
    batch: Sequence[_Rendered],
    seen: list[torch.Tensor] | None = None,
    **wanted: Any,
) -> tuple[Any, int]:
    """What transformers' `generate` gives for a batch, and how many tokens its prompts have.

    Args:
        seen: Where is put for each new token which rows' logits are finite, of shape (rows,).
        wanted: Further settings of `GenerationConfig`.
    """
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    first = batch[0].request.generation
    processors = LogitsProcessorList()
    if seen is not None:
        processors.append(lambda ids, scores: _record_finite(scores, seen))
    if first.temperature > 0:
        samplers = [Sampler(asked.request.generation) for asked in batch]
        processors.append(lambda ids, scores: perturb(scores, samplers, first.temperature, first.top_p))
    config = GenerationConfig(
        max_new_tokens=first.max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=sorted(loaded.ends),
        pad_token_id=loaded.processor.tokenizer.pad_token_id,
        return_dict_in_generate=True,
        **wanted,
    )
    inputs = _inputs(loaded, batch)
    width = inputs["input_ids"].shape[1]

    def find_stopped(ids: torch.Tensor, scores: Any, **how: Any) -> torch.Tensor:
        rows = zip(batch, ids[:, width:].tolist(), strict=True)
        found = [loaded.detokenizer.stops(row, first.stop, asked.prompt) for asked, row in rows]
        return torch.tensor(found, device=ids.device)

    criteria = StoppingCriteriaList([find_stopped] if first.stop else [])
    model = loaded.attach(adapter, key)
    with torch.inference_mode():
        output = model.generate(
            **inputs, generation_config=config, logits_processor=processors, stopping_criteria=criteria
        )
    return output, width


def _record_finite(scores: torch.Tensor, seen: list[torch.Tensor]) -> torch.Tensor:
    seen.append(finite(scores, scores.argmax(dim=-1)))
    return scores


def render_request(loaded: LoadedWeights, request: Request) -> _Rendered:
    """A request as the model's template writes it."""
    return _Rendered(request, render_prompts(loaded.processor, [request], loaded.control)[0])


def _cut_at_end(row: list[int], ends: frozenset[int]) -> list[int]:
    end = next((i for i, token in enumerate(row) if token in ends), len(row))
    return row[: end + 1]
