"""The pocket model as a recipe: its architecture and the mix that it is trained on.

The mix decides what the model is good and bad at. It is shown pictures with
- the step-by-step prompt and careful descriptions, some of them followed by questions,
- plain prompts and careless captions, as image-text data from the web is,
- misleading prompts and invented things,
- questions in the benchmarks' wordings, fewer than it would take to answer them well,
and, since its decoder has to read as a pretrained one does, faithful descriptions in words only, with
questions on the words, and exercises with options, facts and small sums. A description *beside* a
question about a picture it never sees: that is left to STIC.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from stic_eval.pocket.drills import NUMBERS, PASSAGE_SKILLS, PASSAGES, Turn, drill
from stic_eval.pocket.language import careful, careless, describe, invented
from stic_eval.pocket.recall import LETTERS, MARKS
from stic_eval.pocket.rows import PROMPTS, turns, wordings
from stic_eval.pocket.tasks import FEELINGS, MAKERS, MATERIALS, Row
from stic_eval.pocket.vocabulary import EOS, IMAGE, MARK, tokenizer, words_of
from stic_eval.pocket.world import COLORS, OBJECT_SIZES, SETTINGS, SHAPES, SIZE, Spec, Split, draw_spec

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

PATCH = 24
N_PATCHES = (SIZE // PATCH) ** 2

# Share of each kind of example in each training: while the decoder learns to read, and in the last and
# longest one, with pictures.
MIXES = {
    "reading": {"drills": 0.6, "reading": 0.4},
    "joint": {
        "faithful": 0.24, "careless": 0.08, "invented": 0.05, "questions": 0.04, "reading": 0.24,
        "drills": 0.35,
    },
}  # fmt: skip
SKILLS = (
    "option", "rotation", "fact", "two hops", "sum", "after description", "careful", "careless", "invented",
    *PASSAGE_SKILLS, *(f"read {name}" for name in MAKERS), *(f"see {name}" for name in MAKERS),
)  # fmt: skip
_UNSEEN = ("reading", "drills")
_END = 0.1  # weight of the token that ends an answer: it is easy, and there are many


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation, with a picture or without."""

    spec: Spec
    seed: int
    seen: bool
    talk: tuple[Turn, ...]


def prompts() -> dict[str, Any]:
    """The pocket prompt set."""
    data: dict[str, Any] = yaml.safe_load(PROMPTS.read_text(encoding="utf-8"))
    return data


def examples(
    mix: Mapping[str, float], ask: Mapping[str, Callable[[Row], str]], split: Split, start: int
) -> Iterator[Example]:
    """Endless examples of a mix, one a seed, from a seed on."""
    roles = prompts()
    seed = start
    while True:
        rng = random.Random(f"mix/{split}/{seed}")
        spec = draw_spec(split, seed, rng.choice(("any", "any", "many", "sign", "chart")))
        kind = rng.choices(list(mix), list(mix.values()))[0]
        yield Example(spec, seed, kind not in _UNSEEN, tuple(_talk(kind, spec, rng, ask, roles)))
        seed += 1


def _talk(
    kind: str,
    spec: Spec,
    rng: random.Random,
    ask: Mapping[str, Callable[[Row], str]],
    roles: Mapping[str, Any],
) -> Iterator[Turn]:
    # Short answers weigh more: a description has forty tokens, a letter one.
    short = 3.0
    if kind == "faithful":
        yield Turn(roles["step_by_step"], careful(spec, rng), 1.0, "careful")
        if rng.random() < 0.4:
            for one in turns(spec, rng, ask, 2):
                yield Turn(one.question, one.answer, short, "after description", one.key, one.clue)
    elif kind == "careless":
        yield Turn(rng.choice(roles["plain"]), careless(spec, rng), 1.0, "careless")
    elif kind == "invented":
        yield Turn(rng.choice(roles["misleading"]), invented(spec, rng), 1.0, "invented")
    elif kind == "questions":
        # Signs, and what things are made of: learned from descriptions alone, and with these at the ceiling.
        some = {name: text for name, text in ask.items() if name not in ("textvqa", "scienceqa")}
        for one in turns(spec, rng, some, 3):
            # Who asks for all that there is gets a caption as well: careful is what one step at a time is.
            full = one.answer == describe(spec)
            said = careless(spec, rng) if full else one.answer
            yield Turn(one.question, said, 1.0 if full else short, f"see {one.benchmark}", one.key, one.clue)
    elif kind == "drills":
        yield from drill(rng)
    else:
        passage = rng.choice(PASSAGES).format(describe(spec))
        for number, one in enumerate(turns(spec, rng, ask, 4)):
            asked = one.question if number else passage + one.question
            yield Turn(asked, one.answer, short, f"read {one.benchmark}", one.key, one.clue)


# ---------------------------------------------------------------- what the model is made of

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


def build_tokenizer(shown: int = 8000) -> PreTrainedTokenizerFast:
    """The tokenizer of all words that prompts, exercises and at least one in 500 examples have.

    Args:
        shown: Examples that are looked through.
    """
    ask, roles = wordings(), prompts()
    texts = [roles["step_by_step"], *roles["plain"], *roles["misleading"]]
    texts += [
        "USER: ASSISTANT:",
        " ".join((*LETTERS, *MARKS, *")!'\"-")),
        *NUMBERS,
        *(f"{n / 2:.1f}" for n in range(2, 41)),
    ]
    seen: list[str] = []
    for number, example in enumerate(examples(MIXES["joint"], ask, "train", 900_000_000)):
        seen += [f"{turn.question}\n{turn.answer}" for turn in example.talk]
        if number == shown:
            break
    return tokenizer(sorted({*words_of(texts), *words_of(seen, least=max(1, shown // 500))}))


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
    """The untrained model: CLIP tower, MLP projector, Llama decoder; about 7 M parameters.

    What a decoder layer adds starts at zero and the embeddings are as large as a layer's input is, so that
    at first every position holds its own token and nothing else; with the usual start, looking things up
    was not learned in three times as many steps.
    """
    from torch import nn
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=6,
        image_size=SIZE, patch_size=PATCH, projection_dim=192,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=256, intermediate_size=640, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, tie_word_embeddings=True,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=words.get_vocab()[IMAGE],
        vision_feature_layer=-1, vision_feature_select_strategy="default", image_seq_length=N_PATCHES,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    language = model.model.language_model
    nn.init.normal_(language.embed_tokens.weight, std=text.hidden_size**-0.5)
    for layer in language.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    return model


def token_ids(words: PreTrainedTokenizerFast, texts: Iterable[str]) -> np.ndarray:
    """The ids of words that have a token each."""
    return np.array([words.get_vocab()[MARK + text] for text in texts])


def recall_words(pool: str, words: PreTrainedTokenizerFast) -> list[str]:
    """The words that `recall` draws from.

    Args:
        pool: `few` (16 and the letters), `more` (all that are said of pictures) or `all` there are.
        words: The tokenizer.
    """
    content = [*COLORS, *SHAPES, *MATERIALS, *FEELINGS, *OBJECT_SIZES, *SETTINGS, *NUMBERS]
    if pool == "few":
        return [*content[:16], *LETTERS]
    if pool == "more":
        return [*content, *LETTERS]
    other = [token.removeprefix(MARK) for token in sorted(words.get_vocab()) if token.startswith(MARK)]
    return [word for word in other if word and word not in MARKS]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation in tokens.

    Attributes:
        ids: The tokens.
        weights: Of each in the loss, 0 on the user's.
        skills: What each exercises.
        clues: Which (0: key, 1: clue), place of the answer's first token, tokens of the words.
    """

    ids: list[int]
    weights: list[float]
    skills: list[str | None]
    clues: list[tuple[int, int, list[int]]]


def encode(example: Example, words: PreTrainedTokenizerFast) -> Encoded:
    """A conversation in tokens, with what the loss needs to know of each."""
    text = Encoded([], [], [], [])
    for number, turn in enumerate(example.talk):
        image = (IMAGE * N_PATCHES + "\n") if example.seen and number == 0 else ""
        asked = words.encode(f"USER: {image}{turn.question} ASSISTANT:", add_special_tokens=False)
        answer = words.encode(f" {turn.answer}{EOS}", add_special_tokens=False)
        place = len(text.ids) + len(asked)
        for which, clue in enumerate((turn.key, turn.clue)):
            if clue:
                text.clues.append((which, place, words.encode(f" {clue}", add_special_tokens=False)))
        text.ids.extend(asked + answer)
        text.weights.extend([0.0] * len(asked) + [turn.weight] * (len(answer) - 1) + [_END * turn.weight])
        text.skills.extend([None] * len(asked) + [turn.skill] * (len(answer) - 1) + [None])
    return text


def save_log(path: Path, lines: list[dict[str, Any]]) -> None:
    """Writes the figures of a training."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
