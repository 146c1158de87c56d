"""My method: pairs of a careful description and one of a spoilt image, then preference training.

    stic-eval run --method ./my_method.py                 # against the baseline, on the embedded model
    stic-eval run --method ./my_method.py --limit 2 --benchmarks chartqa -o stage1.images=4    # in seconds
    stic-eval ablate --method ./my_method.py --vary stage1.corruption=blur,noise,low_res --seeds 0,1,2

This file is all there is to it: change anything. Stages whose settings and code have not changed are taken
from the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.contracts.method import Data, Method, Plan
from stic_eval.images import corrupt
from stic_eval.selftrain import stages
from stic_eval.selftrain.pair_making import AnsweredPair, Making, question
from stic_eval.training.hyperparameters import Describing, PairFilter, PreferenceLoss, Training
from stic_eval.training.lora import LoraSettings

# ---------------------------------------------------------------- what can be set


class Pairs(PairFilter, Describing):
    """How pairs are made. All of it is in the pairs' key: another value makes other pairs.

    Inherited are `temperature`, `top_p`, `max_new_tokens` (Describing) and `filter` (PairFilter).
    """

    images: int = Field(default=6000, ge=1)  # unlabeled images, counted from the front
    corruption: Literal["low_res", "jitter", "blur", "noise", "blank", "crop"] = "blur"


class Stage1(Pairs, PreferenceLoss, Training):
    """Pairs, and training on them: `beta`, `alpha` (PreferenceLoss), `epochs`, ... (Training)."""

    learning_rate: float = Field(default=1e-6, gt=0)
    batch_size: int = Field(default=8, ge=1)


class Options(BaseModel):
    """Everything that `-o` sets, e.g. `-o stage1.corruption=noise` or `-o lora.r=64`."""

    model_config = ConfigDict(extra="forbid", frozen=True)  # a typo is an error, and not a default
    stage1: Stage1 = Stage1()
    lora: LoraSettings = LoraSettings()


# ---------------------------------------------------------------- the method itself


def make(making: Making, settings: Pairs) -> Iterator[AnsweredPair]:
    """A pair for every image.

    It has to be pure: the same images and settings give the same pairs, so that a run which was killed goes
    on where it was. Whatever is drawn, `making.random` draws: by the image, and not by its place.

    Args:
        making: The images, the prompts, and the model to ask.
        settings: How.
    """
    careful = making.prompts["step_by_step"][0]
    drawn, requests = [], []
    for image in making.images:
        draw = making.random("my_method", image.sha256)
        plain, seed = draw.choice(making.prompts["plain"]), draw.getrandbits(31)
        spoilt = corrupt(image, settings.corruption, seed)
        drawn.append((image, plain, seed))
        # The preferred answer sees the image and is asked for care; the other one sees it spoilt.
        requests += [question(careful, image, settings, seed), question(plain, spoilt, settings, seed)]
    # Everything in one go: the model answers in batches, and what it has answered before is not asked again.
    answers = making.answers(requests, "ask for pairs")
    for (image, plain, seed), good, bad in zip(drawn, answers[::2], answers[1::2], strict=True):
        if not good.text.strip():
            making.dropped["without a preferred answer"] += 1  # counted in the run's log
            continue
        # What is trained on is the clean image under the plain prompt, whatever was asked above.
        yield AnsweredPair(image, plain, good.text, bad.text, negative=settings.corruption, seed=seed)


def plan(options: Options, data: Data) -> Plan:
    """The stages, each of which names those that it needs. Nothing is computed here.

    Args:
        options: As they are set.
        data: Counts the images and has the prompts; empty if the plan is only looked at.
    """
    one = options.stage1
    images = min(one.images, len(data.images) or one.images)
    pairs = stages.made_pairs(
        make, Pairs, one, data,
        version=1,  # bump it where something changes what comes out that is not in this file
        images=images, rows=images, generations=2 * images,  # of what there is, for `--dry-run`
        roles=("step_by_step", "plain"),  # which of the run's prompts `make` uses
    )  # fmt: skip
    # To train otherwise: stages.positive_sft(pairs, ...) fine-tunes on the preferred answers alone, and
    # stages.infused_sft(data, start=adapter, ...) goes on with the model's own instruction data.
    adapter = stages.preference(pairs, loss=one, training=one, lora=options.lora)
    # "describe_and_respond" instead of "direct" describes the image first, and then answers.
    return Plan(adapter, "direct")


method = Method(
    name="my_method",  # what -o, config files and folders of results call it
    title="My method",  # what tables print
    plan=plan,
    config=Options,
    paper="",  # whom to cite
    # What the embedded model of some million parameters needs instead of the values above.
    presets={
        "pocket": {
            "stage1": {
                "images": 200, "max_new_tokens": 96, "temperature": 0.2, "learning_rate": 1e-3,
                "batch_size": 16,
            },
            "lora": {"r": 16, "alpha": 32},
        }
    },
)  # fmt: skip
