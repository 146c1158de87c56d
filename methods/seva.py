"""SeVa: Self-Supervised Visual Preference Alignment (Zhu et al. 2024, arXiv 2404.10501).

For each image v of the instruction data and up to two of its questions x, drawn, whose answers are not
looked at:
    y_w = model(v, x), greedy                                                  preferred
    y_l = model(h(v), x), greedy, h diffusion noise on the pixel tensor        dispreferred
    drop the pair if the two are the same
  and train an adapter by DPO on (v, x, y_w, y_l): the clean image.

The noise goes onto what the processor has made of the image, after it was resized and normalised.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.contracts.method import Data, Method, Plan, SFTItem
from stic_eval.images import diffuse
from stic_eval.selftrain import stages
from stic_eval.selftrain.pair_making import AnsweredPair, Making, question
from stic_eval.training.hyperparameters import Describing, DifferentPairs, PreferenceTraining, share
from stic_eval.training.lora import LoraSettings


class Pairs(DifferentPairs, Describing):
    """How pairs are made.

    Attributes:
        items: Of the instruction data, from the front (8k images of TextVQA and 4k of OCR-VQA).
        fraction: Part of these items.
        questions: Of an item at most, drawn at random; each is asked alone.
        step: Of the diffusion, of 1,000; 500 or 800 in the paper.
        max_new_tokens: Bound on an answer.
    """

    items: int = Field(default=12_000, ge=1)  # released code
    fraction: float = Field(default=1.0, gt=0, le=1)
    questions: int = Field(default=2, ge=1)  # paper and released code
    step: int = Field(default=500, ge=0, lt=1000)  # the one that the released code recommends to start with
    temperature: float = Field(default=0.0, ge=0)  # paper and released code: greedy
    max_new_tokens: int = Field(default=512, ge=1)  # released code


class Training(PreferenceTraining):
    """DPO; one epoch. Rates and sizes: the released scripts."""

    learning_rate: float = Field(default=2e-6, gt=0)
    batch_size: int = Field(default=16, ge=1)  # on each GPU there
    warmup_ratio: float = Field(default=0.0, ge=0, lt=1)


class SevaConfig(BaseModel):
    """The paper's hyperparameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    pairs: Pairs = Pairs()
    training: Training = Training()
    lora: LoraSettings = LoraSettings(r=1024, alpha=2048)


def make_pairs(making: Making, how: Pairs) -> Iterator[AnsweredPair]:
    """Asks each question about the clean image and about the noisy one."""
    asked = []
    for item in making.items:
        for prompt in draw_questions(making, item, how.questions):
            draw = making.random("seva", item.image.sha256, prompt)
            seed, good, bad = (draw.getrandbits(31) for _ in range(3))
            noisy = diffuse(item.image, how.step, seed)
            both = (question(prompt, item.image, how, good), question(prompt, noisy, how, bad))
            asked.append((item.image, prompt, seed, both))
    answers = iter(making.answers([request for *_, both in asked for request in both], "ask for pairs"))
    for image, prompt, seed, _ in asked:
        yield AnsweredPair(image, prompt, next(answers).text, next(answers).text, "diffusion", seed)


def draw_questions(making: Making, item: SFTItem, most: int) -> list[str]:
    """So many of an item's questions at most, drawn at random, in the order in which the item has them."""
    asked = [text for role, text in item.turns if role == "user"]
    draw = making.random("seva questions", item.image.sha256, asked)
    return [asked[place] for place in sorted(draw.sample(range(len(asked)), min(most, len(asked))))]


def plan(config: SevaConfig, data: Data) -> Plan:
    """Pairs, preference training."""
    how = config.pairs
    items = share(how.items, how.fraction, len(data.sft_items))
    rows = sum(
        min(how.questions, sum(role == "user" for role, _ in item.turns)) for item in data.sft_items[:items]
    )
    pairs = stages.made_pairs(
        make_pairs,
        Pairs,
        how,
        data,
        version=2,
        items=items,
        rows=rows,
        generations=2 * rows,
        asks=("pixel noise",),
    )
    loss = config.training
    return Plan(stages.preference(pairs, loss=loss, training=loss, lora=config.lora), "direct")


PAPER = "Zhu et al., Self-Supervised Visual Preference Alignment, 2024"
NOTES = {
    "preferred": "greedy answer",
    "dispreferred": "greedy answer to the image under diffusion noise, put onto the pixel tensor",
    "training": "DPO",
    "reads": "questions and images of instruction data",
    "differs": "the batch size is for all GPUs together; the released script has 16 on each GPU and does "
    "not say how many GPUs. Every pair is trained on once; the released code lists each twice in its one "
    "epoch. Warm-up is 0, as the released script says; but the script's default ratio of 0.03 remains, and "
    "transformers uses a ratio when the steps are 0. Questions are asked unchanged; the released code "
    "removes the request for a short answer from OCR-VQA's. Line breaks stay in answers; the released code "
    "removes them. All pairs are kept; with step 800 the released code keeps at most 10,800. The projector "
    "is frozen; the released code trains it",
    "source": "github.com/Kevinz-code/SeVa, data/ and run/",
}
method = Method("seva", "SeVa", plan, SevaConfig, PAPER, NOTES)
