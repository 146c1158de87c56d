"""SIMA: self-improvement of modality alignment (Wang et al. 2024, arXiv 2405.15973).

For each image v, question x and reference answer r of the instruction data:
    y_1 = model(v, x), greedy;   y_2 ~ model(v, x), sampled
    the model itself, shown v, x, r and both answers in a random order, says which is better: its
    instructions name three criteria for what is seen (objects, relations, attributes) and show two
    verdicts; what does not hold a verdict is dropped and counted
  and train an adapter by DPO on (v, x, better, worse).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stic_eval.contracts.method import Data, Method, Plan, SFTItem
from stic_eval.selftrain import stages
from stic_eval.selftrain.pair_making import AnsweredPair, Making, fill, question
from stic_eval.training.hyperparameters import Describing, DifferentPairs, PreferenceTraining, share
from stic_eval.training.lora import LoraSettings

# In our own words.
JUDGE = """\
Two answers to a question about the image are given, and an answer that is known to be right. Say which of \
the two is better. Compare them by these criteria, and by nothing else:
1. Objects: does the answer name what is in the image, and nothing that is not?
2. Relations: are positions, and what is done to what, as in the image and the right answer?
3. Attributes: are colors, numbers, materials and texts as in the image and the right answer?
Length and style do not count. End with [[1]] if the first answer is better, or with [[2]] if the second is.

Example. Question: What is on the table? Right answer: A blue cup and two books.
First answer: A blue cup beside two books. Second answer: A blue cup, a lamp and two books.
Verdict: the second names a lamp that is not there. [[1]]

Example. Question: What is the man doing? Right answer: He is handing a ball to the child.
First answer: The child is throwing a ball to him. Second answer: He gives a child a ball.
Verdict: the first turns around who gives and who takes. [[2]]

Question: {question}
Right answer: {reference}
First answer: {first}
Second answer: {second}
Verdict:"""


class Pairs(DifferentPairs, Describing):
    """How pairs are made.

    Attributes:
        items: Of the instruction data, from the front; the first question and answer of each are taken.
        fraction: Part of these items.
        temperature: Of the sampled answer.
        top_p: Of the sampled answer.
        judge_prompt: What the model is asked about its two answers; has {question}, {reference}, {first}
            and {second} in it.
        verdicts: What it says for the first and for the second; of several the last counts.
        max_new_tokens: Bound on an answer.
        judge_max_new_tokens: Bound on a verdict.
    """

    items: int = Field(default=5000, ge=1)  # the released code does not state it: as STIC's second stage
    fraction: float = Field(default=1.0, gt=0, le=1)
    temperature: float = Field(default=0.8, gt=0)  # paper and released code
    top_p: float = Field(default=0.9, gt=0, le=1)  # paper and released code
    max_new_tokens: int = Field(default=1024, ge=1)  # released code
    judge_prompt: str = JUDGE
    verdicts: tuple[str, str] = ("[[1]]", "[[2]]")
    judge_max_new_tokens: int = Field(default=4096, ge=1)  # released code

    @field_validator("judge_prompt")
    @classmethod
    def _has_both(cls, prompt: str) -> str:
        for name in ("{first}", "{second}"):
            if name not in prompt:
                raise ValueError(f"{name} is missing in the judge's prompt")
        return prompt


class Training(PreferenceTraining):
    """DPO; the released script's rates."""

    learning_rate: float = Field(default=1e-7, gt=0)
    batch_size: int = Field(default=1, ge=1)  # on each GPU there
    epochs: int = Field(default=3, ge=1)


class SimaConfig(BaseModel):
    """The paper's hyperparameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    pairs: Pairs = Pairs()
    training: Training = Training()
    lora: LoraSettings = LoraSettings()  # rank 128, alpha 256: paper


def make_pairs(making: Making, how: Pairs) -> Iterator[AnsweredPair]:
    """Two answers to each question, then the model's own verdict on those that differ."""
    greedy = how.model_copy(update={"temperature": 0.0})
    judging = how.model_copy(update={"temperature": 0.0, "max_new_tokens": how.judge_max_new_tokens})
    seeds = [making.random("sima", i.image.sha256, i.turns).getrandbits(31) for i in making.items]
    asked = [
        question(first(item, "user"), item.image, decoding, seed)
        for item, seed in zip(making.items, seeds, strict=True)
        for decoding in (greedy, how)
    ]
    answers = iter(making.answers(asked, "ask for candidates"))
    cases, verdicts = [], []
    for item, seed in zip(making.items, seeds, strict=True):
        both = (next(answers).text, next(answers).text)
        if both[0] == both[1]:
            making.dropped["with equal candidates"] += 1
            continue
        # The random order keeps a model that likes one place from liking one way of decoding.
        swapped = seed % 2 == 1
        shown = both[::-1] if swapped else both
        parts = {"question": first(item, "user"), "reference": first(item, "assistant")}
        text = fill(how.judge_prompt, **parts, first=shown[0], second=shown[1])
        cases.append((item, seed, swapped, shown))
        verdicts.append(question(text, item.image, judging))
    for (item, seed, swapped, shown), reply in zip(cases, making.answers(verdicts, "judge"), strict=True):
        better = read_verdict(reply.text, how.verdicts)
        if better is None:
            making.dropped["without a readable verdict"] += 1
            continue
        worse = "greedy" if swapped == (better == 0) else "sampled"
        yield AnsweredPair(item.image, first(item, "user"), shown[better], shown[1 - better], worse, seed)


def read_verdict(reply: str, verdicts: tuple[str, str]) -> int | None:
    """Which answer a reply calls better, 0 or 1; None if it says neither.

    What a reply begins with counts, else the last of several. A letter within a word is no verdict.
    """
    places = []
    for verdict in verdicts:
        found = [m.start() for m in re.finditer(rf"(?<!\w){re.escape(verdict)}(?!\w)", reply.strip())]
        places.append(-1 if not found else len(reply) if found[0] == 0 else found[-1])
    return None if max(places) < 0 else places.index(max(places))


def first(item: SFTItem, role: str) -> str:
    """An item's first turn of a role."""
    return next(text for own, text in item.turns if own == role)


def plan(config: SimaConfig, data: Data) -> Plan:
    """Pairs, preference training."""
    how, loss = config.pairs, config.training
    items = share(how.items, how.fraction, len(data.sft_items))
    rows = min(items, len(data.sft_items))
    pairs = stages.made_pairs(
        make_pairs, Pairs, how, data, version=2, items=items, rows=rows, generations=3 * rows
    )
    return Plan(stages.preference(pairs, loss=loss, training=loss, lora=config.lora), "direct")


PAPER = "Wang et al., Enhancing Visual-Language Modality Alignment via Self-Improvement, 2024"
NOTES = {
    "preferred": "greedy or sampled answer, whichever the model calls better when it sees a reference answer",
    "dispreferred": "the other",
    "training": "DPO",
    "reads": "instruction data",
    "differs": "the judge's instructions are in our words. The two answers are shown in random order, so a "
    "judge that prefers one position does not favour one way of decoding; the released code always shows the "
    "sampled answer first. Only an item's first question and answer are used. The batch size is for all GPUs "
    "together; the released script has 1 on each GPU and does not say how many GPUs, and groups rows by "
    "length",
    "source": "github.com/umd-huang-lab/SIMA, llava/sima/ and scripts/run_dpo.sh",
}
method = Method("sima", "SIMA", plan, SimaConfig, PAPER, NOTES)
