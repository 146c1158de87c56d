"""The pocket model as a recipe: its architecture, its tokenizer, and the mix that it is trained on.

The mix decides what the model is good and bad at. It is shown pictures with
- the step-by-step prompt and faithful descriptions, half of them followed by questions,
- plain prompts and careless captions, as image-text data from the web is,
- misleading prompts and invented things,
- questions in the benchmarks' wordings,
and, since its decoder has to read as a pretrained one does, faithful descriptions in words only, with
questions on the words, and exercises with options, rules and small sums. A description *beside* a
picture it never sees: that is left to STIC.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stic_eval.pocket.drills import dense_drills, drills
from stic_eval.pocket.language import careless, describe, invented
from stic_eval.pocket.rows import PROMPTS, turns, wordings
from stic_eval.pocket.tasks import Row
from stic_eval.pocket.world import SIZE, Spec, Split, draw_spec

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

PATCH = 24
N_PATCHES = (SIZE // PATCH) ** 2
VOCABULARY = 1024
IMAGE, EOS, PAD = "<image>", "</s>", "<pad>"

# Vicuna's turns without its system prompt, as LLaVA-1.5 has them. Content may be parts or plain text.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['content'] is string %}{% set text = message['content'] %}"
    "{% else %}{% set found = namespace(text='', images='') %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% set found.images = found.images + '<image>\n' %}"
    "{% else %}{% set found.text = found.text + part['text'] %}{% endif %}{% endfor %}"
    "{% set text = found.images + found.text %}{% endif %}"
    "{% if message['role'] == 'user' %}USER: {{ text }} ASSISTANT:"
    "{% elif message['role'] == 'assistant' %}{% generation %} {{ text }}</s>{% endgeneration %}"
    "{% else %}{{ text }}\n{% endif %}{% endfor %}"
)

# Share of each kind of example in each training: while the decoder learns to read, while it learns to
# see, and in the last and longest one.
MIXES = {
    "reading": {"reading": 0.85, "text": 0.15},
    "seeing": {"faithful": 0.32, "careless": 0.10, "invented": 0.06, "questions": 0.26, "reading": 0.26},
    "words": {
        "faithful": 0.24, "careless": 0.08, "invented": 0.05, "questions": 0.25, "reading": 0.26,
        "drills": 0.12,
    },
    "joint": {
        "faithful": 0.18, "careless": 0.06, "invented": 0.04, "questions": 0.33, "reading": 0.21,
        "drills": 0.06, "dense": 0.12,
    },
}  # fmt: skip
_UNSEEN = ("reading", "text", "drills", "dense")
_PASSAGES = ("Image description:\n{}\n\n", "Image description:\n{}\n", "Context: {}\n", "{}\n")


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation: (prompt, answer, weight of the answer's tokens), with a picture or without."""

    spec: Spec
    seed: int
    seen: bool
    talk: tuple[tuple[str, str, float], ...]


def prompts() -> dict[str, Any]:
    """The pocket prompt set."""
    data: dict[str, Any] = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
    return data


def examples(
    mix: Mapping[str, float], ask: Mapping[str, Callable[[Row], str]], split: Split, start: int
) -> Iterator[Example]:
    """Endless examples of a mix, one a seed, from a seed on."""
    said = prompts()
    seed = start
    while True:
        rng = random.Random(f"mix/{split}/{seed}")
        spec = draw_spec(split, seed, rng.choice(("any", "any", "many", "sign", "chart")))
        kind = rng.choices(list(mix), list(mix.values()))[0]
        yield Example(spec, seed, kind not in _UNSEEN, tuple(_talk(kind, spec, rng, ask, said)))
        seed += 1


def _talk(
    kind: str,
    spec: Spec,
    rng: random.Random,
    ask: Mapping[str, Callable[[Row], str]],
    said: Mapping[str, Any],
) -> Iterator[tuple[str, str, float]]:
    # Short answers weigh more: a description has forty tokens, a letter one.
    short = 3.0
    if kind == "faithful":
        yield said["step_by_step"], describe(spec), 1.0
        if rng.random() < 0.5:
            yield from ((q, a, short) for q, a in turns(spec, rng, ask, 2))
    elif kind == "careless":
        yield rng.choice(said["plain"]), careless(spec, rng), 1.0
    elif kind == "invented":
        yield rng.choice(said["misleading"]), invented(spec, rng), 1.0
    elif kind == "questions":
        yield from ((q, a, short) for q, a in turns(spec, rng, ask, 3))
    elif kind == "drills":
        yield from ((q, a, short) for q, a in drills(rng, 6))
    elif kind == "dense":
        yield from ((q, a, 1.0) for q, a in dense_drills(rng, 1))
    elif kind == "text":
        yield said["step_by_step"], describe(spec), 1.0
    else:
        passage = rng.choice(_PASSAGES).format(describe(spec))
        for number, (question, answer) in enumerate(turns(spec, rng, ask, 4)):
            yield (question if number else passage + question), answer, short


# ---------------------------------------------------------------- what the model is made of


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on the mix; any text can be written in it."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    ask = wordings()
    said = prompts()
    texts = [said["step_by_step"], *said["plain"], *said["misleading"]] * 20
    for number, example in enumerate(examples(MIXES["seeing"], ask, "train", 900_000_000)):
        texts += [f"USER: {q} ASSISTANT: {a}" for q, a, _ in example.talk]
        if number == 4000:
            break
    plain = Tokenizer(BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, "<s>", EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    plain.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token=EOS, pad_token=PAD, padding_side="left",
        extra_special_tokens={"image_token": IMAGE}, model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def processor(words: PreTrainedTokenizerFast) -> LlavaProcessor:
    """LLaVA's processor at the pocket model's size."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, do_center_crop=False, crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3,
    )  # fmt: skip
    return LlavaProcessor(
        pixels, words, patch_size=PATCH, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        image_token=IMAGE, num_additional_image_tokens=1,
    )  # fmt: skip


def build_model(words: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """The untrained model: CLIP tower, MLP projector, Llama decoder; about 4.7 M parameters."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=6,
        image_size=SIZE, patch_size=PATCH, projection_dim=192,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=192, intermediate_size=512, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=words.get_vocab()[IMAGE],
        vision_feature_layer=-1, vision_feature_select_strategy="default", image_seq_length=N_PATCHES,
        tie_word_embeddings=False,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def encode(example: Example, words: PreTrainedTokenizerFast) -> tuple[list[int], list[float]]:
    """Token ids of a conversation, and the weight of each in the loss (0 on what the user says)."""
    ids: list[int] = []
    weights: list[float] = []
    for number, (question, answer, weight) in enumerate(example.talk):
        image = (IMAGE * N_PATCHES + "\n") if example.seen and number == 0 else ""
        asked = words.encode(f"USER: {image}{question} ASSISTANT:", add_special_tokens=False)
        said = words.encode(f" {answer}{EOS}", add_special_tokens=False)
        ids += asked + said
        weights += [0.0] * len(asked) + [weight] * len(said)
    return ids, weights


def save_log(path: Path, lines: list[dict[str, Any]]) -> None:
    """Writes the figures of a training."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
