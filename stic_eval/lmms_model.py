"""Our models and adapters inside lmms-eval: `lmms-eval --model stic_eval --model_args pretrained=...`.

lmms-eval finds the class by what `stic_eval.lmms_entry` tells it. Nothing else imports this module, which
imports lmms-eval.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms

from stic_eval.errors import UserError
from stic_eval.evals.lmms.request_settings import generation, stops, without_places
from stic_eval.models.detokenize import cut
from stic_eval.models.thinking import ThinkingVLM
from stic_eval.setting_groups import ThinkingConfig
from stic_eval.solvers.requests import with_seed

if TYPE_CHECKING:
    from stic_eval.models.hf_model import HFModel
    from stic_eval.types import Generation, ImageRef, Request


class SticEval(lmms):  # type: ignore[misc]
    """A vision-language model of transformers, with or without an adapter, answering by our engine.

    Args:
        pretrained: `pocket`, a folder, or a hub id.
        adapter: Folder of a PEFT adapter, as `stic-eval train` leaves it.
        revision: Of a hub id.
        device: `auto`, `cuda`, `mps`, `cpu`.
        dtype: `auto`, or a type's name.
        batch_size: Most requests under way; `auto` goes by the free memory. lmms-eval's own
            `--batch_size 1`, which is its default, counts as `auto`: answers do not depend on it.
        cache: True keeps answers in stic-eval's cache folder, and takes them from there.
        attn: Implementation of attention, as transformers names it.
        quantization: `4bit` or `8bit`.
        trust_remote_code: Lets transformers execute code from the model's repository.
        profile: How it is asked, as `stic-eval run --profile`; so are `system_prompt` and `chat_template`.
        system_prompt: What conversations begin with.
        chat_template: A file in Jinja, or a shipped template's name.
        do_pad: Argument of the image processor, as are `min_pixels` and `max_pixels`.
        min_pixels: Of an image.
        max_pixels: Of an image.
        max_batch_size: Not used; lmms-eval passes it.

    Raises:
        UserError: There is no such model or adapter, or several processes are asked for.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        adapter: str | None = None,
        revision: str | None = None,
        device: str | None = "auto",
        dtype: str = "auto",
        batch_size: int | str = "auto",
        cache: bool = False,
        attn: str | None = None,
        quantization: Any = None,
        trust_remote_code: bool = False,
        profile: str = "auto",
        system_prompt: str | None = None,
        chat_template: str | None = None,
        do_pad: bool | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_batch_size: Any = None,
    ) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("--model stic_eval: answers in one process; start lmms-eval without launcher")
        from stic_eval.config import load
        from stic_eval.models.hf_model import HFModel
        from stic_eval.models.profile_detection import profile_of

        processor = {"do_pad": do_pad, "min_pixels": min_pixels, "max_pixels": max_pixels}
        conversation = {"profile": profile, "system_prompt": system_prompt, "chat_template": chat_template}
        settings = {
            "model": str(pretrained),
            "revision": None if revision is None else str(revision),
            "conversation": {name: value for name, value in conversation.items() if value is not None},
            "processor": {name: value for name, value in processor.items() if value is not None},
        }
        base = HFModel.load(
            str(pretrained),
            revision=None if revision is None else str(revision),
            device=device or "auto",
            dtype=str(dtype),
            batch_size="auto" if str(batch_size) == "auto" else int(batch_size),
            trust_remote_code=trust_remote_code,
            attn=attn,
            quantization=quantization,
            profile=profile_of(load(flags=settings)),
        )
        self._model: HFModel | None = base if adapter is None else base.with_adapter(Path(str(adapter)))
        self._cached_as = [base.dtype, attn, quantization] if cache else None

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Any = None) -> SticEval:
        """Makes the model of `--model_args`, which have the last word over lmms-eval's own flags."""
        from lmms_eval.utils import simple_parse_args_string

        flags = {name: value for name, value in (additional_config or {}).items() if value is not None}
        if str(flags.get("batch_size")) == "1":
            del flags["batch_size"]
        return cls(**{**flags, **simple_parse_args_string(arg_string)})

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answers in the order of the requests, each up to the first text of its `until`.

        A task's `<image>` placeholders are taken out: images stand in front of the text. Requests that
        sample have seeds of their own, by document and repetition. What a model thinks is left out before
        its answer is cut; of one that is cut while it thinks there is no answer, and the text is empty.
        """
        from tqdm import tqdm  # type: ignore[import-untyped]

        found: list[GenerationResult | None] = [None] * len(requests)
        waiting: dict[Request, deque[int]] = {}
        repeated: Counter[tuple[Any, ...]] = Counter()

        def make_requests() -> Iterator[Request]:
            for number, instance in enumerate(requests):
                context, kwargs, to_visual, doc, task, split = instance.args
                decoding = with_seed(generation(kwargs, repeated[task, split, doc]), f"{task} {split} {doc}")
                repeated[task, split, doc] += 1
                request = self._request(context, to_visual, (task, split, doc), decoding)
                waiting.setdefault(request, deque()).append(number)
                yield request

        bar = tqdm(total=len(requests), desc="Model Responding")
        unclosed = 0
        answerer = self._answerer()
        thinking = ThinkingVLM(answerer.generate, answerer.fingerprint, ThinkingConfig())
        for request, response in thinking.generate(make_requests()):
            unclosed += response.unclosed
            number = waiting[request].popleft()
            context, kwargs = requests[number].args[:2]
            text = cut(response.text, stops(kwargs))
            found[number] = GenerationResult(text, TokenCounts(output_tokens=response.n_tokens))
            self.cache_hook.add_partial("generate_until", (context, kwargs), text)
            bar.update()
        bar.close()
        if unclosed:
            print(
                f"--model stic_eval: {unclosed} of {len(requests)} answers were cut while the model was "
                "thinking, and are empty; give more room: --gen_kwargs max_new_tokens=...",
                file=sys.stderr,
            )
        return [answer for answer in found if answer is not None]

    def loglikelihood(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """How likely given answers are, in the order of the requests.

        Returns:
            (mean negative log-probability of the answer's tokens in nats, whether it is the greedy answer
            of so many tokens). The first is a loss, as lmms-eval's `llava_hf` gives it and its scoring
            takes it: the least is chosen. White space around an answer is the chat template's business.
            Wrapped, for lmms-eval 0.7.3 makes a text of a bare pair, and its scoring fails on that.
        """
        from stic_eval.types import Generation

        greedy = Generation(max_new_tokens=1)
        asked: list[tuple[Request, str]] = []
        for instance in requests:
            # Mutual information asks for (context, answer) alone.
            context, answer, to_visual, *where = (*instance.args, None)[: max(3, len(instance.args))]
            if callable(answer):
                doc, task, split = where[:3]
                answer = answer(self.task_dict[task][split][doc])
            place = (where[1], where[2], where[0]) if len(where) >= 3 else None
            asked.append((self._request(context, to_visual, place, greedy), str(answer).strip()))
        model = self._require_model()
        scored = dict(model.likelihoods(dict.fromkeys(asked)))
        continuations = self._greedy(
            [(request, scored[request, answer].n_tokens) for request, answer in asked]
        )
        found = []
        for request, answer in asked:
            likelihood = scored[request, answer]
            loss = -likelihood.logp / max(1, likelihood.n_tokens)
            found.append(GenerationResult((loss, continuations[request, likelihood.n_tokens] == answer)))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not supported.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("--model stic_eval: tasks that ask in several rounds are not supported")

    def clean(self) -> None:
        """Lets go of the model once everything is answered, as lmms-eval wants it before judges start."""
        self._model = None
        super().clean()

    # ------------------------------------------------------------ how it asks

    def _require_model(self) -> HFModel:
        if self._model is None:
            raise RuntimeError("--model stic_eval: the model was let go of; make a new one")
        return self._model

    def _answerer(self) -> Any:
        model = self._require_model()
        if self._cached_as is None:
            return model
        from stic_eval.models.response_cache import CachedVLM
        from stic_eval.store import ResponseStore, cache_dir, content_key

        key = content_key([model.fingerprint, *map(str, self._cached_as)])
        return CachedVLM(lambda: model, key, ResponseStore(cache_dir() / "responses" / f"{key[:16]}.sqlite"))

    def _greedy(self, asked: Iterable[tuple[Request, int]]) -> dict[tuple[Request, int], str]:
        """Greedy answers of exactly so many tokens."""
        from dataclasses import replace

        from stic_eval.types import Generation

        bounded = {
            replace(request, generation=Generation(max_new_tokens=max(1, count))): (request, count)
            for request, count in dict.fromkeys(asked)
        }
        answers = self._answerer().generate(iter(bounded))
        return {bounded[request]: response.text.strip() for request, response in answers}

    def _request(self, context: str, to_visual: Any, place: Any, decoding: Generation) -> Request:
        from stic_eval.types import Message, Request

        images: tuple[ImageRef, ...] = ()
        if callable(to_visual) and place is not None:
            task, split, doc = place
            from stic_eval.evals.lmms.docs import references

            images = references(to_visual(self.task_dict[task][split][doc]), f"{task}/{doc}", None)
        return Request((Message("user", without_places(str(context))),), images, decoding)
