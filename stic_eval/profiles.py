"""Conversation profiles: how a model is asked, as data. `models.profile_processor` puts one in force.

LLaVA's checkpoints bring a chat template and an image processor, but not the sentence that their authors'
scripts begin every conversation with, nor the square that LLaVA-1.5 pads pictures to. Both change answers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, field_validator

from stic_eval.documents import SETTINGS_BYTES, read_text
from stic_eval.errors import UserError

# haotian-liu/LLaVA, conversation.py, `conv_vicuna_v1`: what its evaluation scripts ask with.
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

# A turn's images, each on a line of its own, and its text. A turn is a text or a list of parts.
_TURN = (
    "{% macro turn(message) %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{% endmacro %}"
)
_VICUNA = (
    _TURN + "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ turn(message) + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + turn(message) + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + turn(message) + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# Its system turn stands inside of the first instruction, as Llama 2 has it.
_MISTRAL = (
    _TURN + "{% set opening = namespace(text='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}"
    "{% set opening.text = '<<SYS>>\\n' + turn(message) + '\\n<</SYS>>\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ '[INST] ' + opening.text + turn(message) + ' [/INST]' }}{% set opening.text = '' %}"
    "{% else %}{{ ' ' + turn(message) + eos_token }}{% endif %}"
    "{% endfor %}"
)

_SHOWN = 60  # characters of a system prompt in a table's note

# Chat templates by name: LLaVA's names for its conversations.
TEMPLATES: Mapping[str, str] = {"vicuna_v1": _VICUNA, "mistral_instruct": _MISTRAL}


@dataclass(frozen=True)
class ConversationProfile:
    """How a model is asked.

    Attributes:
        name: Of the shipped profile that it is, or was before settings changed it; empty for none.
        system_prompt: What a conversation begins with that has no system turn of its own; empty: nothing.
        chat_template: Jinja; empty: the checkpoint's own.
        processor: Arguments of the image processor. `do_pad` is for LLaVA's one tile: it pads pictures to
            a square of the processor's mean colour.
        stop: Texts that end an answer.
        changed: Whether settings departed from the shipped profile.
    """

    name: str = ""
    system_prompt: str = ""
    chat_template: str = ""
    processor: Mapping[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    changed: bool = False

    @property
    def content(self) -> dict[str, Any]:
        """The parts of a profile that change answers, for content keys; its name does not."""
        found = {
            "system_prompt": self.system_prompt,
            "chat_template": self.chat_template,
            "processor": dict(self.processor),
            "stop": list(self.stop),
        }
        return {name: value for name, value in found.items() if value}

    @property
    def title(self) -> str:
        """The profile in one line, for people: `profile llava-1.5 (chat template vicuna_v1; ...)`."""
        parts = []
        if self.chat_template:
            names = [name for name, text in TEMPLATES.items() if text == self.chat_template]
            parts.append(f"chat template {names[0] if names else 'of its own'}")
        if self.system_prompt:
            first = self.system_prompt.split("\n")[0]
            whole = len(first) <= _SHOWN and first == self.system_prompt
            parts.append(f'system prompt "{first if whole else f"{first[:_SHOWN].rstrip()} ..."}"')
        parts += [f"{name}={json.dumps(value)}" for name, value in self.processor.items()]
        if self.stop:
            parts.append(f"answers end at {' or '.join(map(repr, self.stop))}")
        changed = ", changed" if self.changed else ""
        named = f"profile {self.name}{changed}" if self.name else "own conversation, changed"
        return f"{named} ({'; '.join(parts)})"


# LLaVA-1.5 and what it was tuned on: `--version v1`, `--image_aspect_ratio pad`. LLaVA-1.6 cuts pictures into
# tiles itself (`anyres`), which transformers' processor does alike, so nothing is padded in front of it.
_SHIPPED = (
    ConversationProfile("llava-1.5", VICUNA_SYSTEM, _VICUNA, {"do_pad": True}),
    ConversationProfile("llava-1.6-vicuna", VICUNA_SYSTEM, _VICUNA),
    ConversationProfile("llava-1.6-mistral", "", _MISTRAL),
)
SHIPPED: Mapping[str, ConversationProfile] = {profile.name: profile for profile in _SHIPPED}


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _check_texts(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(value):
        raise ValueError("an empty text would end every answer")
    return value


# Texts of which the first that appears ends an answer; a single one may stand for itself.
StopStrings = Annotated[tuple[str, ...], BeforeValidator(_several), AfterValidator(_check_texts)]


class ConversationConfig(BaseModel):
    """How the model is asked.

    Attributes:
        profile: A shipped conversation profile; `auto` takes one where it is certain that the checkpoint was
            tuned on it, `none` leaves the conversation to the checkpoint.
        system_prompt: What conversations begin with; None: as the profile has it, empty: nothing.
        chat_template: Jinja, or the name of a shipped template; None: the profile's, else the checkpoint's.
        stop: Texts of which the first that appears ends an answer, beside a benchmark's own; None: the
            profile's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    profile: str = "auto"
    system_prompt: str | None = None
    chat_template: str | None = None
    stop: StopStrings | None = None

    @field_validator("profile")
    @classmethod
    def _check_profile(cls, value: str) -> str:
        names = ["auto", "none", *SHIPPED]
        if value not in names:
            raise ValueError(f"give one of {', '.join(names)}")
        return value

    @field_validator("chat_template")
    @classmethod
    def _jinja(cls, value: str | None) -> str | None:
        """The text of a template that is given by its name."""
        text = None if value is None else TEMPLATES.get(value, value)
        if text is not None and "{" not in text:
            names = ", ".join(TEMPLATES)
            raise ValueError(f"is not a template; give Jinja text, a Jinja file, or one of {names}")
        return text


def read_template(conversation: Any) -> Any:
    """Settings of a conversation with the text of a chat template that is given as a file in its place.

    So content counts, not where it lies. What is no mapping is left to be refused.

    Raises:
        UserError: There is no such file, or it is not text.
    """
    where = conversation.get("chat_template") if isinstance(conversation, Mapping) else None
    if not isinstance(where, str) or where in TEMPLATES or "{" in where:
        return conversation
    try:
        text = read_text(os.path.expanduser(where), SETTINGS_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        known = ", ".join(TEMPLATES)
        raise UserError(f"--chat-template {where}: {reason}; give a file in Jinja, or {known}") from error
    return {**conversation, "chat_template": text}


def in_force(
    name: str, conversation: ConversationConfig, processor: Mapping[str, Any]
) -> ConversationProfile | None:
    """A profile with what settings put in its place.

    Args:
        name: Of a shipped profile; `none` for none.
        conversation: What stands above it; None of it: as the profile has it.
        processor: Arguments beside the profile's, the stronger ones.

    Returns:
        None where nothing is asked otherwise than the checkpoint has it.
    """
    shipped = SHIPPED.get(name, ConversationProfile())
    own = conversation.model_dump(exclude={"profile"}, exclude_none=True)
    found = replace(shipped, **own, processor={**shipped.processor, **processor})
    if not found.content:
        return None
    return replace(found, changed=bool(found.name) and found != shipped)
