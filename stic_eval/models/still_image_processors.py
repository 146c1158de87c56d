"""Processors that insist on a video part, loaded for still images alone.

Reason: transformers reads videos with torchvision and nothing else, and the processors of Qwen2-VL and its
successors, LLaVA-OneVision, SmolVLM2, InternVL and others cannot be made without their video part. Where
torchvision is missing they would not load at all, though none of their images needs it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stic_eval.errors import UserError

_PART = "video_processor"


def load_processor(source: str, config: Any, **options: Any) -> Any:
    """A model's processor; where there is no torchvision, without its video part.

    Args:
        source: A hub id or folder.
        **options: As `AutoProcessor.from_pretrained`.

    Raises:
        UserError: Its images, too, are read with torchvision, which is not installed.
    """
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.utils.import_utils import is_torchvision_available

    if is_torchvision_available():
        return AutoProcessor.from_pretrained(source, **options)
    try:
        known: Any = PROCESSOR_MAPPING.get(type(config), None)
        if known is None or _PART not in known.get_attributes():
            return AutoProcessor.from_pretrained(source, **options)
        return _without_videos(known).from_pretrained(source, **options)
    except (ImportError, ValueError) as error:
        if "torchvision" not in str(error).lower():
            raise
        raise UserError(
            f"--model {source}: its images are read with torchvision, which is not installed; "
            "pip install torchvision, in the build that fits the installed torch"
        ) from error


def _without_videos(processor: Any) -> Any:
    """A processor's class that loads all parts but the video part, in whose place it has an empty one."""
    place = processor.get_attributes().index(_PART)
    empty = SimpleNamespace(
        model_input_names=[],
        # SmolVLM2 looks up how many frames of a video it takes whenever it writes a prompt.
        num_frames=None,
        fps=None,
        _auto_class=None,  # is looked at when the processor is saved
    )

    def others(cls: Any) -> list[str]:
        return [name for name in processor.get_attributes() if name != _PART]

    loads_others: Any = type(processor.__name__, (processor,), {"get_attributes": classmethod(others)})

    def arguments(cls: Any, *args: Any, **options: Any) -> list[Any]:
        parts: list[Any] = loads_others._get_arguments_from_pretrained(*args, **options)
        return [*parts[:place], empty, *parts[place:]]

    def check(self: Any, name: str, part: Any) -> Any:
        return None if part is empty else processor.check_argument_for_proper_class(self, name, part)

    return type(
        processor.__name__,
        (processor,),
        {
            "__module__": processor.__module__,
            "_get_arguments_from_pretrained": classmethod(arguments),
            "check_argument_for_proper_class": check,
            _PART: property(lambda self: empty, lambda self, part: None),  # never one of what is saved
        },
    )
