"""The fast way to generate: images encoded once, prompts' beginnings computed once, rows that come and go.

What is asked about one image shares the tower's features and, up to and including the image, the decoder's
keys and values. Rows are decoded together; when enough of them are done, new ones take their places. None
of it changes an answer but for rounding: `stic_eval.models.probe` compares with transformers' own
`generate` before a model is trusted with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from stic_eval.models.forward_passes import ActiveRow, Passes
from stic_eval.models.free_memory import bytes_left, release, too_small, within_memory
from stic_eval.models.kv_cache import Lanes, Pool, Prefix
from stic_eval.models.prompt_tokens import CutPrompt, Group, Key, Prompter
from stic_eval.models.request_feed import Feed
from stic_eval.types import Request, Response

if TYPE_CHECKING:
    from stic_eval.models.loading import LoadedWeights

Completion = tuple[Request, Response]

# Tokens in one pass over prompts: more spill a CPU's caches.
_CPU_TOKENS, _GPU_TOKENS = 2048, 16384
# Of the free memory, for keys and values: passes need some as well, and a layer is copied at a time.
_SHARE_OF_FREE = 0.7


class Batcher:
    """Answers requests with one model and the adapter that is attached to it.

    Args:
        loaded: The model, with the adapter attached.
        prefix: Whether prompts' beginnings are shared, from how many tokens on; None: not.
    """

    def __init__(self, loaded: LoadedWeights, prompter: Prompter, prefix: int | None) -> None:
        self._loaded, self._prompter, self._worthwhile = loaded, prompter, prefix
        self._passes, self._adapter, self._adapter_key = Passes(loaded), loaded.adapter, loaded.adapter_key
        self._rows: list[ActiveRow] = []
        self._lanes: Lanes | None = None

    # ------------------------------------------------------------ the loop

    def run(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answers requests as they come, in any order."""
        feed = Feed(
            requests, self._prompter, self._passes.find_beginning, self._at_hand, self._loaded.workers
        )
        try:
            while True:
                if len(self._rows) <= self._loaded.batch_size // 2:
                    room = self._loaded.batch_size - len(self._rows)
                    prompts = feed.take(room, idle=not self._rows)
                    if prompts:
                        if some := self._fitting(prompts, feed):
                            yield from self._admit(some, feed)
                    elif not self._rows and feed.empty:
                        return
                if self._lanes is not None:
                    yield from self._step(feed)
        finally:
            feed.close()

    def _fitting(self, prompts: list[CutPrompt], feed: Feed) -> list[CutPrompt]:
        """The prompts that there is memory for; at least one where none is under way."""
        if self._loaded.batch_size_given:
            return prompts
        tokens = [len(prompt) + prompt.request.generation.max_new_tokens for prompt in prompts]
        under_way = [len(row.prompt) + row.prompt.request.generation.max_new_tokens for row in self._rows]
        longest = max(tokens + under_way)
        each = longest * self._loaded.bytes_per_token
        # Rows under way will still grow into some of what is free.
        owed = self._loaded.bytes_per_token * sum(
            row.prompt.request.generation.max_new_tokens - len(row.tokens)
            for row in self._rows
            if not row.done
        )
        free = int(bytes_left(self._loaded.device) * _SHARE_OF_FREE) - owed
        most = max(free, 0) // max(each, 1)
        most = max(most, 0 if self._rows else 1)
        feed.give_back(prompts[most:])
        return prompts[:most]

    def _admit(self, prompts: Sequence[CutPrompt], feed: Feed) -> Iterator[Completion]:
        """Computes prompts, and puts their rows beside those under way."""

        def work() -> None:
            old, rows = self._lanes, [row for row in self._rows if not row.done]
            going = [n for n, row in enumerate(self._rows) if not row.done]
            columns = max(map(len, prompts))
            parts: list[Lanes] = []
            if old is not None:
                columns = max(columns, old.columns(going))
            pool = Pool(len(rows) + len(prompts), columns)
            if old is not None:
                old.move(going, pool)
                parts.append(old)
            for more, lanes in self._prefill(prompts, pool, len(rows)):
                rows = rows + more
                parts.append(lanes)
            self._rows, self._lanes = rows, pool.lanes(parts)

        yield from self._release_done(feed) if self._fits(work) else self._again(feed, prompts)

    def _step(self, feed: Feed) -> Iterator[Completion]:
        """Generates one more token for every row; those that are done leave."""
        rows, lanes = self._rows, self._lanes
        assert lanes is not None
        fits = self._fits(lambda: self._passes.decode(rows, lanes))
        yield from self._release_done(feed) if fits else self._again(feed, [])

    def _release_done(self, feed: Feed) -> Iterator[Completion]:
        """Yields finished answers, and frees their room once there is enough of it."""
        rows, lanes = self._rows, self._lanes
        assert lanes is not None
        for number, row in enumerate(rows):
            if row.done and row.tokens:
                self._keep(row, lanes, number)
                yield self._answer(row)
        going = [n for n, row in enumerate(rows) if not row.done]
        if not going:
            self._rows, self._lanes = [], None
        elif len(going) <= len(rows) * 3 // 4:
            if self._fits(lambda: lanes.keep(going)):
                self._rows = [rows[n] for n in going]
            else:
                yield from self._again(feed, [])

    def _again(self, feed: Feed, prompts: Sequence[CutPrompt]) -> Iterator[Completion]:
        """Gives back what did not fit. Answers that are not complete begin anew, and are the same.

        Raises:
            UserError: There was but one row.
        """
        rows, self._rows, self._lanes = self._rows, [], None
        feed.give_back([*prompts, *(row.prompt for row in rows if not row.done)])
        held = len(self._loaded.prefixes) > 0
        self._loaded.prefixes.clear()
        release(self._loaded.device)
        if len(rows) + len(prompts) <= 1 and not held:  # else there is more room now
            raise too_small(self._loaded.device)
        self._loaded.rows.halve(len(rows) + len(prompts))
        # A row may be done that has not been handed on yet.
        yield from (self._answer(row) for row in rows if row.done and row.tokens)

    def _fits(self, work: Callable[[], object]) -> bool:
        """Does work; whether there was memory for it."""

        def attempt() -> bool:
            # Another view may have been asked meanwhile.
            self._loaded.attach(self._adapter, self._adapter_key)
            with torch.inference_mode():
                work()
            return True

        return within_memory(attempt) is not None

    def _answer(self, row: ActiveRow) -> Completion:
        prompt = row.prompt
        stop = prompt.request.generation.stop
        response = self._loaded.response(row.tokens, row.seconds, stop, prompt.text)
        row.tokens = []  # handed on
        self._loaded.rows.answered()
        return prompt.request, response

    # ------------------------------------------------------------ what is kept

    def _at_hand(self, key: Key) -> bool:
        return self._worthwhile is not None and (self._adapter_key, key) in self._loaded.prefixes

    def _keep(self, row: ActiveRow, lanes: Lanes, number: int) -> None:
        """Keeps the beginning of a row that leaves: often the next question is about the same image."""
        group = row.prompt.group
        count = len(group.beginning.ids)
        if self._is_worth_sharing(group) and not self._at_hand(group.key):
            # Not `_fits`: it is only for later, and must not cost what is under way.
            if (prefix := within_memory(lambda: lanes.prefix(number, count))) is None:
                self._loaded.prefixes.clear()
            else:
                self._loaded.prefixes.put((self._adapter_key, group.key), prefix)

    def _is_worth_sharing(self, group: Group) -> bool:
        count = len(group.beginning.ids)
        return self._worthwhile is not None and count >= max(self._worthwhile, 1)

    # ------------------------------------------------------------ prompts

    def _prefill(
        self, prompts: Sequence[CutPrompt], pool: Pool, row: int
    ) -> Iterator[tuple[list[ActiveRow], Lanes]]:
        """Computes prompts into a pool from a row on, first those whose beginnings others share."""
        prefixes: dict[Key, Prefix | None] = {}
        leading: list[CutPrompt] = []
        following: list[CutPrompt] = []
        asked_for: dict[Key, int] = defaultdict(int)
        for prompt in prompts:
            group = prompt.group
            asked_for[group.key] += 1
            if self._is_worth_sharing(group) and group.key not in prefixes:
                prefixes[group.key] = self._loaded.prefixes.get((self._adapter_key, group.key))
                follows = prefixes[group.key] is not None
            else:
                follows = group.key in prefixes
            (following if follows else leading).append(prompt)
        for chunk in self._chunks(leading, len):
            rows, lanes = self._passes.prefill(chunk, self._passes.features(chunk), pool, row)
            row += len(chunk)
            for number, prompt in enumerate(chunk):
                key = prompt.group.key
                if key in prefixes and asked_for[key] > 1:
                    lane_prefix = lanes.prefix(number, len(prompt.group.beginning.ids))
                    prefixes[key] = lane_prefix
                    self._loaded.prefixes.put((self._adapter_key, key), lane_prefix)
            yield rows, lanes
        order = {key: number for number, key in enumerate(prefixes)}
        for alike in self._lengths(following) if self._passes.windowed else [following]:
            for part in self._side_by_side(alike, pool.end):
                # What begins alike stands side by side, and is copied at once.
                chunk = sorted(part, key=lambda prompt: order[prompt.group.key])
                shared = [prefix for prompt in chunk if (prefix := prefixes[prompt.group.key]) is not None]
                yield self._passes.prefill_rest(chunk, shared, pool, row)
                row += len(chunk)

    def _side_by_side(self, prompts: Sequence[CutPrompt], columns: int) -> Iterator[list[CutPrompt]]:
        """Chunks whose longest beginning and longest question fit side by side into so many columns."""
        for chunk in self._chunks(prompts, lambda prompt: len(prompt.rest)):
            part: list[CutPrompt] = []
            longest = 0
            for prompt in chunk:  # the longest question first
                beginning = len(prompt.group.beginning.ids)
                if part and max(longest, beginning) + len(part[0].rest) > columns:
                    yield part
                    part, longest = [], 0
                part.append(prompt)
                longest = max(longest, beginning)
            yield part

    def _lengths(self, prompts: Sequence[CutPrompt]) -> list[list[CutPrompt]]:
        """Prompts apart by how long their questions are."""
        found: dict[int, list[CutPrompt]] = defaultdict(list)
        for prompt in prompts:
            found[len(prompt.rest)].append(prompt)
        return list(found.values())

    def _chunks(
        self, prompts: Sequence[CutPrompt], length: Callable[[CutPrompt], int]
    ) -> Iterator[list[CutPrompt]]:
        """Prompts of like length, so many that a forward pass has a bounded number of tokens."""
        tokens = _GPU_TOKENS if self._passes.on_gpu else _CPU_TOKENS
        order = sorted(prompts, key=length, reverse=True)
        while order:
            count = max(1, tokens // max(length(order[0]), 1))
            yield order[:count]
            order = order[count:]
