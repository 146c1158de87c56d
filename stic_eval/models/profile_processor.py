"""A processor under a conversation profile: what it writes, and what it makes of images.

The system prompt becomes part of the chat template, and padding part of the image processor. So whatever
writes a conversation with the processor has both: generation, likelihoods and training alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stic_eval.errors import UserError, first_line
from stic_eval.images import square
from stic_eval.profiles import SHIPPED, ConversationProfile
from stic_eval.registry import suggest

if TYPE_CHECKING:
    from PIL.Image import Image

# Those of LLaVA-1.5 and its kin, one tile an image: CLIP's passes over `do_pad`, which published
# configurations of LLaVA have, and LLaVA's own pads as we do.
_ONE_TILE = ("CLIPImageProcessor", "LlavaImageProcessor")
# Sizes of pictures that an argument has to change: wide, tall, square, tiny, large.
_SIZES = ((96, 64), (64, 150), (50, 50), (20, 14), (1500, 1100))
_MOST_PIXELS = 1 << 24  # of a picture that is made to try a bound on pixels
_NOTHING = ConversationProfile()


def apply(processor: Any, profile: ConversationProfile) -> None:
    """Has a processor write conversations and prepare images as a profile says; changes it in place.

    Args:
        processor: The model's, with its chat template, if it has one.

    Raises:
        UserError: The template has no place for images or for a system prompt, or an argument is none of
            the image processor's, or changes no pixel.
    """
    own = processor.chat_template
    if profile.chat_template:
        processor.chat_template = profile.chat_template
        _check_images(processor, own)
    if profile.system_prompt and processor.chat_template:
        processor.chat_template = _beginning_with(profile.system_prompt, processor.chat_template)
        if profile.system_prompt.strip() not in _render_question(processor):
            raise UserError(
                "--system-prompt: the model's chat template writes none; give --chat-template too"
            )
    for name, value in sorted(profile.processor.items(), key=lambda item: item[0] == "do_pad"):
        shipped = SHIPPED.get(profile.name, _NOTHING).processor
        processor.image_processor = _with_argument(
            processor.image_processor, name, value, expected=name in shipped
        )


# ---------------------------------------------------------------- text


def _beginning_with(system: str, template: str) -> str:
    """A template that has conversations begin with a system turn, unless they have one of their own."""
    turn = json.dumps({"role": "system", "content": [{"type": "text", "text": system}]}, ensure_ascii=False)
    return (
        "{% if messages and messages[0]['role'] != 'system' %}"
        f"{{% set messages = [{turn}] + messages %}}{{% endif %}}{template}"
    )


def _check_images(processor: Any, own: str | None) -> None:
    """Makes sure that a template has a place for images where the checkpoint's own has one."""
    token = getattr(processor, "image_token", None)
    text = _render_question(processor)
    if token and token not in text:
        processor.chat_template, given = own, processor.chat_template
        if not own or token in _render_question(processor):
            raise UserError(f"--chat-template: writes no {token}, which is an image's place in this model")
        processor.chat_template = given


def _render_question(processor: Any) -> str:
    """A question about an image as a processor writes it."""
    from jinja2 import TemplateError

    parts = [{"type": "image"}, {"type": "text", "text": "x"}]
    try:
        return str(
            processor.apply_chat_template(
                [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
            )
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise UserError(f"--chat-template: cannot be used: {str(error).splitlines()[0]}") from error


# ---------------------------------------------------------------- pixels


def _with_argument(images: Any, name: str, value: Any, expected: bool = False) -> Any:
    """An image processor with one argument.

    Args:
        images: The processor; of one tile an image it is changed in place by `do_pad`.
        expected: Whether a shipped profile has the argument. Then `do_pad` may be what the checkpoint does
            already, or take back what the profile would do.

    Raises:
        UserError: It knows no such argument, or its pixels stay as they are.
    """
    kind = type(images).__name__
    flag = f"-o processor.{name}={json.dumps(value)}"
    same = f"{flag}: changes no pixel: {kind} passes over it, or has it so already; leave it out"
    if name == "do_pad" and kind.removesuffix("Pil").removesuffix("Fast") in _ONE_TILE:
        before = [_pixels(images, size) for size in _SIZES]
        images.do_pad = False
        images = _pad_to_square(images) if value else images
        if not expected and before == [_pixels(images, size) for size in _SIZES]:
            raise UserError(same)
        return images
    known = [str(known) for known in getattr(images, "_valid_kwargs_names", ())]
    if known and name not in known:
        raise UserError(f"{flag}: {kind} takes no {name}{suggest(name, known)}")
    try:
        changed = type(images).from_dict({**images.to_dict(), name: value})
        differs = any(_pixels(images, size) != _pixels(changed, size) for size in _sizes(name, value))
    except Exception as error:  # whatever a processor makes of a value that does not fit
        raise UserError(f"{flag}: {kind}: {first_line(error)}") from error
    if not differs:
        raise UserError(same)
    return changed


def _sizes(name: str, value: Any) -> list[tuple[int, int]]:
    """Sizes of pictures to try an argument with; for a bound on pixels, on both sides of it."""
    found = list(_SIZES)
    if name.endswith("_pixels") and isinstance(value, int):
        for share in (0.5, 2.0):
            side = max(8, int((min(value * share, _MOST_PIXELS)) ** 0.5))
            found.append((side, side + side // 3))
    return found


def _pixels(images: Any, size: tuple[int, int]) -> Mapping[str, Any]:
    """What an image processor makes of a picture, in a form that can be compared."""
    arrays = images(images=[_picture(size)], return_tensors="np")
    return {n: (value.shape, value.tobytes()) for n, value in arrays.items() if hasattr(value, "tobytes")}


def _picture(size: tuple[int, int]) -> Image:
    from PIL import Image

    across, down = (Image.linear_gradient("L").rotate(turn).resize(size) for turn in (0, 90))
    return Image.merge("RGB", (across, down, across.point(lambda v: 255 - v)))


def _pad_to_square(images: Any) -> Any:
    """The image processor that pads pictures to a square of its mean colour first; the same object.

    Source: LLaVA-1.5's `image_aspect_ratio pad`, where a colour is `int(mean * 255)` of each channel.
    """
    kind = type(images)
    color = tuple(int(mean * 255) for mean in images.image_mean)

    def preprocess(self: Any, images: Any, *args: Any, **kwargs: Any) -> Any:
        return kind.preprocess(self, _squares(images, color), *args, **kwargs)

    # A class of its own, as Python looks for methods such as `__call__` there; its name is what is saved.
    body = {"preprocess": preprocess, "__module__": kind.__module__}
    images.__class__ = type(kind.__name__, (kind,), body)
    return images


def _squares(images: Any, color: tuple[int, ...]) -> Any:
    """Pictures, alone or in lists, as squares.

    Raises:
        TypeError: One is no picture of Pillow's, and would go through as it is.
    """
    from PIL import Image

    if isinstance(images, (list, tuple)):
        return [_squares(image, color) for image in images]
    if not isinstance(images, Image.Image):
        raise TypeError(f"pads pictures of Pillow's, not {type(images).__name__}")
    red, green, blue = color
    return square(images.convert("RGB"), (red, green, blue))
