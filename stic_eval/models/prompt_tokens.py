"""Requests as token ids: what the model's own processor makes of them, with the work on images shared.

A prompt is cut behind its last image token. What lies before depends on the images and on what the
template writes there, and is made once for all questions about them; of a further question only the text is
tokenized. That this gives the processor's own ids is checked on the first question about images of a size.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import TYPE_CHECKING, Any

from stic_eval.models.diffusion import add_noise
from stic_eval.models.prompt_text import PER_TOKEN, adds_start, render_prompts
from stic_eval.types import Generation, Message, Request

if TYPE_CHECKING:
    from torch import Tensor

    from stic_eval.models.vision import Features

# Sizes of images whose prompts are remembered.
_SIZES = 256

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Beginning:
    """A prompt up to its last image token; empty for one without images.

    Attributes:
        ids: (tokens).
        positions: (tokens), or (axes, tokens) where positions have several axes.
        next: Position of the token that follows.
        kinds: What the processor says of each token, (tokens) each.
        frame: What the processor writes between the last image token and the question, and behind that;
            None: unknown.
        features: Of the images, in host memory; None until they are encoded.
    """

    ids: Tensor
    positions: Tensor
    next: int
    kinds: Mapping[str, Tensor] = field(default_factory=dict)
    frame: tuple[str, str] | None = None
    features: Features | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the beginning takes."""
        tensors = (self.ids, self.positions, *self.kinds.values())
        own = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return own + (self.features.nbytes if self.features is not None else 0)


@dataclass
class Group:
    """Requests that begin alike.

    Attributes:
        pixels: What the processor has made of the images, until they are encoded.
    """

    key: Key
    beginning: Beginning
    pixels: Mapping[str, Tensor] | None = None

    @property
    def pixel_bytes(self) -> int:
        """Bytes that the pixels take."""
        return sum(tensor.nbytes for tensor in (self.pixels or {}).values())


@dataclass(frozen=True)
class CutPrompt:
    """A request, cut in two.

    Attributes:
        group: Its beginning, and who shares it.
        text: The request, as the chat template writes it.
    """

    request: Request
    group: Group
    rest: tuple[int, ...]
    text: str

    def __len__(self) -> int:
        return len(self.group.beginning.ids) + len(self.rest)


@dataclass(frozen=True)
class RenderedPrompt:
    """A request as the chat template writes it.

    Attributes:
        head: What of it comes before the first question, and is the same for all about these images.
    """

    request: Request
    text: str
    head: str

    @property
    def key(self) -> Key:
        """Key of the prompt's beginning."""
        return (tuple(image.sha256 for image in self.request.images), self.head)


class Prompter:
    """Writes and cuts prompts for one model. `render` is for one thread, `cut` for any.

    Args:
        control: Texts that its tokenizer takes for control tokens.
        image_token: Id of the token that stands for a piece of an image; None: it has none.
        inner: The part of the model that knows about positions.
        share: Whether requests are looked at for a common beginning.
    """

    def __init__(
        self, processor: Any, control: tuple[str, ...], image_token: int | None, inner: Any, share: bool
    ) -> None:
        self._processor, self._control, self._image_token = processor, control, image_token
        self._inner, self._share = inner, share
        self._local = threading.local()
        self._spare: deque[tuple[Any, _Recorder]] = deque()
        self._heads: dict[Key, str | None] = {}
        self._alike: dict[Key, Beginning] = {}  # by head and images' sizes

    # ------------------------------------------------------------ the template

    def render(self, requests: Sequence[Request]) -> list[RenderedPrompt]:
        """Prompts as the chat template writes them, up to where the answer begins."""
        texts = render_prompts(self._processor, requests, self._control)
        return [RenderedPrompt(request, text, self._head(request, text))
                for request, text in zip(requests, texts, strict=True)]  # fmt: skip

    def _head(self, request: Request, text: str) -> str:
        """What the template writes before the first question; all of the text where nothing is shared."""
        if not self._share or not request.images:
            return text
        before = tuple(m for m in request.messages if m.role == "system")
        first = next((m for m in request.messages if m.role != "system"), None)
        if first is None or first.role != "user":
            return text
        kind = (len(request.images), before)
        if kind not in self._heads:
            mark = "qzxqzx"
            sample = Request((*before, Message("user", mark)), request.images, Generation())
            before_it, found, _ = render_prompts(self._processor, [sample], self._control)[0].partition(mark)
            self._heads[kind] = (found and before_it) or None
        head = self._heads[kind]
        return head if head is not None and text.startswith(head) else text

    # ------------------------------------------------------------ tokens

    def cut(self, asked: Sequence[RenderedPrompt], known: Beginning | None) -> list[CutPrompt]:
        """Prompts with one beginning.

        Args:
            known: Their beginning, if an earlier request has had it.

        Raises:
            UserError: An image cannot be decoded.
        """
        with self._processor_of_ones_own():
            return self._cut(asked, known)

    def _cut(self, asked: Sequence[RenderedPrompt], known: Beginning | None) -> list[CutPrompt]:
        first = asked[0]
        if known is not None and known.frame is not None:
            group = Group(first.key, known)
            return [CutPrompt(one.request, group, self._rest(one, known.frame), one.text) for one in asked]
        group, rest = self._process(first)
        prompts = [CutPrompt(first.request, group, rest, first.text)]
        frame = group.beginning.frame
        for one in asked[1:]:
            if one.text == first.text:
                prompts.append(CutPrompt(one.request, group, rest, one.text))
            elif frame is not None:
                prompts.append(CutPrompt(one.request, group, self._rest(one, frame), one.text))
            else:
                own, ids = self._process(one)
                prompts.append(CutPrompt(one.request, own, ids, one.text))
        return prompts

    def _process(self, one: RenderedPrompt) -> tuple[Group, tuple[int, ...]]:
        """A prompt's beginning and what follows, as the processor has them."""
        images = [image.load() for image in one.request.images]
        kind = (one.head, tuple((image.size, image.mode) for image in images))
        if (like := self._alike.get(kind)) is not None:
            # Ids depend on the images' sizes alone; so the pixels are all that is new.
            pixels = self._pixels(self._own_processor()[0], images)
            noisy = add_noise(pixels, one.request.images)
            return Group(one.key, like, noisy), self._rest(one, like.frame or ("", ""))
        group, rest = self._process_whole(one, images)
        beginning = group.beginning
        if (
            beginning.frame is not None
            and len(self._alike) < _SIZES
            and self._is_image_part_separable(images, group.pixels or {})
        ):
            self._alike[kind] = beginning
        if group.pixels is not None:
            group.pixels = add_noise(group.pixels, one.request.images)
        return group, rest

    def _pixels(self, processor: Any, images: list[Any]) -> dict[str, Tensor]:
        """What the processor's part for images makes of them by itself."""
        import torch

        inputs = processor.image_processor([images], return_tensors="pt")
        return {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}

    def _is_image_part_separable(self, images: list[Any], pixels: Mapping[str, Tensor]) -> bool:
        """Whether the image processor alone gives what the whole processor gave."""
        import torch

        try:
            alone = self._pixels(self._own_processor()[0], images)
        except Exception:  # it may take its images in another shape
            return False
        return alone.keys() == pixels.keys() and all(
            torch.equal(alone[name], pixels[name]) for name in pixels
        )

    def _process_whole(self, one: RenderedPrompt, images: list[Any]) -> tuple[Group, tuple[int, ...]]:
        import torch

        processor, recorder = self._own_processor()
        inputs = dict(
            processor(
                text=[one.text],
                images=[images] if images else None,
                return_tensors="pt",
                add_special_tokens=adds_start(recorder, one.text),
            )
        )
        ids = inputs.pop("input_ids")[0]
        inputs.pop("attention_mask", None)
        kinds = {name: inputs.pop(name)[0] for name in PER_TOKEN if name in inputs}
        places = (ids == self._image_token).nonzero() if self._image_token is not None else ids[:0]
        count = int(places[-1]) + 1 if images and len(places) else 0
        rest = tuple(ids[count:].tolist())
        head = ids[:count].clone()
        kinds = {name: kind[:count].clone() for name, kind in kinds.items()}
        positions, following = self._positions(head, kinds, inputs)
        frame = self._frame(one, recorder.seen, rest) if count else None
        beginning = Beginning(head, positions, following, kinds, frame)
        pixels = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        # What cannot be told from the question is shared with that very question alone.
        key = one.key if frame is not None else (one.key[0], one.text)
        return Group(key, beginning, pixels if count else None), rest

    def _frame(self, one: RenderedPrompt, seen: Any, rest: tuple[int, ...]) -> tuple[str, str] | None:
        """What stands between the last image token and the question, and behind that; None: unknown."""
        question = one.text[len(one.head) :]
        text = seen[0] if isinstance(seen, list) and len(seen) == 1 else seen
        if not question.strip() or not isinstance(text, str):
            return None
        bare = text  # a processor may end a prompt in white space (PaliGemma's)
        while bare and not bare.endswith(question):
            if not bare[-1].isspace():
                return None
            bare = bare[:-1]
        _, found, before = bare[: -len(question)].rpartition(self._image_text)
        frame = (before, text[len(bare) :])
        try:
            return frame if found and self._rest(one, frame) == rest else None
        except ValueError:
            return None

    def _rest(self, one: RenderedPrompt, frame: tuple[str, str]) -> tuple[int, ...]:
        """Ids of a question, tokenized behind an image token as it is in the prompt."""
        _, recorder = self._own_processor()
        before, after = frame
        text = self._image_text + before + one.text[len(one.head) :] + after
        ids = recorder.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids or ids[0] != self._image_token:
            raise ValueError("the image token is not one token")
        return tuple(ids[1:])

    @property
    def _image_text(self) -> str:
        return str(self._processor.tokenizer.convert_ids_to_tokens(self._image_token))

    def _positions(
        self, ids: Tensor, kinds: Mapping[str, Tensor], inputs: Mapping[str, Any]
    ) -> tuple[Tensor, int]:
        """Positions of a beginning, and the next; along several axes where the model has it so (M-RoPE)."""
        import torch

        if hasattr(self._inner, "get_rope_index"):
            if not len(ids):
                return torch.zeros((3, 0), dtype=torch.long), 0
            takes = signature(self._inner.get_rope_index).parameters
            given = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids)[None], **inputs}
            given |= {name: kind[None] for name, kind in kinds.items()}
            positions, _ = self._inner.get_rope_index(**{n: v for n, v in given.items() if n in takes})
            return positions[:, 0].clone(), int(positions.max()) + 1
        return torch.arange(len(ids)), len(ids)

    @contextmanager
    def _processor_of_ones_own(self) -> Iterator[None]:
        """Lends a thread a processor: a tokenizer changes its settings with every call. Copies are dear."""
        try:
            self._local.own = self._spare.pop()
        except IndexError:
            recorder = _Recorder(copy.deepcopy(self._processor.tokenizer))
            processor = copy.copy(self._processor)
            processor.tokenizer = recorder
            self._local.own = (processor, recorder)
        try:
            yield
        finally:
            self._spare.append(self._local.own)
            del self._local.own

    def _own_processor(self) -> tuple[Any, _Recorder]:
        own: tuple[Any, _Recorder] = self._local.own
        return own


class _Recorder:
    """A tokenizer that keeps what it was last given: the prompt with images' places written out."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.seen = tokenizer, None

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        self.seen = text
        return self.tokenizer(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)
