"""RLAIF-V, self-judged: fewest wrong claims against most (after Yu et al. 2024, arXiv 2405.17220).

For each image v and prompt x:
    y_1 ... y_n ~ model(v, x)
    each answer is split into claims, by the model itself
    a claim c is wrong unless p(yes | v, "is c right?") > p(no | v, "is c right?"), by the model itself
    of all pairs of answers that differ in how many of their claims are wrong, up to two are drawn; the answer
    with fewer is preferred
  Pairs whose preferred answer is much shorter are dropped, as many as brings the mean lengths of both sides
  nearest to each other; then an adapter is trained by DPO. The next of several iterations goes on from it.

"Lite", for here one model does all of it. In the paper another one splits and turns claims into
questions, and a stronger one may judge them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.contracts.method import Data, Method, Plan
from stic_eval.selftrain import stages
from stic_eval.selftrain.pair_making import AnsweredPair, Making, fill, question, sentences
from stic_eval.training.hyperparameters import Describing, DifferentPairs, PreferenceTraining, share
from stic_eval.training.lora import MOST_RANK, LoraSettings

# In our own words.
SPLIT = """\
Write every fact that the following text states as a short sentence of its own, one a line, without numbers \
or remarks. Leave out opinions and guesses.

{answer}"""
CHECK = "Statement about the image: {claim}\nIs this statement right? Answer with yes or no."


class Pairs(DifferentPairs, Describing):
    """How pairs are made.

    Attributes:
        images: Unlabeled images, from the front.
        fraction: Part of these images.
        samples: Answers to each prompt.
        per_image: Pairs of an image at most, drawn at random from those whose answers differ.
        length_filter: Whether pairs are dropped that teach to be short, see `even_lengths`.
        split: Who splits an answer into claims: the `model`, by `split_prompt`, one claim a line; or its
            `sentences` are the claims.
        split_prompt: Has {answer} in it.
        check_prompt: Has {claim} in it.
        verdicts: The answers for right and wrong whose probabilities are compared.
    """

    images: int = Field(default=6000, ge=1)  # the released code does not state it: as STIC
    fraction: float = Field(default=1.0, gt=0, le=1)
    samples: int = Field(default=10, ge=2)  # paper and released code
    per_image: int = Field(default=2, ge=1)  # released code
    length_filter: bool = True  # released code
    temperature: float = Field(default=0.7, gt=0)  # paper and released code
    max_new_tokens: int = Field(default=512, ge=1)  # released code
    split: Literal["model", "sentences"] = "model"
    split_prompt: str = SPLIT
    check_prompt: str = CHECK
    verdicts: tuple[str, str] = ("Yes", "No")


class Training(PreferenceTraining):
    """DPO; the released script for LoRA."""

    learning_rate: float = Field(default=1e-5, gt=0)  # 5e-7 where all weights are trained
    batch_size: int = Field(default=8, ge=1)  # 1 on each GPU there; its scripts for data have 8
    epochs: int = Field(default=4, ge=1)  # paper
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)


class Lora(LoraSettings):
    """The released script for LoRA."""

    r: int = Field(default=64, ge=1, le=MOST_RANK)
    alpha: int = Field(default=16, ge=1)


class RlaifConfig(BaseModel):
    """The paper's hyperparameters, and the released script's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    iterations: int = Field(default=4, ge=1, le=100)  # paper
    reference: Literal["previous", "base"] = "previous"
    pairs: Pairs = Pairs()
    training: Training = Training()
    lora: Lora = Lora()


def make_pairs(making: Making, how: Pairs) -> Iterator[AnsweredPair]:
    """Samples, claims, verdicts; then pairs of answers with fewer and with more wrong claims."""
    asked, prompts = [], []
    for image in making.images:
        draw = making.random("rlaif_v", image.sha256)
        prompts.append(draw.choice(making.prompts["plain"]))
        asked += [question(prompts[-1], image, how, draw.getrandbits(31)) for _ in range(how.samples)]
    answers = iter(making.answers(asked, "ask for samples"))
    samples = [list(dict.fromkeys(next(answers).text for _ in range(how.samples))) for _ in making.images]
    claims = split(making, {text for own in samples for text in own}, how)
    about = [
        (number, claim)
        for number, own in enumerate(samples)
        for claim in dict.fromkeys(claim for text in own for claim in claims[text])
    ]
    checks = [
        (question(fill(how.check_prompt, claim=claim), making.images[number], how), verdict)
        for number, claim in about
        for verdict in how.verdicts
    ]
    found = iter(making.likelihoods(checks, "check claims"))
    wrong = {one: not next(found).logp > next(found).logp for one in about}
    pairs: list[AnsweredPair] = []
    for number, (image, prompt, own) in enumerate(zip(making.images, prompts, samples, strict=True)):
        # An answer that claims nothing has nothing wrong in it, and is no example of a good one.
        counts = {text: sum(wrong[number, claim] for claim in claims[text]) for text in own if claims[text]}
        unlike = [
            (good, bad) if counts[good] < counts[bad] else (bad, good)
            for good, bad in combinations(sorted(counts), 2)
            if counts[good] != counts[bad]
        ]
        if not unlike:
            making.dropped["with as many wrong claims in all answers"] += 1
        draw = making.random("rlaif_v pairs", image.sha256)
        for good, bad in draw.sample(unlike, min(how.per_image, len(unlike))):
            pairs.append(AnsweredPair(image, prompt, good, bad, "more wrong claims"))
    kept = even_lengths(pairs) if how.length_filter else pairs
    if len(kept) < len(pairs):
        making.dropped["dropped for a much shorter preferred answer"] += len(pairs) - len(kept)
    yield from kept


def even_lengths(made: Sequence[AnsweredPair]) -> list[AnsweredPair]:
    """Pairs without those whose preferred answer is shorter by more than a share of the other.

    Of the shares 0, 0.02, ... 0.98 the first is taken that brings the mean lengths of both sides, in words,
    nearest to each other: the released code's filter against a liking for short answers.
    """

    def lengths(pair: AnsweredPair) -> tuple[int, int]:
        return len(pair.chosen.split()), len(pair.rejected.split())

    def within(part: float) -> list[AnsweredPair]:
        sides = ((pair, *lengths(pair)) for pair in made)
        return [pair for pair, good, bad in sides if bad - good <= part * bad]

    def gap(pairs: Sequence[AnsweredPair]) -> float:
        sides = [lengths(pair) for pair in pairs]
        good, bad = sum(good for good, _ in sides), sum(bad for _, bad in sides)
        return abs(good - bad) / max(1, bad)

    sets = [pairs for step in range(50) if (pairs := within(step / 50))]
    return min(sets, key=gap, default=[])


def split(making: Making, texts: set[str], how: Pairs) -> Mapping[str, list[str]]:
    """Answers -> their claims, each once."""
    order = sorted(texts)
    if how.split == "sentences":
        return {text: list(dict.fromkeys(sentences(text))) for text in order}
    greedy = how.model_copy(update={"temperature": 0.0})
    # Without the image: what a text states does not depend on it.
    asked = [question(fill(how.split_prompt, answer=text), None, greedy) for text in order]
    lists = [reply.text.splitlines() for reply in making.answers(asked, "split into claims")]
    stripped = ([line.strip().lstrip("-*• ") for line in lines] for lines in lists)
    return {text: list(dict.fromkeys(filter(None, own))) for text, own in zip(order, stripped, strict=True)}


def plan(config: RlaifConfig, data: Data) -> Plan:
    """In each iteration pairs by the last adapter, then preference training that goes on from it."""
    how = config.pairs
    images = share(how.images, how.fraction, len(data.images))
    shown = min(images, len(data.images))
    asked = shown * how.samples * (2 if how.split == "model" else 1)

    pairs = partial(
        stages.made_pairs, make_pairs, Pairs, how, data, version=3, images=images, rows=shown * how.per_image,
        generations=asked, roles=("plain",), asks=("likelihoods",),
    )  # fmt: skip
    adapter = stages.rounds(
        pairs, config.iterations, training=config.training, lora=config.lora, reference=config.reference
    )
    return Plan(adapter, "direct")


PAPER = "after Yu et al., RLAIF-V: Aligning MLLMs through Open-Source AI Feedback, 2024"
NOTES = {
    "preferred": "sample with fewer claims that the model itself calls wrong: p(yes) <= p(no)",
    "dispreferred": "sample with more, to the same prompt",
    "training": "DPO, several iterations",
    "reads": "images",
    "differs": "one model samples, splits and judges; in the paper, other models split, turn claims into "
    "questions, and judge. Claims are checked as statements, not as questions, with one casing of yes and "
    "no. Equal samples count once, and a sample without claims makes no pair. Prompts come from the prompt "
    "set. Each iteration continues the last adapter instead of merging it; the paper picks the best "
    "checkpoint by two benchmarks. The batch size is for all GPUs together; the released script has 1 on "
    "each GPU",
    "source": "github.com/RLHF-V/RLAIF-V, script/ and utils/",
}
method = Method("rlaif_v_lite", "RLAIF-V lite", plan, RlaifConfig, PAPER, NOTES)
