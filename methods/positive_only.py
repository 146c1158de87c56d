"""STIC without negatives: stage 1 fine-tunes on the preferred descriptions instead of comparing.

Source: the control in table 3 of Deng et al. 2024. Pairs, stage 2 and inference are STIC's own; the pairs
are the same files. The paper gives no hyperparameters for it: fine-tuning takes those of stage 2, for
the rate of preference training would leave a fine-tuned model where it was.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from stic_eval.contracts.method import Data, Method, Plan
from stic_eval.selftrain import stages
from stic_eval.training.hyperparameters import Describing, FineTuning, PairSettings, Training
from stic_eval.training.lora import LoraSettings


class Stage1(PairSettings, Training):
    """Pairs as STIC makes them; fine-tuning on their preferred side."""

    learning_rate: float = Field(default=2e-5, gt=0)
    batch_size: int = Field(default=64, ge=1)


class Stage2(FineTuning, Describing):
    """As STIC's stage 2."""


class PositiveOnlyConfig(BaseModel):
    """STIC's values where the two do the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stage1: Stage1 = Stage1()
    stage2: Stage2 = Stage2()
    lora: LoraSettings = LoraSettings()


def plan(config: PositiveOnlyConfig, data: Data) -> Plan:
    """Pairs, fine-tuning on the preferred ones, descriptions, infused fine-tuning."""
    one, two = config.stage1, config.stage2
    adapter = stages.positive_sft(stages.pairs(one, data), training=one, lora=config.lora)
    if two.items:
        described = stages.descriptions(adapter, data, tuning=two, how=two)
        adapter = stages.infused_sft(data, tuning=two, lora=config.lora, described=described, start=adapter)
    return Plan(adapter, "describe_and_respond")


NOTES = {
    "preferred": "as STIC",
    "dispreferred": "none",
    "training": "fine-tuning on preferred descriptions, then as STIC's stage 2",
    "reads": "images; instruction data",
    "differs": "the paper gives no hyperparameters for it, so fine-tuning uses those of stage 2. Pairs and "
    "stage 2 differ from the paper as STIC's do",
    "source": "Deng et al. 2024, table 3",
}
method = Method("positive_only", "Positive only", plan, PositiveOnlyConfig, notes=NOTES)
