"""What a checkpoint's files say without loading it. Never imports transformers.

Which conversation profile it was tuned on is said where that is certain.

Certain is what kind of model, kind of decoder, vocabulary and chat template say together. A 34B LLaVA-1.6 is
of the same kind and speaks ChatML, a LLaVA of Llama 3 has another vocabulary, and one of Phi-3 has one of the
same size and another template: none of them was tuned on the sentence that Vicuna's conversations begin with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stic_eval import profiles
from stic_eval.models.fingerprint import checkpoint_file
from stic_eval.store import read_object
from stic_eval.thinking_tags import ANSWER, THINKING

if TYPE_CHECKING:
    from stic_eval.profiles import ConversationProfile
    from stic_eval.settings import RunConfig

# Llama 2's and Mistral's 32,000 tokens, `<image>` and padding behind them, as the conversions to transformers
# have it: `vocab_size` and the id of `<image>`.
_VOCABULARY = (32064, 32000)
_QUESTION = "qzx"
_WRITTEN = {
    "vicuna": f"USER: <image>\n{_QUESTION} ASSISTANT:",
    "mistral": f"[INST] <image>\n{_QUESTION} [/INST]",
}
# Where processors look for a template, the first one first (transformers 5).
_TEMPLATES = ("processor_config.json", "chat_template.jinja", "chat_template.json", "tokenizer_config.json")


@dataclass(frozen=True)
class _Tuned:
    """A checkpoint's kind, its decoder's kind, and the conversation that its template writes."""

    model_type: str
    text_type: str
    written: str


_PROFILES = {
    _Tuned("llava", "llama", "vicuna"): "llava-1.5",
    _Tuned("llava_next", "llama", "vicuna"): "llava-1.6-vicuna",
    _Tuned("llava_next", "mistral", "mistral"): "llava-1.6-mistral",
}


def profile_of(config: RunConfig) -> ConversationProfile | None:
    """How a run's model is asked; None: as its checkpoint has it.

    Raises:
        UserError: The model may have a profile, and its files cannot be looked up.
    """
    name = config.conversation.profile
    if name == "auto":
        name = certain(config.model, config.revision) or "none"
    return profiles.in_force(name, config.conversation, config.processor)


def certain(model: str, revision: str | None) -> str | None:
    """The name of the profile that a checkpoint was tuned on; None where that is not certain.

    Raises:
        UserError: It may have one, and its chat template cannot be looked up.
    """
    config = read_object(checkpoint_file(model, revision, "config.json"))
    text = config.get("text_config")
    text = text if isinstance(text, dict) else {}
    kind, decoder = str(config.get("model_type")), str(text.get("model_type", "llama"))
    if not any((kind, decoder) == (tuned.model_type, tuned.text_type) for tuned in _PROFILES):
        return None
    image = config.get("image_token_index", config.get("image_token_id"))
    if (text.get("vocab_size"), image) != _VOCABULARY:
        return None
    template = next(_templates(model, revision), None)
    written = None if template is None else _render(template)
    named = (_PROFILES.get(_Tuned(kind, decoder, name)) for name, as_ in _WRITTEN.items() if as_ == written)
    return next(named, None)


def tags_written(model: str, revision: str | None, profile: ConversationProfile | None = None) -> str:
    """How far a model's answers have tags of thinking and answers that a decoder or a template may swallow.

    Part of what its answers are filed under: those that an earlier version filed lack these tags, so that
    thinking reads like an answer.

    Args:
        profile: How it is asked; None: as its checkpoint has it.

    Returns:
        `all tags`, or nothing where none is a special token and no template writes one.

    Raises:
        UserError: Its files cannot be looked up.
    """
    own = profile.chat_template if profile is not None else ""
    templates = [own] if own else _templates(model, revision, any_kind=True)
    tags = [tag for pair in (*THINKING, *ANSWER) for tag in pair]
    opens = any(open_ in text for text in templates for open_, _ in THINKING)
    # A special token may be a piece of a tag.
    special = any(token in tag for token in _special_tokens(model, revision) for tag in tags)
    return "all tags" if opens or special else ""


def _special_tokens(model: str, revision: str | None) -> Iterator[str]:
    whole, slow = (
        read_object(checkpoint_file(model, revision, name))
        for name in ("tokenizer.json", "tokenizer_config.json")
    )
    listed, by_id = whole.get("added_tokens"), slow.get("added_tokens_decoder")
    tokens = [
        *(listed if isinstance(listed, list) else []),
        *(by_id.values() if isinstance(by_id, dict) else []),
    ]
    for token in tokens:
        if (
            isinstance(token, dict)
            and token.get("special")
            and (text := str(token.get("content", "")).strip())
        ):
            yield text


def _templates(model: str, revision: str | None, any_kind: bool = False) -> Iterator[str]:
    """Chat templates, the one in force first; `any_kind`: those of processors that have several as well."""
    for name in _TEMPLATES:
        path = checkpoint_file(model, revision, name)
        if path is not None and path.suffix == ".jinja":
            yield path.read_text(encoding="utf-8")
        elif isinstance(found := read_object(path).get("chat_template"), str):
            yield found
        elif found is not None and any_kind:
            yield json.dumps(found, ensure_ascii=False)


def _render(template: str) -> str | None:
    """A question about an image as a template writes it, without start token; None: it cannot."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Marks of what the model says are an extension of transformers, and write nothing.
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", template)
    parts = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    try:
        text = environment.from_string(plain).render(
            messages=[{"role": "user", "content": parts}],
            add_generation_prompt=True,
            bos_token="<s>",
            eos_token="</s>",
        )
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError):
        return None
    return text.strip().removeprefix("<s>").strip()
