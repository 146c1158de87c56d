"""A model's passes: over images, over prompts from their first token or from where they part, over tokens."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch

from stic_eval.models import vision
from stic_eval.models.kv_cache import Growing, Lanes, Pool, Prefix
from stic_eval.models.loading import not_finite
from stic_eval.models.prompt_tokens import Beginning, CutPrompt, Group, Key
from stic_eval.models.sampling import Sampler, choose, finite

if TYPE_CHECKING:
    from torch import Tensor

    from stic_eval.models.loading import LoadedWeights

# Bytes of pixels that the tower is given at once (16 and 64 pictures of 336 pixels), and most images.
_CPU_PIXELS, _GPU_PIXELS, _IMAGES = 22 << 20, 87 << 20, 64


@dataclass
class ActiveRow:
    """A request under way.

    Attributes:
        tokens: What has been answered so far.
        seconds: Of the model's time: of each pass that it took part in, its share.
    """

    prompt: CutPrompt
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)
    seconds: float = 0.0
    done: bool = False


class Passes:
    """Runs a model, with the adapter that is attached to it.

    Attributes:
        on_gpu: Whether passes are large.
        windowed: Whether questions of other lengths may not stand in one pass behind their beginnings.
        trace: Where it is a list, the logits of every pass are put there.
    """

    def __init__(self, loaded: LoadedWeights) -> None:
        self._loaded, self._model = loaded, loaded.base
        self._takes = set(signature(loaded.base.forward).parameters)
        self._axes = hasattr(vision.encoder(loaded.base), "get_rope_index")
        # What an adapter of the tower or the projector makes of an image is that adapter's alone.
        self._seen_by = "" if loaded.adapter is None or vision.frozen(loaded.base) else loaded.adapter_key
        self.on_gpu = loaded.device.type == "cuda"
        # A window counts columns, padding between a beginning and its question included.
        text = loaded.base.config.get_text_config()
        self.windowed = any(getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))
        self.trace: list[Tensor] | None = None

    def features(self, prompts: Sequence[CutPrompt]) -> dict[int, vision.Features]:
        """Features of the images of prompts, by the group's identity, on the device."""
        found: dict[int, vision.Features] = {}
        alike: dict[Any, list[Group]] = defaultdict(list)
        for group in {id(prompt.group): prompt.group for prompt in prompts}.values():
            seen = group.beginning.features or self._known_features(group)
            if seen is not None:
                found[id(group)] = seen.to(self._loaded.device)
            elif group.pixels is not None:
                alike[tuple((name, tensor.shape) for name, tensor in group.pixels.items())].append(group)
        for groups in alike.values():
            most = _GPU_PIXELS if self.on_gpu else _CPU_PIXELS
            at_once = min(_IMAGES, max(1, most // max(groups[0].pixel_bytes, 1)))
            for start in range(0, len(groups), at_once):
                part = groups[start : start + at_once]
                encoded = vision.encode(
                    self._model, [self._loaded.to_device(group.pixels or {}) for group in part]
                )
                for group, features in zip(part, encoded, strict=True):
                    found[id(group)] = features
                    if self._loaded.reuse:
                        beginning = replace(group.beginning, features=features.to("cpu", copy=True))
                        group.pixels, group.beginning = None, beginning
                        self._loaded.beginnings.put((self._seen_by, group.key), beginning)
        return found

    def find_beginning(self, key: Key) -> Beginning | None:
        """A beginning whose images were encoded before; None: there is none."""
        return self._loaded.beginnings.get((self._seen_by, key))

    def _known_features(self, group: Group) -> vision.Features | None:
        known = self.find_beginning(group.key)
        return known.features if known is not None else None

    def prefill(
        self, prompts: Sequence[CutPrompt], features: dict[int, vision.Features], pool: Pool, first: int = 0
    ) -> tuple[list[ActiveRow], Lanes]:
        """Computes prompts from their first token on.

        Args:
            pool: Where their keys and values go.
        """
        begin = time.perf_counter()
        device = self._loaded.device
        columns = max(map(len, prompts))
        pad = self._loaded.processor.tokenizer.pad_token_id
        ids = torch.full((len(prompts), columns), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        positions = torch.zeros((3, *ids.shape) if self._axes else ids.shape, dtype=torch.long)
        kinds = {name: torch.zeros_like(ids) for prompt in prompts
                 for name in prompt.group.beginning.kinds if name in self._takes}  # fmt: skip
        for row, prompt in enumerate(prompts):
            beginning, start = prompt.group.beginning, columns - len(prompt)
            middle = start + len(beginning.ids)
            ids[row, start:middle], ids[row, middle:] = beginning.ids, torch.tensor(prompt.rest)
            mask[row, start:] = 1
            positions[..., row, start:middle] = beginning.positions
            positions[..., row, middle:] = beginning.next + torch.arange(len(prompt.rest))
            for name, kind in kinds.items():
                kind[row, start:middle] = beginning.kinds[name]
        seen = [features[id(prompt.group)] for prompt in prompts if id(prompt.group) in features]
        given: dict[str, Any] = {name: kind.to(device) for name, kind in kinds.items()}
        if seen:
            given["mm_encoder_outputs"] = vision.join_features(seen)
        cache, mask = pool.part(first, *ids.shape), mask.to(device)
        logits = self._forward(cache, mask, ids.to(device), positions.to(device), **given)
        return self._first_tokens(prompts, cache, mask, logits, begin)

    def prefill_rest(
        self, prompts: Sequence[CutPrompt], prefixes: Sequence[Prefix], pool: Pool, first: int = 0
    ) -> tuple[list[ActiveRow], Lanes]:
        """Computes prompts whose beginnings are there.

        Args:
            prefixes: Their beginnings, each as long as its prompt says.
        """
        begin = time.perf_counter()
        device = self._loaded.device
        columns = max(len(prompt.rest) for prompt in prompts)
        cache, before = pool.begin(first, prefixes, columns)
        ids = torch.full((len(prompts), columns), self._loaded.processor.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        positions = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            start = columns - len(prompt.rest)
            ids[row, start:], mask[row, start:] = torch.tensor(prompt.rest), 1
            positions[row, start:] = prompt.group.beginning.next + torch.arange(len(prompt.rest))
        if self._axes:
            positions = positions.expand(3, *positions.shape)
        mask = torch.cat([before, mask.to(device)], dim=1)
        logits = self._forward(cache, mask, ids.to(device), positions.to(device))
        return self._first_tokens(prompts, cache, mask, logits, begin)

    def _first_tokens(
        self, prompts: Sequence[CutPrompt], cache: Growing, mask: Tensor, logits: Tensor, begin: float
    ) -> tuple[list[ActiveRow], Lanes]:
        """Chooses each row's first token."""
        rows = [ActiveRow(prompt, Sampler(prompt.request.generation)) for prompt in prompts]
        following = [prompt.group.beginning.next + len(prompt.rest) for prompt in prompts]
        position = torch.tensor(following, device=self._loaded.device)
        lanes = Lanes(cache, mask, position, self._choose_tokens(rows, logits))
        for row in rows:
            row.seconds = (time.perf_counter() - begin) / len(rows)
        return rows, lanes

    # ------------------------------------------------------------ tokens

    def decode(self, rows: Sequence[ActiveRow], lanes: Lanes) -> None:
        """Reads each row's last token and chooses the next."""
        start = time.perf_counter()
        ids, positions = lanes.last[:, None], lanes.position[:, None]
        lanes.mask = torch.cat([lanes.mask, torch.ones_like(ids)], dim=1)
        if self._axes:
            positions = positions.expand(3, *positions.shape)
        logits = self._forward(lanes.cache, lanes.mask, ids, positions)
        lanes.position, lanes.last = lanes.position + 1, self._choose_tokens(rows, logits)
        for row in rows:
            row.seconds += (time.perf_counter() - start) / len(rows)

    def _forward(self, cache: Growing, mask: Tensor, ids: Tensor, positions: Tensor, **given: Any) -> Tensor:
        """Logits after the last token, float32 of shape (rows, vocabulary)."""
        if "logits_to_keep" in self._takes:
            given["logits_to_keep"] = 1
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **given,
        )
        logits: Tensor = output.logits[:, -1].float()
        if self.trace is not None:
            self.trace.append(logits)
        return logits

    def _choose_tokens(self, rows: Sequence[ActiveRow], logits: Tensor) -> Tensor:
        """Each row's next token.

        Raises:
            RunError: Logits are not finite.
        """
        tokens = choose(logits, [row.sampler for row in rows])
        # In one transfer: -1 stands for a token that was chosen by nothing.
        ids = tokens.where(finite(logits, tokens), -1).tolist()
        for row, token in zip(rows, ids, strict=True):
            if not row.done:
                if token < 0:
                    raise not_finite(self._loaded, row.prompt.request)
                row.tokens.append(token)
                how = row.prompt.request.generation
                over = len(row.tokens) >= how.max_new_tokens or token in self._loaded.ends
                row.done = over or self._loaded.detokenizer.stops(row.tokens, how.stop, row.prompt.text)
        return tokens
