"""What the paper claims, what we ask beside it, and why the miniature shows it or not."""

# ruff: noqa: E501  -- prose

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["shown", "suggested", "not shown", "suggested otherwise", "contradicted"]


@dataclass(frozen=True)
class Of:
    """A row of a table: of the main run, or a cell of an ablation.

    Attributes:
        method: Registry name.
        dar: Whether it answers by describe-and-respond.
        ablation: Name; empty for the main run.
        settings: Of the cell, where they are not the default's.
    """

    method: str = "stic"
    dar: bool = True
    ablation: str = ""
    settings: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, or a question of ours, as a difference that should be positive.

    Attributes:
        text: What is claimed.
        paper: The paper's figure.
        less: What should score less.
        more: What should score more.
        why: Verdict -> the explanation that belongs beside it, where there is one. None speaks of numbers that
            another run may change.
        benchmark: Where; the average of all without.
        least: Points that the difference should come to; the verdict says whether it does.
        margin: What the difference has to lie above, in points, if that is not 0: then the interval alone
            decides, as p is of no difference.
    """

    text: str
    paper: str
    less: Of
    more: Of
    why: Mapping[Verdict, str]
    benchmark: str = "average"
    least: float = 0.0
    margin: float = 0.0


def cell(
    ablation: str, settings: Mapping[str, Any] | None = None, *, method: str = "stic", dar: bool = True
) -> Of:
    """A cell of an ablation; axes that are not named are at their default."""
    return Of(method, dar, ablation, settings or {})


BASE, BASE_DAR = Of("baseline", False), Of("baseline", True)
STIC, STIC_DAR = Of(dar=False), Of()
BASE_OF_FRACTIONS = Of("baseline", False, "data-fraction")  # each run is compared with its own base

HEAD = """
# The paper's claims, in miniature

What of *Enhancing Large Vision Language Models with Self-Training on Image Comprehension* (Deng et al., NeurIPS
2024) shows on the embedded pocket model: a vision-language model with some million parameters, a drawn world,
seven benchmarks of 200 rows each (MMBench: 50 questions in four rotations), {seeds} training seeds in the main run
and in `components`, {few} in the other ablations. The paper's models are a thousand times larger and see
photographs: a claim that does not show here may still hold there, and one that shows here is no evidence for it
there. This page is evidence that the whole method runs and has its effect in this program.

Each line is a difference that the claim says is positive, in points, with its 95 % interval over test rows and
seeds. p tests for no difference; the corrected p is in brackets ([docs/statistics.md](../docs/statistics.md) has
the formulas). **Shown** means that the interval is above zero and the corrected p is below 0.05; **suggested**
means that only the first holds; **not shown** means that the interval contains zero; **suggested otherwise** and
**contradicted** are the opposites of the first two. If a claim names a number of points, the difference itself has
to reach it; "less than a point" is shown if the interval leaves no room for more. After a verdict comes the result
on the third of the rows in held-out wordings, if its interval says something else. The paper states no intervals.
Its figures are in [paper.yaml](paper.yaml); they are for LLaVA-v1.6-7B and the average over seven benchmarks unless
a line says otherwise.

![Gains over the baseline](pocket/figures/gains.svg)
"""

TAIL = """
## All tables and figures

The main run is in [pocket/table.md](pocket/table.md), with its [training curves](pocket/figures/training.svg).
Every ablation has a folder with `table.md` (also `.tex`, `.html`, `.csv`, `.json`), the figures, and the
per-row scores that they are built from:

| ablation | varies | seeds | figures |
|---|---|---:|---|
{ablations}

## What is not here

- Table 5 (a 13B model) and the comparison with other methods' models: there is one pocket model.
- {spared}
- Everything that needs photographs, a real judge, or free text about facts outside the picture.

`make results` makes all of this again, in parts that can be stopped and continued;
`make results ARGS=--list` says how long each took.
"""

MAIN = ("scienceqa", "textvqa", "chartqa", "llava_bench", "mmbench", "mmvet", "mathvista")
TITLES = ("ScienceQA", "TextVQA", "ChartQA", "LLaVA-Bench", "MMBench", "MM-Vet", "MathVista")
GAINS = (6.4, 4.9, 5.1, 1.9, 4.1, 3.0, 2.4)  # table 2's STIC + DaR less its base
NOT_IN_PAPER = "not in the paper"
SENTENCES = (
    "answers become sentences, which LLaVA-Bench rewards, and TextVQA counts as wrong even where the word is right "
    "([docs/pocket.md](../docs/pocket.md))."
)
STEPS = "step by step: [figure](pocket/ablations/data-fraction/figures/scaling-stage1.fraction.svg)."

PRIMARY = "The paper's pattern (the primary family: averages over the seven benchmarks)"
ON_EACH = "Benchmark by benchmark (tables 1 and 2)"
AIM_OF_SEVEN = 4  # benchmarks with a significant gain

GROUPS: dict[str, list[Claim]] = {
    PRIMARY: [
        Claim(
            "STIC with describe-and-respond beats the base, by 4 points",
            "+4.0",
            BASE,
            STIC_DAR,
            {},
            least=4.0,
        ),
        Claim(
            "describe-and-respond hurts the base, or helps it by less than a point",
            "+2.3",
            BASE_DAR,
            BASE,
            {
                "shown": "what the base says under a plain prompt leaves things out, and not all of it is right "
                "([descriptions.md](pocket/descriptions.md)). That its answers follow that is likely, and not tested."
            },
            margin=-1.0,
        ),
        Claim("it helps the model that STIC has trained", "+1.1", STIC, STIC_DAR, {}),
        Claim(
            "stage 1 alone helps",
            "+1.1 (ScienceQA)",
            BASE,
            Of("stic_stage1", False),
            {"not shown": SENTENCES, "suggested otherwise": SENTENCES},
        ),
        Claim("stage 2 adds to stage 1", "+2.5 (ScienceQA)", Of("stic_stage1", False), STIC, {}),
        Claim(
            "more images are better: all of them against an eighth",
            "+2.0 (LLaVA-Bench, 30k against 6k)",
            cell("data-fraction", {"stage1.fraction": 0.125}),
            cell("data-fraction"),
            {"suggested": STEPS, "shown": STEPS},
        ),
        Claim(
            "half of the instruction items are enough to beat the base",
            "5k items where others use 17k",
            BASE_OF_FRACTIONS,
            cell("data-fraction", {"stage2.fraction": 0.5}),
            {},
        ),
        Claim(
            "dispreferred answers help: STIC beats fine-tuning on the preferred ones alone",
            "+2.5 (mean of three benchmarks)",
            Of("positive_only"),
            STIC_DAR,
            {
                "not shown": "preferred descriptions (step-by-step prompt, [descriptions.md](pocket/descriptions.md)) may "
                "teach by themselves most of what there is to learn."
            },
        ),
    ],
    ON_EACH: [
        Claim(
            f"STIC with describe-and-respond beats the base on {title}",
            f"{gain:+.1f}",
            BASE,
            STIC_DAR,
            {},
            name,
        )
        for name, title, gain in zip(MAIN, TITLES, GAINS, strict=True)
    ],
    "Self-training and describe-and-respond (tables 2 and 9)": [
        Claim(
            "STIC beats the base without describe-and-respond, like for like",
            "+2.8",
            BASE,
            STIC,
            {"not shown": SENTENCES, "suggested otherwise": SENTENCES},
        ),
        Claim("describe-and-respond hurts the base", "+2.3", BASE_DAR, BASE, {}),
        Claim(
            "for the base, plain prompts beat misleading ones",
            "+1.9, +4.8, +10.0 (three benchmarks)",
            cell("prompts", {"dar.prompt_role": "misleading"}, method="baseline"),
            cell("prompts", method="baseline"),
            {
                "suggested otherwise": "misleading prompts make the pocket model say more, of which much is not there "
                "([descriptions.md](pocket/descriptions.md)). Why its answers suffer less from that than from short "
                "descriptions, we do not know."
            },
        ),
        Claim(
            "for the base, the step-by-step prompt beats plain ones",
            NOT_IN_PAPER,
            cell("prompts", method="baseline"),
            cell("prompts", {"dar.prompt_role": "step_by_step"}, method="baseline"),
            {"shown": "whether a careful description also helps the base is in the ablation's table."},
        ),
        Claim(
            "STIC with describe-and-respond beats the untrained base that describes step by step",
            NOT_IN_PAPER,
            cell("prompts", {"dar.prompt_role": "step_by_step"}, method="baseline"),
            STIC_DAR,
            {
                "contradicted": "stage 1 learns from what the base says step by step, to say it under plain prompts, and "
                "gets part of the way. Whoever may choose the description's prompt needs no training on this model."
            },
        ),
        Claim(
            "descriptions by the released script, which does not show the image, are worse",
            NOT_IN_PAPER,
            cell("released-code-quirks", {"dar.sees_image": False}),
            cell("released-code-quirks"),
            {"not shown": "the second pass sees the image in either case."},
        ),
    ],
    "Stages and data (figure 5, 70 % less instruction data, table 4)": [
        Claim(
            "stage 1 adds to stage 2",
            NOT_IN_PAPER,
            cell("components", {"stage1.use": False, "dar": "off"}, dar=False),
            cell("components", {"dar": "off"}, dar=False),
            {},
        ),
        Claim(
            "30 % of the instruction items are enough to beat the base",
            "5k items where others use 17k",
            BASE_OF_FRACTIONS,
            cell("data-fraction", {"stage2.fraction": 0.3}),
            {},
        ),
        Claim(
            "the other 70 % still add",
            NOT_IN_PAPER,
            cell("data-fraction", {"stage2.fraction": 0.3}),
            cell("data-fraction"),
            {},
        ),
        Claim(
            "unlabeled images like the benchmarks' beat scenes as the world draws them",
            "+1.1 (mean of three benchmarks, Vision-FLAN against MSCOCO)",
            cell("image-source"),
            cell("image-source", {"image-source": "benchmarks"}),
            {},
        ),
    ],
    "Questions of ours": [
        Claim(
            "STIC with describe-and-respond beats fine-tuning alone on its items, each at rates of its own",
            NOT_IN_PAPER,
            Of("sft", False),
            STIC_DAR,
            {},
        ),
        Claim(
            "it does without describe-and-respond",
            NOT_IN_PAPER,
            Of("sft", False),
            STIC,
            {},
        ),
        Claim(
            "infused descriptions beat fine-tuning on the same items without them",
            NOT_IN_PAPER,
            cell("infusion", {"stage2.infusion": "none"}),
            cell("infusion"),
            {"not shown": "whether they add anything is less than this many rows and seeds can tell."},
        ),
        Claim(
            "they have to be of the right image",
            NOT_IN_PAPER,
            cell("infusion", {"stage2.infusion": "shuffled"}),
            cell("infusion"),
            {"not shown": "nothing here says that what they tell about the image matters."},
        ),
        Claim(
            "the paper's rejected log-probabilities beat the released code's",
            NOT_IN_PAPER,
            cell("released-code-quirks", {"stage1.rejected_logp": "runner_up"}),
            cell("released-code-quirks"),
            {},
        ),
        Claim(
            "the regulariser helps (alpha 1, as searched, against 0), after stage 1 alone",
            NOT_IN_PAPER,
            cell("alpha-beta", {"stage1.alpha": 0.0}, method="stic_stage1"),
            cell("alpha-beta", method="stic_stage1"),
            {},
        ),
        Claim(
            "the paper's alpha, 1/1024, beats 0 as well at this rate, after stage 1 alone",
            NOT_IN_PAPER,
            cell("alpha-beta", {"stage1.alpha": 0.0}, method="stic_stage1"),
            cell("alpha-beta", {"stage1.alpha": 1 / 1024}, method="stic_stage1"),
            {},
        ),
        Claim(
            "a second iteration helps",
            NOT_IN_PAPER,
            cell("iterations"),
            cell("iterations", {"iterations": 2}),
            {},
        ),
        Claim(
            "corrupted images add to misleading prompts, after stage 1 alone",
            NOT_IN_PAPER,
            cell("corruption", {"p_corrupt": 0.0}, method="stic_stage1"),
            cell("corruption", method="stic_stage1"),
            {},
        ),
        Claim(
            "misleading prompts add to corrupted images, after stage 1 alone",
            NOT_IN_PAPER,
            cell("corruption", {"p_corrupt": 1.0}, method="stic_stage1"),
            cell("corruption", method="stic_stage1"),
            {},
        ),
    ],
}
