"""Generation against what people would otherwise run: lmms-eval, plain batches, the released STIC loop.

Every line is a ratio of two sides that answer the same questions with the same weights, greedily, in
processes of their own (`bench/rivals/`), and whose answers are compared one by one. Times are from loaded
model to last answer. The two take turns of some seconds, each stopped while the other works, so that a
machine that gets slower meanwhile, or is busy with something else, favours none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.pocket import Measured
from bench.ratio import Ratio
from bench.rivals import side, works

# The larger model's work: photographs, questions about each, and new tokens of every answer.
IMAGES, QUESTIONS, NEW_TOKENS = 12, 4, 16
CIRCULAR_QUESTIONS, DESCRIPTION_TOKENS = 4, 32
STAGE1_IMAGES, STAGE1_TOKENS = 64, 96  # the pocket preset's bound on a description
PLAIN = "plain generate, batch {batch_size} (its best)"
DESCRIBE = "Describe the picture."
OVERHEAD_PERCENT = 10.0
BATCH = 32  # with which plain batches of the embedded rows are fastest on two cores


@dataclass(frozen=True)
class Compared(Ratio):
    """A ratio of two sides whose answers were compared.

    Attributes:
        answers: How many there are.
        equal: How many of them are the same text on both sides.
        facts: What else is known of the rival, e.g. its batch size.
    """

    answers: int = 0
    equal: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


def measure() -> list[Ratio]:
    """Runs all sides, lmms-eval only where it is installed; that takes some ten minutes on two cores.

    Raises:
        RuntimeError: A side failed, or two sides were not asked the same.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = works.pocket_model(folder / "pocket-model")
        large = works.larger_model(folder / "larger-model")
        return [*seven(folder / "seven", small), *larger(folder / "larger", large),
                stage1(folder / "stage1", small), circular(folder / "circular", large)]  # fmt: skip


def seven(folder: Path, model: Path) -> list[Ratio]:
    """All seven benchmarks on the embedded model."""
    works.lay_out(folder, model, list(works.pocket_parts()))
    return _evaluations("seven benchmarks, 200 rows each", folder, (5.0, 2.0))


def larger(folder: Path, model: Path) -> list[Ratio]:
    """Several questions about each of some photographs, on the larger model."""
    works.lay_out(folder, model, list(works.larger_parts(IMAGES, QUESTIONS, NEW_TOKENS)))
    work = f"100 M parameters, 576 image tokens, {IMAGES} images, {QUESTIONS} questions each"
    return _evaluations(work, folder, (3.0, 3.0))


def _evaluations(work: str, folder: Path, goals: tuple[float, float]) -> list[Ratio]:
    ratios: list[Ratio] = []
    if find_spec("lmms_eval"):
        asked = side.alone("ours", folder, "prompts").prompts
        rival = "lmms-eval llava_hf, batch 1 (its only)"
        ratios.append(against(work, rival, goals[0], folder, ("lmms",), asked=asked))
    plain = ("plain", "direct", "1", "--trial")
    return [*ratios, against(work, PLAIN, goals[1], folder, plain)]


def stage1(folder: Path, model: Path) -> Ratio:
    """Both answers to every image, as stage 1 asks for them."""
    from stic_eval.pocket.rows import unlabeled_images

    (folder / "images").mkdir(parents=True)
    for number, image in enumerate(unlabeled_images(STAGE1_IMAGES)):
        (folder / "images" / f"{number:03}.png").write_bytes(side.png(image.load()))
    side.Work(str(model), {}, "", STAGE1_TOKENS).save(folder)
    work = f"stage-1 pairs of {STAGE1_IMAGES} images, greedy"
    return against(work, "one image, one prompt at a time", 5.0, folder, ("stage1",), mode="pairs")


def circular(folder: Path, model: Path) -> Ratio:
    """MMBench's rotations, described and answered, on the larger model."""
    part = works.circular_part(CIRCULAR_QUESTIONS, NEW_TOKENS)
    works.lay_out(folder, model, [part], DESCRIBE, DESCRIPTION_TOKENS)
    plain = ("plain", "dar", "1", "--trial")
    work = f"MMBench circular, DaR, {CIRCULAR_QUESTIONS} questions, larger model"
    return against(work, PLAIN, 2.0, folder, plain)


def against(
    work: str,
    rival: str,
    goal: float,
    folder: Path,
    theirs: Sequence[str],
    *,
    mode: str = "evaluate",
    asked: Mapping[str, Sequence[int]] | None = None,
) -> Compared:
    """Runs the rival and this program by turns, and compares what they answered.

    Args:
        work: What is done.
        rival: Who it is compared with; may name the rival's facts in braces.
        goal: The ratio to reach.
        folder: The work.
        theirs: The rival's side, and what it is told.
        mode: What `bench.rivals.ours` is told.
        asked: Prompts of this program, to be compared with the rival's.

    Raises:
        RuntimeError: A side failed, they answered different questions, or were given different prompts.
    """
    there, here = side.in_turn(folder, theirs, ("ours", mode), goal)
    if set(there.answers) != set(here.answers):
        raise RuntimeError(f"{work}: the two sides answered different questions")
    for key, ids in (asked or {}).items():
        if ids != there.prompts[key]:
            raise RuntimeError(f"{work}: {key}: the two sides were given different prompts")
    equal = sum(there.answers[key] == text for key, text in here.answers.items())
    used = {"rival_cpu_seconds": round(there.cpu_seconds, 2), "our_cpu_seconds": round(here.cpu_seconds, 2)}
    facts = {**there.facts, **used, **({"prompts_compared": len(asked)} if asked else {})}
    return Compared(
        work, rival.format(**there.facts), goal, (there.seconds,), (here.seconds,), len(here.answers), equal,
        facts,
    )  # fmt: skip


def overhead() -> list[Measured]:
    """What is spent beside the model: our wall time over that of `generate` alone, on prepared batches.

    The bare loop has every batch pre-processed before its clock starts and does not decode, score or write;
    batches are of the size that is fastest for it, longest questions first as in this program. Ours is from
    loaded model to records.

    Raises:
        RuntimeError: A side failed.
    """
    bare = ("plain", "bare", str(BATCH))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        works.lay_out(folder / "seven", works.pocket_model(folder / "model"), list(works.pocket_parts()))
        found = against("seven benchmarks", "bare generate", 1.0, folder / "seven", bare)
    more = 100 * (1 / found.value - 1)
    return [
        Measured("seven benchmarks, wall time beyond a bare loop of generate", "%", more, OVERHEAD_PERCENT)
    ]
