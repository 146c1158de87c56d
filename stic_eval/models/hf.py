"""Vision-language models in this process, by transformers: batches, adapters, decoding."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stic_eval.models import loading
from stic_eval.models.fingerprint import adapter_fingerprint, model_fingerprint
from stic_eval.models.text import plain
from stic_eval.types import Generation, Request, Response

if TYPE_CHECKING:
    import torch

    from stic_eval.models.loading import Loaded

__all__ = ["HFModel", "model_fingerprint"]


class HFModel:
    """A model in memory, as it is or with an adapter. Make one by `load`.

    Views of the same weights (`with_adapter`) may be used in turn; each sees to it that its own adapter is
    attached when it is asked something.

    Attributes:
        fingerprint: Weights and adapter by content.
        processor: The model's processor.
        device: Where it is.
        dtype: Of its weights.
    """

    def __init__(self, loaded: Loaded, adapter: Path | None = None) -> None:
        self._loaded, self._adapter = loaded, adapter
        self.fingerprint = adapter_fingerprint(loaded.fingerprint, adapter)
        self.processor, self.device, self.dtype = loaded.processor, loaded.device, loaded.dtype

    @classmethod
    def load(
        cls,
        model: str,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
        trust_remote_code: bool = False,
    ) -> HFModel:
        """Loads a model and its processor.

        Args:
            model: `pocket`, a folder, or a hub id.
            revision: Of a hub id.
            device: `auto` takes CUDA, MPS or the CPU, the first that there is.
            dtype: `auto` is float32 on a CPU and for float32 checkpoints, bfloat16 otherwise.
            batch_size: Most requests in a batch; `auto` goes by device and free memory.
            trust_remote_code: Lets transformers execute code from the model's repository.

        Raises:
            UserError: There is no such model or device, it cannot be loaded, takes no images, or has no
                chat template.
        """
        return cls(
            loading.load(
                model,
                revision=revision,
                device=device,
                dtype=dtype,
                batch_size=batch_size,
                trust_remote_code=trust_remote_code,
            )
        )

    @property
    def model(self) -> Any:
        """The PreTrainedModel, or the PeftModel around it; good until another view is used."""
        return self._loaded.attach(self._adapter)

    def with_adapter(self, adapter: Path | None) -> HFModel:
        """The same weights with an adapter, or without any for None.

        Raises:
            UserError: The folder holds no PEFT adapter in safetensors.
        """
        return HFModel(self._loaded, adapter)

    def generate(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Response]]:
        """Answers requests in batches, those of similar length together, the longest first.

        On a CPU in float32 an answer does not depend on the batch that it was made in (but for
        rounding, by far too small to change a token in practice); sampling is seeded by request.

        Raises:
            UserError: An image cannot be decoded.
        """
        queue = deque(batch for group in self._groups(list(requests)) for batch in group)
        if not queue:
            return
        # One worker decodes and pre-processes the next batch while the model is busy with this one.
        with ThreadPoolExecutor(max_workers=1) as pool:
            upcoming: deque[tuple[list[_Asked], Future[dict[str, torch.Tensor]]]] = deque()
            while queue or upcoming:
                while queue and len(upcoming) < 2:
                    batch = self._next(queue)
                    upcoming.append((batch, pool.submit(self._prepare, batch)))
                batch, prepared = upcoming.popleft()
                inputs = prepared.result()
                start = time.perf_counter()
                answers = self._answer(batch, inputs)
                seconds = (time.perf_counter() - start) / len(batch)
                texts = self._texts([tokens for tokens, _ in answers])
                for asked, text, (tokens, stopped) in zip(batch, texts, answers, strict=True):
                    reason: Literal["stop", "length"] = "stop" if stopped else "length"
                    yield asked.request, Response(text.strip(), len(tokens), reason, seconds)

    # ------------------------------------------------------------ from requests to batches

    def _groups(self, requests: Sequence[Request]) -> Iterator[Iterator[list[_Asked]]]:
        """Batches of requests that are decoded alike and have equally many images."""
        groups: dict[tuple[object, ...], list[_Asked]] = defaultdict(list)
        for request, prompt in zip(requests, self._prompts(requests), strict=True):
            how = request.generation
            kind = (how.max_new_tokens, how.temperature, how.top_p, len(request.images))
            groups[kind].append(_Asked(request, prompt))
        for group in groups.values():
            group.sort(key=lambda asked: len(asked.prompt), reverse=True)
            yield (
                group[start : start + self._loaded.batch_size]
                for start in range(0, len(group), self._loaded.batch_size)
            )

    def _next(self, queue: deque[list[_Asked]]) -> list[_Asked]:
        """Takes a batch, or what of it fits since one has turned out to be too large for the memory."""
        batch, most = queue.popleft(), self._loaded.batch_size
        if len(batch) > most:
            queue.appendleft(batch[most:])
        return batch[:most]

    def _prompts(self, requests: Sequence[Request]) -> list[str]:
        """Prompts as the model's chat template writes them, up to where the answer begins."""
        if not requests:
            return []
        conversations = [self._conversation(request) for request in requests]
        prompts: list[str] = self.processor.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=False
        )
        return prompts

    def _conversation(self, request: Request) -> list[dict[str, Any]]:
        turns: list[dict[str, Any]] = []
        images = len(request.images)
        for message in request.messages:
            text = plain(message.text, self._loaded.control)
            parts = [{"type": "text", "text": text}]
            if message.role == "user" and images:
                parts = [{"type": "image"}] * images + parts
                images = 0
            turns.append({"role": message.role, "content": parts})
        return turns

    def _prepare(self, batch: Sequence[_Asked]) -> dict[str, torch.Tensor]:
        """Model inputs on the CPU: token ids of shape (rows, tokens), padded on the left, and pixels."""
        tokenizer = self.processor.tokenizer
        prompts = [asked.prompt for asked in batch]
        images = [[ref.load() for ref in asked.request.images] for asked in batch]
        # A template that writes the start token itself must not get a second one.
        starts = bool(tokenizer.bos_token) and prompts[0].startswith(tokenizer.bos_token)
        with self._loaded.tokenizing:
            inputs = self.processor(
                text=prompts,
                images=images if any(images) else None,
                padding=True,
                padding_side="left",
                return_tensors="pt",
                add_special_tokens=not starts,
            )
        return dict(inputs)

    # ------------------------------------------------------------ decoding

    def _answer(
        self, batch: Sequence[_Asked], inputs: dict[str, torch.Tensor]
    ) -> list[tuple[list[int], bool]]:
        """Generated token ids of each row up to its end token, and whether there was one."""
        import torch

        try:
            return self._decode([asked.request.generation for asked in batch], inputs)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        # Outside of the handler, which keeps the failed attempt's tensors alive.
        torch.cuda.empty_cache()
        half = (len(batch) + 1) // 2
        self._loaded.batch_size = min(self._loaded.batch_size, half)
        parts = (batch[:half], batch[half:])
        return list(chain.from_iterable(self._answer(part, self._prepare(part)) for part in parts))

    def _decode(
        self, how: Sequence[Generation], inputs: dict[str, torch.Tensor]
    ) -> list[tuple[list[int], bool]]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        from stic_eval.models.sampling import GumbelSampler

        first = how[0]
        processors = LogitsProcessorList()
        if first.temperature > 0:
            seeds = [generation.seed for generation in how]
            processors.append(GumbelSampler(seeds, first.temperature, first.top_p))
        config = GenerationConfig(
            max_new_tokens=first.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(self._loaded.ends),
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        moved = {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }
        with torch.inference_mode():
            output = self.model.generate(**moved, generation_config=config, logits_processor=processors)
        rows = output[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._cut(row) for row in rows]

    def _texts(self, rows: list[list[int]]) -> list[str]:
        with self._loaded.tokenizing:
            return [
                self.processor.tokenizer.decode(
                    row, skip_special_tokens=True, clean_up_tokenization_spaces=False
                )
                for row in rows
            ]

    def _cut(self, row: list[int]) -> tuple[list[int], bool]:
        end = next((i for i, token in enumerate(row) if token in self._loaded.ends), None)
        return (row, False) if end is None else (row[: end + 1], True)


@dataclass(frozen=True, slots=True)
class _Asked:
    request: Request
    prompt: str
