"""CSR: Calibrated Self-Rewarding (Zhou et al., NeurIPS 2024, arXiv 2405.14622).

For each image v and prompt x, answers grow sentence by sentence. In each step, for each path:
    candidates s ~ model(v, x, path), each the next sentence
    r(s) = (1 - w) rank(log p(s | v, x, path)) + w rank(fit(v, s)), w = 0.9, fit the image-text similarity;
      ranks are among the candidates of one image, scaled to [0, 1]
    go on with the paths that are best and with those that are worst by the mean r of their sentences
  At the end the best path is preferred, the worst dispreferred; an adapter is trained on the pairs by DPO.
  The next of several iterations goes on from that adapter, which is its reference as well.

Candidates are sampled, where the paper has diverse beams. It merges each adapter into the weights and trains
a new one; going on from the adapter trains the same sum of weights and update, at one rank.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.selftrain import stages
from stic_eval.selftrain.making import Made, Making, question, sentences
from stic_eval.selftrain.method import Data, Method, Plan
from stic_eval.train.lora import LoraSettings
from stic_eval.train.settings import Describing, DifferentPairs, PreferenceTraining, share


class Pairs(DifferentPairs, Describing):
    """How pairs are made.

    Attributes:
        images: Unlabeled images, from the front (paper: 12.9k prompts about images of MSCOCO train2014).
        fraction: Part of these images.
        candidates: Next sentences that are sampled for each path.
        keep: Paths that are gone on with at each end, the best and the worst.
        sentences: Of an answer at most.
        weight: w, of the image-text similarity.
        scorer: Of the similarity: `clip`, a CLIP model, as in the paper; `own`, the model itself.
        clip: That CLIP model, by hub id or folder. Its name is in the pairs' key, its content is not.
        max_new_tokens: Bound on a sentence.
    """

    images: int = Field(default=12_900, ge=1)
    fraction: float = Field(default=1.0, gt=0, le=1)
    candidates: int = Field(default=5, ge=1)  # paper: 5 beams
    keep: int = Field(default=1, ge=1)
    sentences: int = Field(default=8, ge=1)
    weight: float = Field(default=0.9, ge=0, le=1)  # paper
    scorer: Literal["clip", "own"] = "clip"
    clip: str = "openai/clip-vit-large-patch14-336"
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=128, ge=1)


class Training(PreferenceTraining):
    """DPO; the paper's rates."""

    learning_rate: float = Field(default=1e-7, gt=0)
    batch_size: int = Field(default=4, ge=1)  # not from the paper: as STIC's first stage


class CsrConfig(BaseModel):
    """The paper's hyperparameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    iterations: int = Field(default=3, ge=1)  # paper
    reference: Literal["previous", "base"] = "previous"
    pairs: Pairs = Pairs()
    training: Training = Training()
    lora: LoraSettings = LoraSettings()  # rank 128, alpha 256: paper


@dataclass(frozen=True)
class Path:
    """An answer so far: its image's number, its text, its sentences' rewards, whether it has ended."""

    image: int
    text: str = ""
    rewards: tuple[float, ...] = ()
    ended: bool = False

    @property
    def reward(self) -> float:
        """Mean over its sentences."""
        return sum(self.rewards) / max(1, len(self.rewards))


# A path, a sentence that it might go on with (with the blank before it), and whether the answer ends there.
Candidate = tuple[Path, str, bool]


def make_pairs(making: Making, how: Pairs) -> Iterator[Made]:
    """Grows paths for all images together, sentence by sentence; then best against worst."""
    if how.scorer == "clip":
        making.image_text([], how.clip)  # a wrong name is told before hours of work
    prompts = [making.random("csr", i.sha256).choice(making.prompts["plain"]) for i in making.images]
    paths = [[Path(number)] for number in range(len(making.images))]
    for step in range(how.sentences):
        growing = [path for own in paths for path in own if not path.ended]
        found = candidates(making, prompts, growing, how, step)
        paths = [[path for path in own if path.ended] for own in paths]
        # Where the model says no more the path ends as it is: nothing is likelier than no words. An answer
        # without any is none.
        ends = [replace(path, ended=True) for path, sentence, _ in found if path.text and not sentence]
        found = [one for one in found if one[1]]
        for (path, sentence, ended), reward in zip(found, rewards(making, prompts, found, how), strict=True):
            ends.append(Path(path.image, path.text + sentence, (*path.rewards, reward), ended))
        for grown in ends:
            paths[grown.image].append(grown)
        paths = [at_the_ends(own, how.keep) for own in paths]
    for image, prompt, own in zip(making.images, prompts, paths, strict=True):
        if len(own) < 2:
            making.dropped["with fewer than two answers"] += 1
        else:
            yield Made(image, prompt, own[0].text, own[-1].text, "worst path")


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


def rewards(making: Making, prompts: Sequence[str], found: Sequence[Candidate], how: Pairs) -> list[float]:
    """(1 - w) rank(log p) + w rank(fit), ranks among the candidates of one image."""
    images = [making.images[path.image] for path, _, _ in found]
    asked = [
        (question(prompts[path.image], image, how, begun=path.text), sentence)
        for image, (path, sentence, _) in zip(images, found, strict=True)
    ]
    logps = [likelihood.logp for likelihood in making.likelihoods(asked, "score sentences")]
    shown = [(image, sentence.strip()) for image, (_, sentence, _) in zip(images, found, strict=True)]
    fits = making.image_text(shown, how.clip if how.scorer == "clip" else None)
    together: dict[int, list[int]] = defaultdict(list)
    for index, (path, _, _) in enumerate(found):
        together[path.image].append(index)
    totals = [0.0] * len(found)
    for own in together.values():
        for values, weight in ((logps, 1 - how.weight), (fits, how.weight)):
            for index, rank in zip(own, ranks([values[index] for index in own]), strict=True):
                totals[index] += weight * rank
    return totals


def ranks(values: Sequence[float]) -> list[float]:
    """Places in ascending order, scaled to [0, 1]; equal values share the middle of theirs."""
    from scipy.stats import rankdata

    return [(rank - 1) / max(1, len(values) - 1) for rank in rankdata(values).tolist()]


def at_the_ends(paths: Sequence[Path], keep: int) -> list[Path]:
    """The best and the worst paths, so many of each, the best first."""
    order = sorted(paths, key=lambda path: (-path.reward, path.text))
    return order if len(order) <= 2 * keep else order[:keep] + order[-keep:]


def plan(config: CsrConfig, data: Data) -> Plan:
    """In each iteration pairs by the last adapter, then preference training that goes on from it."""
    how = config.pairs
    images = share(how.images, how.fraction, len(data.images))
    rows = min(images, len(data.images))
    asked = rows * (1 + 2 * how.keep * (how.sentences - 1)) * how.candidates

    pairs = partial(
        stages.made_pairs, make_pairs, Pairs, how, data, version=2, images=images, rows=rows,
        generations=asked, roles=("plain",) if how.scorer == "clip" else ("plain", "step_by_step"),
    )  # fmt: skip
    adapter = stages.rounds(
        pairs, config.iterations, training=config.training, lora=config.lora, reference=config.reference
    )
    return Plan(adapter, "direct")


PAPER = "Zhou et al., Calibrated Self-Rewarding Vision Language Models, NeurIPS 2024"
NOTES = {
    "preferred": "best path of a search sentence by sentence, by rank of log-probability and image-text fit",
    "dispreferred": "worst path",
    "training": "DPO, several iterations",
    "reads": "images",
    "differs": "candidates are sampled, each beyond its sentence's end, where the paper searches diverse "
    "beams; iterations go on from the adapter, without merging",
}
method = Method("csr", "CSR", plan, CsrConfig, PAPER, NOTES)
