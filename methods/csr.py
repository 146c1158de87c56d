"""CSR: Calibrated Self-Rewarding (Zhou et al., NeurIPS 2024, arXiv 2405.14622), as its code has it.

For each image v and prompt x, answers grow sentence by sentence. In each step, for each path:
    candidates s ~ model(v, x, path), each the next sentence
    c(s) = (1 - w) rank(log p(s | v, x, path)) + w rank(fit(v, s)), w = 0.9, log p a token's mean, fit the
      image-text similarity; a rank is the place among the path's candidates, best first, over their number
    go on with the likeliest paths of the image and with the least likely, by log p added up
  Of all answers of an image the one with the lowest c is preferred, the one with the highest dispreferred, c
  the sum over the sentences by one more than there are; an adapter is trained on the pairs by DPO.
  The next of several iterations goes on from that adapter, which is its reference as well.

Candidates are sampled, where the paper has diverse beams. It merges each adapter into the weights and trains
a new one; going on from the adapter trains the same sum of weights and update, at one rank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.contracts.method import Data, Method, Plan
from stic_eval.selftrain import stages
from stic_eval.selftrain.pair_making import AnsweredPair, Making, question, sentences
from stic_eval.training.hyperparameters import Describing, DifferentPairs, PreferenceTraining, share
from stic_eval.training.lora import LoraSettings


class Pairs(DifferentPairs, Describing):
    """How pairs are made.

    Attributes:
        images: Unlabeled images, from the front (the released prompts are about 12,856 of MSCOCO train2014).
        fraction: Part of these images.
        candidates: Next sentences that are sampled for each path.
        keep_best: Paths that are gone on with at the likely end, where there are as many as candidates.
        keep_worst: And at the unlikely end.
        sentences: Of an answer at most.
        weight: w, of the image-text similarity.
        scorer: Of the similarity: `clip`, a CLIP model, as in the paper; `own`, the model itself.
        clip: That CLIP model, by hub id or folder. Its name is in the pairs' key, its content is not.
        max_new_tokens: Bound on a sentence.
    """

    images: int = Field(default=12_856, ge=1)  # released code
    fraction: float = Field(default=1.0, gt=0, le=1)
    candidates: int = Field(default=5, ge=1)  # paper and released code: 5 beams
    keep_best: int = Field(default=1, ge=1)  # released code
    keep_worst: int = Field(default=2, ge=1)  # released code
    sentences: int = Field(default=8, ge=1)
    weight: float = Field(default=0.9, ge=0, le=1)  # paper and released code
    scorer: Literal["clip", "own"] = "clip"
    clip: str = "openai/clip-vit-large-patch14-336"  # released code
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=70, ge=1)  # released code


class Training(PreferenceTraining):
    """DPO; the released script's rates."""

    learning_rate: float = Field(default=1e-7, gt=0)
    batch_size: int = Field(default=1, ge=1)  # on each GPU there


class CsrConfig(BaseModel):
    """The paper's hyperparameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    iterations: int = Field(default=3, ge=1, le=100)  # paper
    reference: Literal["previous", "base"] = "previous"
    pairs: Pairs = Pairs()
    training: Training = Training()
    lora: LoraSettings = LoraSettings()  # rank 128, alpha 256: paper


@dataclass(frozen=True)
class Path:
    """An answer so far.

    Attributes:
        image: Its image's number.
        text: What it says.
        costs: Of its sentences, c above.
        score: Their log-probabilities a token in nats, added up.
    """

    image: int
    text: str = ""
    costs: tuple[float, ...] = ()
    score: float = 0.0

    @property
    def cost(self) -> float:
        """Sum over its sentences by one more than there are: the released code counts the prompt as well."""
        return sum(self.costs) / (len(self.costs) + 1)


# A path, a sentence that it might go on with (with the blank before it), and whether the answer ends there.
Candidate = tuple[Path, str, bool]


def make_pairs(making: Making, how: Pairs) -> Iterator[AnsweredPair]:
    """Grows paths for all images together, sentence by sentence; then best against worst."""
    if how.scorer == "clip":
        making.image_text([], how.clip)  # a wrong name is told before hours of work
    prompts = [making.random("csr", i.sha256).choice(making.prompts["plain"]) for i in making.images]
    growing = [[Path(number)] for number in range(len(making.images))]
    answers: list[list[Path]] = [[] for _ in making.images]
    for step in range(how.sentences):
        found = candidates(making, prompts, [path for own in growing for path in own], how, step)
        for path, sentence, _ in found:
            # Where the model says no more the path ends as it is: nothing is likelier than no words. An
            # answer without any is none.
            if path.text and not sentence:
                answers[path.image].append(path)
        found = [one for one in found if one[1]]
        grown: list[list[Path]] = [[] for _ in making.images]
        for (_, _, ended), path in zip(found, score_paths(making, prompts, found, how), strict=True):
            # An answer that the bound on sentences cuts is one of them.
            (answers if ended or step == how.sentences - 1 else grown)[path.image].append(path)
        growing = [at_the_ends(own, how) for own in grown]
    for image, prompt, own in zip(making.images, prompts, answers, strict=True):
        order = sorted(own, key=lambda path: (path.cost, path.text))
        if len(order) < 2:
            making.dropped["with fewer than two answers"] += 1
        else:
            yield AnsweredPair(image, prompt, order[0].text, order[-1].text, "worst path")


def candidates(
    making: Making, prompts: Sequence[str], growing: Sequence[Path], how: Pairs, step: int
) -> list[Candidate]:
    """Next sentences of paths, each once."""
    asked = []
    for path in growing:
        image, prompt = making.images[path.image], prompts[path.image]
        draw = making.random("csr candidates", image.sha256, path.text)
        seeds = [draw.getrandbits(31) for _ in range(how.candidates)]
        asked += [question(prompt, image, how, seed, begun=path.text) for seed in seeds]
    answers = iter(making.answers(asked, f"ask for sentence {step + 1}"))
    found: dict[tuple[int, str], Candidate] = {}
    for path in growing:
        for answer in (next(answers) for _ in range(how.candidates)):
            first, *more = sentences(answer.text) or [""]
            if not more and answer.finish_reason == "length":
                first = ""  # cut in the middle: no sentence, and nothing to go on from
            ended = not more and (answer.finish_reason == "stop" or not first)
            sentence = f" {first}" if path.text and first else first
            found.setdefault((path.image, path.text + sentence), (path, sentence, ended))
    return list(found.values())


def score_paths(making: Making, prompts: Sequence[str], found: Sequence[Candidate], how: Pairs) -> list[Path]:
    """The paths that candidates make, with their costs, by their ranks among the candidates of one path."""
    images = [making.images[path.image] for path, _, _ in found]
    asked = [
        (question(prompts[path.image], image, how, begun=path.text), sentence)
        for image, (path, sentence, _) in zip(images, found, strict=True)
    ]
    logps = [one.logp / max(1, one.n_tokens) for one in making.likelihoods(asked, "score sentences")]
    shown = [(image, sentence.strip()) for image, (_, sentence, _) in zip(images, found, strict=True)]
    fits = making.image_text(shown, how.clip if how.scorer == "clip" else None)
    together: dict[Path, list[int]] = defaultdict(list)
    for index, (path, _, _) in enumerate(found):
        together[path].append(index)
    costs = [0.0] * len(found)
    for own in together.values():
        for values, weight in ((logps, 1 - how.weight), (fits, how.weight)):
            for index, rank in zip(own, ranks([values[index] for index in own]), strict=True):
                costs[index] += weight * rank
    return [
        Path(path.image, path.text + sentence, (*path.costs, cost), path.score + logp)
        for (path, sentence, _), cost, logp in zip(found, costs, logps, strict=True)
    ]


def ranks(values: Sequence[float]) -> list[float]:
    """Places from the highest value on, over their number; equal values share the middle of theirs."""
    from scipy.stats import rankdata

    return [rank / len(values) for rank in rankdata([-value for value in values]).tolist()]


def at_the_ends(paths: Sequence[Path], how: Pairs) -> list[Path]:
    """The paths to continue: the likeliest paths and the least likely; all if there are few."""
    order = sorted(paths, key=lambda path: (-path.score, path.text))
    if len(order) < how.candidates or len(order) <= how.keep_best + how.keep_worst:
        return order
    return order[: how.keep_best] + order[-how.keep_worst :]


def plan(config: CsrConfig, data: Data) -> Plan:
    """In each iteration pairs by the last adapter, then preference training that goes on from it."""
    how = config.pairs
    images = share(how.images, how.fraction, len(data.images))
    rows = min(images, len(data.images))
    most = max(how.keep_best + how.keep_worst, how.candidates - 1)  # paths that go on, of an image
    asked = rows * (1 + most * (how.sentences - 1)) * how.candidates

    pairs = partial(
        stages.made_pairs, make_pairs, Pairs, how, data, version=3, images=images, rows=rows,
        generations=asked, roles=("plain",) if how.scorer == "clip" else ("plain", "step_by_step"),
        asks=("likelihoods", "going on"),
    )  # fmt: skip
    adapter = stages.rounds(
        pairs, config.iterations, training=config.training, lora=config.lora, reference=config.reference
    )
    return Plan(adapter, "direct")


PAPER = "Zhou et al., Calibrated Self-Rewarding Vision Language Models, NeurIPS 2024"
NOTES = {
    "preferred": "best path of a sentence-by-sentence search, ranked by log-probability and image-text fit",
    "dispreferred": "worst path",
    "training": "DPO, several iterations",
    "reads": "images",
    "differs": "candidates are sampled, each beyond its sentence's end; the paper uses diverse beam search "
    "(5 groups, penalty 3). Equal candidates count once. They are ranked by mean log-likelihood per token, "
    "without that penalty. An answer ends where the model ends it, or after 8 sentences; in the released "
    "code it ends at 1,024 characters, prompt included, and every full stop ends a sentence. The released "
    "code also drops candidates with fewer than four characters, with symbols of other scripts, or with many "
    "repetitions. Prompts come from the prompt set, not from the released code's eleven. The batch size is "
    "for all GPUs together; the released script has 1 on each GPU and does not say how many GPUs, and groups "
    "rows by length. Each iteration continues the adapter instead of merging it",
    "source": "github.com/YiyangZhou/CSR, inference_csr/ and scripts/run_train.sh",
}
method = Method("csr", "CSR", plan, CsrConfig, PAPER, NOTES)
