"""STIC: Self-Training on Image Comprehension (Deng et al., NeurIPS 2024, arXiv 2405.19716).

Algorithm 1, stage 1. For each unlabeled image v:
    x ~ P, a plain prompt
    y_g ~ model(v, x_g), x_g the step-by-step prompt                    preferred
    y_b ~ model(h(v), x), h a corruption, or model(v, x_hallu)          dispreferred
    keep (v, x, y_g, y_b): the plain prompt and the clean image
  and train an adapter on the loss
    -log sigmoid(beta * (log p(y_g)/p_ref(y_g) - log p(y_b)/p_ref(y_b))) - alpha * log p(y_g)

  More iterations (the paper has one) make pairs with the adapter that the last one gave, and go on from it.

Algorithm 2, stage 2. For each item (v, instruction, answer) of the model's own instruction data:
    x_des ~ P; y_des ~ stage-1 model(v, x_des)
  and fine-tune the same adapter on
    (v, "Image description: {y_des}" + instruction) -> answer

Inference. The model describes the image, then answers with the description in front of the question.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.contracts.method import Data, Method, Plan
from stic_eval.selftrain import stages
from stic_eval.training.hyperparameters import Describing, FineTuning, PairSettings, PreferenceLoss, Training
from stic_eval.training.lora import LoraSettings


class Stage1(PairSettings, PreferenceLoss, Training):
    """Image comprehension. `PairSettings` holds how pairs are made: 6,000 images, p_corrupt 0.5, ..."""

    use: bool = True
    beta: float = Field(default=0.1, gt=0)  # the trainer's default in the released code; not in the paper
    alpha: float = Field(default=1 / 1024, ge=0)  # paper and released code
    learning_rate: float = Field(default=1e-7, gt=0)  # paper and released code
    batch_size: int = Field(default=4, ge=1)  # paper; 8 in the released code


class Stage2(FineTuning, Describing):
    """Description-infused fine-tuning: 5,000 items, learning rate 2e-5, batches of 64, ..."""

    use: bool = True
    infusion: Literal["own", "none", "shuffled"] = "own"  # paper: own; the others are controls


class SticConfig(BaseModel):
    """The paper's hyperparameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    iterations: int = Field(default=1, ge=1, le=100)  # of stage 1; paper: 1
    reference: Literal["previous", "base"] = "previous"  # of iterations after the first
    stage1: Stage1 = Stage1()
    stage2: Stage2 = Stage2()
    lora: LoraSettings = LoraSettings()  # rank 128, alpha 256, dropout 0.05: paper and released code


def plan(config: SticConfig, data: Data) -> Plan:
    """Pairs, preference training, descriptions, infused fine-tuning."""
    one, two = config.stage1, config.stage2
    adapter = None
    for iteration in range(1, config.iterations + 1) if one.use else ():
        pairs = stages.pairs(one, data, by=adapter, iteration=iteration)
        adapter = stages.preference(
            pairs, loss=one, training=one, lora=config.lora, start=adapter, reference=config.reference
        )
    if two.use and two.items:
        infused = two.infusion != "none"
        described = stages.descriptions(adapter, data, tuning=two, how=two) if infused else None
        adapter = stages.infused_sft(
            data, tuning=two, lora=config.lora, described=described, infusion=two.infusion, start=adapter
        )
    return Plan(adapter, "describe_and_respond")


class NoStage2(Stage2):
    """Stage 2, switched off."""

    use: bool = False


class Stage1OnlyConfig(SticConfig):
    """STIC's configuration with stage 2 switched off."""

    stage2: NoStage2 = NoStage2()


PAPER = "Deng et al., Enhancing Large Vision Language Models with Self-Training on Image Comprehension, 2024"
STAGE_1 = {
    "preferred": "description by a step-by-step prompt",
    "dispreferred": "description of a corrupted image, or by a misleading prompt",
    "training": "DPO with a term on the preferred answer",
    "reads": "images",
    "differs": "prompts follow the paper's roles in our words. Low resolution uses a bicubic filter and "
    "leaves images unchanged if their shorter side has 20 px or fewer; the released code uses a "
    "bilinear filter and enlarges these. All random draws depend on the seed and the image; the released "
    "code seeds only Python's generator, which covers neither sampling nor jitter. The dispreferred "
    "answer's own tokens are scored, as in the paper; the released trainer scores the model's likeliest "
    "(stage1.rejected_logp: runner_up). Training sees the image; the released code's pairs have no image "
    "token. The paper's presets train on one padded tile, as the released code does; other runs train on "
    "images as the model sees them when it answers (training.images). max_length counts only text; in the "
    "released code it includes the image's 576 tokens. Rows are shuffled; the released code groups them by "
    "length (group_by_modality_length). Batches are the paper's; the released scripts use 8",
    "source": "github.com/yihedeng9/STIC, stic/, scripts/ and llava/train/",
}
NOTES = {
    **STAGE_1,
    "training": f"{STAGE_1['training']}; fine-tuning with own descriptions in the prompts",
    "reads": "images; instruction data",
    "differs": f"{STAGE_1['differs']} in stage 1 and 32 in stage 2. The projector is frozen; the released "
    "stage 2 trains it (initialize_vision_modules, rate 2e-5) and then drops it, because evaluation loads "
    "only the adapter. One newline separates a description from the instruction, as in the paper at "
    "inference; the released code has two, in training and at inference (dar.separator)",
}
method = Method("stic", "STIC", plan, SticConfig, PAPER, NOTES)
stage1 = Method("stic_stage1", "STIC, stage 1 only", plan, Stage1OnlyConfig, PAPER, STAGE_1)
