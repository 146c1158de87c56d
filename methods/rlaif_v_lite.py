"""RLAIF-V, self-judged: fewest wrong claims against most (after Yu et al. 2024, arXiv 2405.17220).

For each image v and prompt x:
    y_1 ... y_n ~ model(v, x)
    each answer is split into claims, by the model itself
    a claim c is wrong if p(no | v, "is c right?") > p(yes | v, "is c right?"), by the model itself
    the answer with fewest wrong claims is preferred, the one with most dispreferred, if these differ
  and train an adapter by DPO. The next of several iterations goes on from that adapter.

"Lite", for here one model does all of it. In the paper another one splits and turns claims into
questions, and a stronger one may judge them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.selftrain import stages
from stic_eval.selftrain.making import Made, Making, filled, question, sentences
from stic_eval.selftrain.method import Data, Method, Plan
from stic_eval.train.lora import LoraSettings
from stic_eval.train.settings import Describing, DifferentPairs, PreferenceTraining, share

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
        split: Who splits an answer into claims: the `model`, by `split_prompt`, one claim a line; or its
            `sentences` are the claims.
        split_prompt: Has {answer} in it.
        check_prompt: Has {claim} in it.
        verdicts: The answers for right and wrong whose probabilities are compared.
    """

    images: int = Field(default=6000, ge=1)  # not from the paper: as STIC
    fraction: float = Field(default=1.0, gt=0, le=1)
    samples: int = Field(default=10, ge=2)  # paper
    temperature: float = Field(default=0.7, gt=0)  # paper
    split: Literal["model", "sentences"] = "model"
    split_prompt: str = SPLIT
    check_prompt: str = CHECK
    verdicts: tuple[str, str] = ("Yes", "No")


class Training(PreferenceTraining):
    """DPO."""

    learning_rate: float = Field(default=5e-7, gt=0)  # not from the paper
    batch_size: int = Field(default=8, ge=1)  # not from the paper
    epochs: int = Field(default=4, ge=1)  # paper


class RlaifConfig(BaseModel):
    """The paper's hyperparameters, as far as they are known here."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    iterations: int = Field(default=4, ge=1)  # paper
    reference: Literal["previous", "base"] = "previous"
    pairs: Pairs = Pairs()
    training: Training = Training()
    lora: LoraSettings = LoraSettings()  # not from the paper


def make_pairs(making: Making, how: Pairs) -> Iterator[Made]:
    """Samples, claims, verdicts; then for each image the answer with fewest wrong claims against most."""
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
        (question(filled(how.check_prompt, claim=claim), making.images[number], how), verdict)
        for number, claim in about
        for verdict in how.verdicts
    ]
    found = iter(making.likelihoods(checks, "check claims"))
    wrong = {one: next(found).logp < next(found).logp for one in about}
    for number, (image, prompt, own) in enumerate(zip(making.images, prompts, samples, strict=True)):
        # An answer that claims nothing has nothing wrong in it, and is no example of a good one.
        counts = {text: sum(wrong[number, claim] for claim in claims[text]) for text in own if claims[text]}
        if len(set(counts.values())) < 2:
            making.dropped["with as many wrong claims in all answers"] += 1
        else:
            best, worst = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
            yield Made(image, prompt, best, worst, "most wrong claims")


def split(making: Making, texts: set[str], how: Pairs) -> Mapping[str, list[str]]:
    """Answers -> their claims, each once."""
    order = sorted(texts)
    if how.split == "sentences":
        return {text: list(dict.fromkeys(sentences(text))) for text in order}
    greedy = how.model_copy(update={"temperature": 0.0})
    # Without the image: what a text states does not depend on it.
    asked = [question(filled(how.split_prompt, answer=text), None, greedy) for text in order]
    lists = [reply.text.splitlines() for reply in making.answers(asked, "split into claims")]
    stripped = ([line.strip().lstrip("-*• ") for line in lines] for lines in lists)
    return {text: list(dict.fromkeys(filter(None, own))) for text, own in zip(order, stripped, strict=True)}


def plan(config: RlaifConfig, data: Data) -> Plan:
    """In each iteration pairs by the last adapter, then preference training that goes on from it."""
    how = config.pairs
    images = share(how.images, how.fraction, len(data.images))
    rows = min(images, len(data.images))
    asked = rows * how.samples * (2 if how.split == "model" else 1)

    pairs = partial(
        stages.made_pairs, make_pairs, Pairs, how, data, version=2, images=images, rows=rows,
        generations=asked, roles=("plain",),
    )  # fmt: skip
    adapter = stages.rounds(
        pairs, config.iterations, training=config.training, lora=config.lora, reference=config.reference
    )
    return Plan(adapter, "direct")


PAPER = "after Yu et al., RLAIF-V: Aligning MLLMs through Open-Source AI Feedback, 2024"
NOTES = {
    "preferred": "sample with fewest claims that the model itself holds wrong, by its p(no) > p(yes)",
    "dispreferred": "sample with most",
    "training": "DPO, several iterations",
    "reads": "images",
    "differs": "one model samples, splits and judges; claims are checked as statements, not as questions",
}
method = Method("rlaif_v_lite", "RLAIF-V lite", plan, RlaifConfig, PAPER, NOTES)
